// Included before every source that CuPy has compiled: the emulator (../cuda.h), and what
// kernels that CuPy itself writes expect of CUDA besides.

#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>

// A machine of its own: the loader would take it for that of emulator.py, whose fibers differ.
#define emulator emulator_of_cupy
#include "../cuda.h"

// Kept side by side, so that their size is known: what a launch may ask for besides is less by it.
#undef __shared__
#define __shared__ static __attribute__((section("shared_of_blocks_")))

using std::isfinite;
using std::isinf;
using std::isnan;
using std::ptrdiff_t;
using std::size_t;

inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline double rsqrt(double x) { return 1 / sqrt(x); }

template <class T>
T max(T a, T b) {
    return a > b ? a : b;
}
template <class T>
T min(T a, T b) {
    return a < b ? a : b;
}

#include <cupy/carray.cuh>
#include <cupy/complex.cuh>

extern "C" {
extern char __start_shared_of_blocks_[] __attribute__((weak, visibility("hidden")));
extern char __stop_shared_of_blocks_[] __attribute__((weak, visibility("hidden")));
extern const int shared_of_blocks;
const int shared_of_blocks = int(__stop_shared_of_blocks_ - __start_shared_of_blocks_);
}

// How many threads a block of a kernel may have, by its __launch_bounds__.
constexpr unsigned most_threads_of(unsigned threads = emulator::most_threads, ...) { return threads; }

#include "machine.h"

// The memory that a kernel touches, as far as its arguments tell. How far it goes from a pointer they
// do not: that counts as what it points to.
template <class T>
struct Argument {
    static size_t touched(const T&, Touched*) { return 0; }
};
template <class T>
struct Argument<T*> {
    static size_t touched(T* place, Touched* out) {
        *out = {place, 1, !std::is_const<T>::value};
        return 1;
    }
};
template <class T, int ndim, bool contiguous, bool narrow>
struct Argument<CArray<T, ndim, contiguous, narrow>> {
    static size_t touched(CArray<T, ndim, contiguous, narrow>& array, Touched* out) {
        if (array.size() == 0) return 0;
        ptrdiff_t before = 0, bytes = sizeof(T);
        for (int axis = 0; axis < ndim; axis++) {
            ptrdiff_t reach = (array.shape()[axis] - 1) * array.strides()[axis];
            if (reach < 0) before -= reach;
            bytes += reach < 0 ? -reach : reach;
        }
        auto begin = reinterpret_cast<const char*>(&array[ptrdiff_t(0)]) - before;
        *out = {begin, size_t(bytes), !std::is_const<T>::value};
        return 1;
    }
};

// The table of sums.cu, by value, has pointers to what is added up and to where the sum goes.
struct Sums;
template <>
struct Argument<Sums> {
    template <class Table>  // which is known only where that source is compiled
    static size_t touched(const Table& sums, Touched* out) {
        size_t count = 0;
        for (const auto& sum : sums.of) {
            if (!sum.out) break;
            out[count++] = {sum.parts, sizeof(float) * sum.count * sum.columns, false};
            out[count++] = {sum.out, sizeof(float) * sum.columns, true};
        }
        return count;
    }
};

template <auto kernel>
struct Arguments;
template <class... Types, void (*kernel)(Types...)>
struct Arguments<kernel> {
    static_assert(sizeof...(Types) <= most_touched, "");  // a table of Sums has 192
    static size_t touched(void** arguments, Touched* out) {
        size_t place = 0, count = 0;
        ((count += Argument<Types>::touched(*static_cast<Types*>(arguments[place++]), out + count)),
         ...);
        return count;
    }

    // Copies of the arguments as they are now, for a launch that is recorded. Never freed.
    static void** kept(void** arguments) {
        auto copies = static_cast<void**>(malloc((sizeof...(Types) + 1) * sizeof(void*)));
        size_t place = 0;
        ((copies[place] = memcpy(malloc(sizeof(Types)), arguments[place], sizeof(Types)), place++),
         ...);
        return copies;
    }
};

// What cuModuleLoadData finds of a kernel.
#define STAND_IN_KERNEL(name, ...)                                                              \
    extern "C" {                                                                                \
    unsigned most_threads_of_##name = most_threads_of(__VA_ARGS__);                             \
    size_t touched_by_##name(void** arguments, Touched* out) {                                  \
        return Arguments<name>::touched(arguments, out);                                        \
    }                                                                                           \
    void** kept_for_##name(void** arguments) { return Arguments<name>::kept(arguments); }       \
    const char* launch_##name(const unsigned* shape, size_t shared, void** arguments) {         \
        return emulator::run({shape[0], shape[1], shape[2]}, {shape[3], shape[4], shape[5]},    \
                             shared, emulator::Launch<name>::enter, arguments);                 \
    }                                                                                           \
    }
