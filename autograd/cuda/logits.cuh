// A row of VOCABULARY logits in the registers of a block's THREADS threads, in the dtype that it
// has in memory.

#include "device.cuh"

constexpr unsigned CHUNKS = (VOCABULARY + THREADS * EIGHT - 1) / (THREADS * EIGHT);  // per thread
constexpr unsigned WARPS = THREADS / WARP;

struct __align__(16) Chunk {
    real logits[EIGHT];
};

// The first token id of a thread's chunk c, which may lie past the end of the row.
__device__ __forceinline__ unsigned column_of(unsigned c) {
    return (c * THREADS + threadIdx.x) * EIGHT;
}

// Whether number i of a thread's chunk c is in the row. For all but the last chunk it always is.
__device__ __forceinline__ bool is_there(unsigned c, unsigned i) {
    return (c + 1) * THREADS * EIGHT <= VOCABULARY || column_of(c) + i < VOCABULARY;
}

// A chunk as float32, with -inf past the end of the row.
__device__ __forceinline__ void numbers_of(float (&out)[EIGHT], const Chunk& chunk, unsigned c) {
    load8(out, chunk.logits);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++)
        if (!is_there(c, i)) out[i] = minus_infinity();
}
