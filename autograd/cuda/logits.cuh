// A row of VOCABULARY logits in the registers of a block's THREADS threads, in the dtype that it
// has in memory.

#include "device.cuh"

constexpr unsigned CHUNKS = (VOCABULARY + THREADS * EIGHT - 1) / (THREADS * EIGHT);  // per thread
constexpr unsigned WARPS = THREADS / WARP;

constexpr float LOG2_E = 1.44269504f;  // exp(x) is 2^(x · LOG2_E), which takes fewer instructions

// Two small blocks per multiprocessor: while one computes, the other reads or writes its row.
constexpr unsigned RESIDENT = THREADS > 512 ? 1 : 2;

// The first token id of a thread's chunk c, which may lie past the end of the row.
__device__ __forceinline__ unsigned column_of(unsigned c) {
    return (c * THREADS + threadIdx.x) * EIGHT;
}

// Whether number i of a thread's chunk c is in the row. For all but the last chunk it always is.
__device__ __forceinline__ bool is_there(unsigned c, unsigned i) {
    return (c + 1) * THREADS * EIGHT <= VOCABULARY || column_of(c) + i < VOCABULARY;
}

// Reads a thread's chunks of a row, with -inf past the end. All loads come before anything that waits
// for one of them, so there is no branch in between.
__device__ __forceinline__ void load_row(Packed8 (&chunks)[CHUNKS], const real* row) {
    float x[EIGHT];
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++) x[i] = minus_infinity();
    Packed8 nothing;
    store8(reinterpret_cast<real*>(&nothing), x);
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        chunks[c] = nothing;
        if (is_there(c, 0)) chunks[c] = load_packed8(row + column_of(c));
    }
    if (VOCABULARY % EIGHT == 0) return;
    unpack8(x, chunks[CHUNKS - 1]);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++) x[i] = is_there(CHUNKS - 1, i) ? x[i] : minus_infinity();
    store8(reinterpret_cast<real*>(&chunks[CHUNKS - 1]), x);
}

// As unpack8, for a further pass over the row. By other instructions, or the compiler would keep
// what the pass before has unpacked, in more registers than there are.
__device__ __forceinline__ void unpack8_again(float (&out)[EIGHT], const Packed8& chunk) {
#if REAL_BYTES == 2
    uint4 words = chunk.words;
    unsigned word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        out[2 * i] = __uint_as_float(permute_bytes(word[i], 0x1044));
        out[2 * i + 1] = __uint_as_float(permute_bytes(word[i], 0x3244));
    }
#else
    unpack8(out, chunk);
#endif
}

// The largest of a thread's numbers.
__device__ __forceinline__ float most_of(const Packed8 (&chunks)[CHUNKS]) {
#if REAL_BYTES == 2
    uint4 most = chunks[0].words;
#pragma unroll
    for (unsigned c = 1; c < CHUNKS; c++) {
        uint4 words = chunks[c].words;
        most = make_uint4(max_bf16(most.x, words.x), max_bf16(most.y, words.y),
                          max_bf16(most.z, words.z), max_bf16(most.w, words.w));
    }
    unsigned both = max_bf16(max_bf16(most.x, most.y), max_bf16(most.z, most.w));
    return fmaxf(bf16_to_float(both & 0xffff), bf16_to_float(both >> 16));
#else
    float most = minus_infinity();
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        float x[EIGHT];
        unpack8(x, chunks[c]);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) most = fmaxf(most, x[i]);
    }
    return most;
#endif
}
