// Runs a CUDA kernel on the host, so that its arithmetic and its indexing can be tested without a
// GPU. Included before the kernel's own source by the host's C++ compiler.
//
// A block's threads are fibers of one operating system's thread: each runs until it waits for the
// others, at a barrier or in an operation of its warp. Warps, and threads within one, take turns in a
// random order, each warp as far as it can; so a barrier that is missing shows as a wrong result.
// Blocks run one after another, and find shared memory full of NaN. What can never end is an error,
// and not a hang.

#define EMULATED 1

// A checked longjmp takes another fiber's stack for a mistake.
#undef _FORTIFY_SOURCE

// As few headers as possible, for each kernel is built anew with them.
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

// The language

#define __global__
#define __device__
#define __shared__ static
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }

inline float __uint_as_float(unsigned bits) {
    float number;
    memcpy(&number, &bits, 4);
    return number;
}
inline unsigned __float_as_uint(float number) {
    unsigned bits;
    memcpy(&bits, &number, 4);
    return bits;
}
template <class T>
inline T __ldg(const T* place) {
    return *place;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return uint64_t(a) * b >> 32; }
// As inexact as the machine's (CUDA C++ Programming Guide, "Mathematical Functions"): powers of two, of
// what is rounded on its way there, some 2 + |1.16 x| units in the last place; logarithms to 2^-21.3
// between 1/2 and 2, where the machine's are to 2^-21.41.
inline float __expf(float x) { return exp2f(x * 1.44269504f); }
inline float __logf(float x) {
    float power = log2f(x);
    if (x > 0.5f && x < 2) power = rintf(power * (1 << 20)) / (1 << 20);
    return power * 0.693147181f;
}
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }

// The machine

