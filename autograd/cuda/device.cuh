// What the kernels share: bfloat16, vector loads, tensor cores, reductions over a warp.
//
// REAL_BYTES is the size of an activation's numbers: 4 for float32, 2 for bfloat16. Sums,
// statistics and intermediate results are float32 in both cases.

constexpr unsigned WARP = 32, ALL = 0xffffffff;

// A block's dynamic shared memory, whose size is given at the launch.
#ifndef EMULATED
#define DYNAMIC_SHARED(type, name)                       \
    extern __shared__ __align__(16) char name##_bytes[]; \
    type* name = reinterpret_cast<type*>(name##_bytes)
#endif

#if REAL_BYTES == 2
struct real {
    unsigned short bits;
};
#else
typedef float real;
#endif

#ifndef EMULATED  // otherwise tests/without_gpu/cuda.h has these

__device__ __forceinline__ float bf16_to_float(unsigned short bits) {
    return __uint_as_float(unsigned(bits) << 16);
}

// Two numbers in a word, the first in its lower half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// Four bytes of a word, each by a digit of the selector, from the lowest up; 4 is a zero. The compiler
// does not know what it computes.
__device__ __forceinline__ unsigned permute_bytes(unsigned word, unsigned selector) {
    unsigned result;
    asm volatile("prmt.b32 %0, %1, 0, %2;" : "=r"(result) : "r"(word), "r"(selector));
    return result;
}

// The larger of two numbers each, in both halves of a word; a number rather than a NaN.
__device__ __forceinline__ unsigned max_bf16(unsigned a, unsigned b) {
    unsigned word;
    asm("max.bf16x2 %0, %1, %2;" : "=r"(word) : "r"(a), "r"(b));
    return word;
}

// sums: [16, 8] += a b, for a: [16, 16] and b: [16, 8], distributed over a warp (PTX ISA,
// mma.m16n8k16).
__device__ __forceinline__ void multiply_add_bf16(float (&sums)[4], const unsigned (&a)[4],
                                                  const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads four [8, 8] matrices of 16-bit numbers from shared memory; thread 8 i + r has the address
// of row r of matrix i (PTX ISA, ldmatrix).
template <bool transposed>
__device__ __forceinline__ void load_matrices(unsigned (&out)[4], const void* row) {
    unsigned place = unsigned(__cvta_generic_to_shared(row));
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(place)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(place)
                     : "memory");
}

// Begins to copy 16 bytes to shared memory, both places aligned to 16, or zeros without reading
// where they are not `there`. A thread waits for its own copies, and then for those of others at a
// barrier.
__device__ __forceinline__ void begin_copy16(void* shared, const void* place, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     unsigned(__cvta_generic_to_shared(shared))),
                 "l"(__cvta_generic_to_global(place)), "r"(there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

#endif

// A thread reads and writes eight neighbouring numbers at a time, aligned to 16 bytes.
constexpr unsigned EIGHT = 8;

__device__ __forceinline__ void load8(float (&out)[EIGHT], const float* place) {
    float4 a = reinterpret_cast<const float4*>(place)[0];
    float4 b = reinterpret_cast<const float4*>(place)[1];
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

__device__ __forceinline__ void store8(float* place, const float (&in)[EIGHT]) {
    reinterpret_cast<float4*>(place)[0] = make_float4(in[0], in[1], in[2], in[3]);
    reinterpret_cast<float4*>(place)[1] = make_float4(in[4], in[5], in[6], in[7]);
}

// Eight activations as they lie in memory. Where a thread needs several, it loads all of them before
// it unpacks the first, and so waits for memory only once.
#if REAL_BYTES == 2
struct Packed8 {
    uint4 words;
};
#else
struct Packed8 {
    float4 low, high;
};
#endif

__device__ __forceinline__ Packed8 load_packed8(const real* place) {
    return *reinterpret_cast<const Packed8*>(place);
}

#if REAL_BYTES == 2

__device__ __forceinline__ void unpack8(float (&out)[EIGHT], const Packed8& packed) {
    unsigned word[4] = {packed.words.x, packed.words.y, packed.words.z, packed.words.w};
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        out[2 * i] = bf16_to_float(word[i] & 0xffff);
        out[2 * i + 1] = bf16_to_float(word[i] >> 16);
    }
}

__device__ __forceinline__ void load8(float (&out)[EIGHT], const real* place) {
    unpack8(out, load_packed8(place));
}

__device__ __forceinline__ void store8(real* place, const float (&in)[EIGHT]) {
    *reinterpret_cast<uint4*>(place) = make_uint4(pack_bf16(in[0], in[1]), pack_bf16(in[2], in[3]),
                                                  pack_bf16(in[4], in[5]), pack_bf16(in[6], in[7]));
}

__device__ __forceinline__ float load1(const real* place) { return bf16_to_float(place->bits); }

__device__ __forceinline__ void store1(real* place, float number) {
    place->bits = pack_bf16(number, 0) & 0xffff;
}

#else

__device__ __forceinline__ void unpack8(float (&out)[EIGHT], const Packed8& packed) {
    float4 a = packed.low, b = packed.high;
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

__device__ __forceinline__ float load1(const real* place) { return *place; }

__device__ __forceinline__ void store1(real* place, float number) { *place = number; }

#endif

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000); }

// The sum over a warp, in all of its threads, always added up in the same order.
__device__ __forceinline__ float sum_over_warp(float x) {
#pragma unroll
    for (unsigned lanes = WARP / 2; lanes; lanes /= 2) x += __shfl_xor_sync(ALL, x, lanes);
    return x;
}

__device__ __forceinline__ float most_over_warp(float x) {
#pragma unroll
    for (unsigned lanes = WARP / 2; lanes; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, lanes));
    return x;
}