namespace emulator {

constexpr unsigned warp_size = 32;
constexpr size_t stack_size = 256 << 10, most_threads = 1024, most_shared = 227 << 10;
constexpr size_t widest = 64;  // bytes that a thread shows the others of its warp
constexpr unsigned most_copies = 32;  // of a thread that wait

struct Copy {
    void* to;
    const void* from;  // null: zeros
};

struct Fiber {
    ucontext_t start;
    jmp_buf place;  // where it goes on, once it has begun
    char* stack = nullptr;
    bool begun = false;
    dim3 index;
    unsigned number = 0, turns = 0;  // of all threads; operations of its warp that it took part in
    bool done = false;
    Copy copies[most_copies];  // that it has begun
    unsigned begun_copies = 0;
};

struct Warp {
    char shown[2][warp_size][widest];
    unsigned arrived = 0, finished = 0, threads = 0;
};

struct Machine {
    Fiber fibers[most_threads];
    Warp warps[most_threads / warp_size];
    unsigned random = 1;
    jmp_buf scheduler;
    Fiber* running = nullptr;
    dim3 grid, block, block_index;
    unsigned alive = 0, waiting = 0, barriers = 0;
    uint64_t events = 0;  // whatever lets a thread go on
    alignas(128) char shared[most_shared];
    size_t shared_size = 0;
    void (*enter)(void*) = nullptr;
    void* arguments = nullptr;
    const char* error = nullptr;
};

inline Machine machine;

// Fibers begin by ucontext.h and go on by jumps, for its switches ask the operating system each time.
// Neither function is inlined: what returns a second time must not find variables that have changed.
__attribute__((noinline)) inline void yield() {
    if (!_setjmp(machine.running->place)) _longjmp(machine.scheduler, 1);
}

__attribute__((noinline)) inline void go_on(Fiber& fiber) {
    machine.running = &fiber;
    if (_setjmp(machine.scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
}

inline void release_barrier() {
    if (machine.alive && machine.waiting == machine.alive) {
        machine.waiting = 0;
        machine.barriers++;
        machine.events++;
    }
}

inline void barrier() {
    unsigned mine = machine.barriers;
    machine.waiting++;
    release_barrier();
    while (machine.barriers == mine) yield();
}

// Shows `value` to the warp, and returns what its threads show.
inline char (*exchange(const void* value, size_t size))[widest] {
    Fiber& fiber = *machine.running;
    Warp& warp = machine.warps[fiber.number / warp_size];
    unsigned turn = fiber.turns++;
    auto shown = warp.shown[turn % 2];
    memcpy(shown[fiber.number % warp_size], value, size);
    if (++warp.arrived == warp.threads) {
        warp.arrived = 0;
        warp.finished = turn + 1;
        machine.events++;
    }
    while (warp.finished <= turn) yield();
    return shown;
}

// A fiber is a thread of one block after another, of one launch: the library may be unloaded then.
inline void run_fiber() {
    for (;;) {
        machine.enter(machine.arguments);
        machine.running->done = true;
        machine.alive--;
        machine.events++;
        release_barrier();
        yield();
    }
}

inline void make_ready(Fiber& fiber) {
    fiber.begun = false;
    getcontext(&fiber.start);
    if (!fiber.stack) fiber.stack = static_cast<char*>(malloc(stack_size));
    fiber.start.uc_stack.ss_sp = fiber.stack;
    fiber.start.uc_stack.ss_size = stack_size;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, run_fiber, 0);
}

// A random number below a limit, by a linear congruence.
inline unsigned random_below(unsigned limit) {
    machine.random = machine.random * 1664525 + 1013904223;
    return uint64_t(machine.random) * limit >> 32;
}

// The numbers below 32 in some order (Fisher and Yates).
inline void shuffle(unsigned (&order)[warp_size]) {
    for (unsigned i = 0; i < warp_size; i++) {
        unsigned j = random_below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

inline void run_block(unsigned threads) {
    memset(machine.shared, 0xff, machine.shared_size);
    machine.alive = threads;
    machine.waiting = 0;
    for (unsigned w = 0; w * warp_size < threads; w++) {
        machine.warps[w].arrived = machine.warps[w].finished = 0;
        machine.warps[w].threads = min(warp_size, threads - w * warp_size);  // the last may be smaller
    }
    for (unsigned i = 0; i < threads; i++) {
        Fiber& fiber = machine.fibers[i];
        fiber.number = i;
        fiber.turns = 0;
        fiber.done = false;
        fiber.begun_copies = 0;
        fiber.index = {i % machine.block.x, i / machine.block.x % machine.block.y,
                       i / machine.block.x / machine.block.y};
    }
    // A warp runs as far as it can before another has its turn: what it may do too early, it does.
    unsigned warps[warp_size], lanes[warp_size];
    while (machine.alive) {
        uint64_t before = machine.events, then;
        shuffle(warps);
        for (unsigned w : warps) {
            if (w * warp_size >= threads) continue;
            do {
                then = machine.events;
                shuffle(lanes);
                for (unsigned lane : lanes) {
                    Fiber& fiber = machine.fibers[w * warp_size + lane];
                    if (w * warp_size + lane >= threads || fiber.done) continue;
                    go_on(fiber);
                }
            } while (machine.events != then);
        }
        if (machine.events == before) {
            machine.error = "threads wait for others that never come";
            return;
        }
    }
}

inline const char* run(dim3 grid, dim3 block, size_t shared, void (*enter)(void*), void* arguments) {
    unsigned threads = block.x * block.y * block.z;
    if (threads == 0 || threads > most_threads) return "a block has 1 to 1,024 threads";
    if (shared > most_shared) return "more shared memory than a block can have";
    machine.grid = grid;
    machine.block = block;
    machine.shared_size = shared;
    machine.enter = enter;
    machine.arguments = arguments;
    machine.error = nullptr;
    for (unsigned i = 0; i < threads; i++) make_ready(machine.fibers[i]);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                machine.block_index = {x, y, z};
                run_block(threads);
                if (machine.error) return machine.error;
            }
    return nullptr;
}

inline void do_copy(const Copy& copy) {
    if (copy.from)
        memcpy(copy.to, copy.from, 16);
    else
        memset(copy.to, 0, 16);
}

// The numbers below a count, as a type.
template <size_t...>
struct Numbers {};
template <size_t count, size_t... numbers_>
struct Below : Below<count - 1, count - 1, numbers_...> {};
template <size_t... numbers_>
struct Below<0, numbers_...> {
    typedef Numbers<numbers_...> numbers;
};

// A kernel, called with the arguments whose addresses are given.
template <auto kernel>
struct Launch;
template <class... Types, void (*kernel)(Types...)>
struct Launch<kernel> {
    static constexpr unsigned parameters = sizeof...(Types);
    template <size_t... Places>
    static void call(void** arguments, Numbers<Places...>) {
        kernel(*static_cast<Types*>(arguments[Places])...);
    }
    static void enter(void* arguments) {
        call(static_cast<void**>(arguments), typename Below<sizeof...(Types)>::numbers{});
    }
};

}  // namespace emulator

#define threadIdx (emulator::machine.running->index)
#define blockIdx (emulator::machine.block_index)
#define blockDim (emulator::machine.block)
#define gridDim (emulator::machine.grid)

inline void __syncthreads() { emulator::barrier(); }
inline void __syncwarp() { emulator::exchange("", 0); }

template <class T>
T __shfl_sync(unsigned, T value, unsigned lane) {
    T result;
    memcpy(&result, emulator::exchange(&value, sizeof value)[lane % 32], sizeof value);
    return result;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned lanes) {
    return __shfl_sync(mask, value, emulator::machine.running->number % 32 ^ lanes);
}
// A bit for each thread of the warp: whether its predicate is true.
inline unsigned __ballot_sync(unsigned, bool predicate) {
    auto shown = emulator::exchange(&predicate, sizeof predicate);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < emulator::warp_size; lane++) bits |= !!shown[lane][0] << lane;
    return bits;
}

inline unsigned atomicAdd(unsigned* place, unsigned more) {
    unsigned before = *place;
    *place += more;
    return before;
}

// What device.cuh has in the machine's own way

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::machine.shared)

inline float bf16_to_float(unsigned short bits) { return __uint_as_float(unsigned(bits) << 16); }

inline unsigned short float_to_bf16(float number) {
    unsigned bits = __float_as_uint(number);
    if (number != number) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Two numbers in a word, the first in its lower half.
inline unsigned pack_bf16(float low, float high) {
    return float_to_bf16(low) | unsigned(float_to_bf16(high)) << 16;
}

// Four bytes of a word, each by a digit of the selector, from the lowest up; 4 is a zero.
inline unsigned permute_bytes(unsigned word, unsigned selector) {
    unsigned result = 0;
    for (unsigned i = 0; i < 4; i++) {
        unsigned from = selector >> 4 * i & 7;
        if (from < 4) result |= (word >> 8 * from & 0xff) << 8 * i;
    }
    return result;
}

// The larger of two numbers each, in both halves of a word; a number rather than a NaN.
inline unsigned max_bf16(unsigned a, unsigned b) {
    auto half = [](unsigned word, unsigned i) { return bf16_to_float(word >> 16 * i & 0xffff); };
    return pack_bf16(fmaxf(half(a, 0), half(b, 0)), fmaxf(half(a, 1), half(b, 1)));
}

// sums [16, 8] += a [16, 16] b [16, 8], dealt out over a warp (PTX ISA, mma.m16n8k16).
inline void multiply_add_bf16(float (&sums)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    unsigned mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    auto shown = emulator::exchange(mine, sizeof mine);
    auto half = [&](unsigned lane, unsigned word, unsigned k) {
        unsigned bits;
        memcpy(&bits, shown[lane] + 4 * word, 4);
        return bf16_to_float(k % 2 ? bits >> 16 : bits & 0xffff);
    };
    unsigned lane = emulator::machine.running->number % 32;
    for (unsigned s = 0; s < 4; s++) {
        unsigned row = lane / 4 + 8 * (s / 2), column = lane % 4 * 2 + s % 2;
        for (unsigned k = 0; k < 16; k++) {
            unsigned of_a = row % 8 * 4 + k % 8 / 2, of_b = column * 4 + k % 8 / 2;
            sums[s] += half(of_a, row / 8 + 2 * (k / 8), k) * half(of_b, 4 + k / 8, k);
        }
    }
}

// Four matrices [8, 8] of 16 bits from shared memory; thread 8 i + r gives the place of row r of
// matrix i (PTX ISA, ldmatrix).
template <bool transposed>
void load_matrices(unsigned (&out)[4], const void* row) {
    auto shown = emulator::exchange(&row, sizeof row);
    unsigned lane = emulator::machine.running->number % 32;
    for (unsigned i = 0; i < 4; i++) {
        unsigned word = 0;
        for (unsigned h = 0; h < 2; h++) {
            unsigned r = lane / 4, c = lane % 4 * 2 + h;
            if (transposed) r = lane % 4 * 2 + h, c = lane / 4;
            const unsigned short* place;
            memcpy(&place, shown[8 * i + r], sizeof place);
            word |= unsigned(place[c]) << 16 * h;
        }
        out[i] = word;
    }
}

// A copy happens between its beginning and the end of the waiting: here at once or at the very end, at
// random, so both what waits too little and what is overwritten too early are noticed.
inline void begin_copy16(void* shared, const void* place, bool there) {
    emulator::Fiber& fiber = *emulator::machine.running;
    emulator::Copy copy = {shared, there ? place : nullptr};
    if (fiber.begun_copies == emulator::most_copies || emulator::random_below(2))
        emulator::do_copy(copy);
    else
        fiber.copies[fiber.begun_copies++] = copy;
}

inline void wait_for_copies() {
    emulator::Fiber& fiber = *emulator::machine.running;
    for (unsigned i = 0; i < fiber.begun_copies; i++) emulator::do_copy(fiber.copies[i]);
    fiber.begun_copies = 0;
}
