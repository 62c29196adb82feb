// What both kinds of attention share: the layout of their matrices, and dropout of the weights.

#include "philox.cuh"

// Key j of a head is column head · HEAD_COLUMNS + j of the mask.
constexpr unsigned HEAD_COLUMNS = 1 << 20;

// A matrix of queries, keys or values: its first number, and its row stride in numbers.
struct Matrix {
    real* first;
    size_t stride;
};

// A query sees the keys up to BEHIND positions behind it and AHEAD of it; -1 stands for all.
__device__ __forceinline__ bool is_hidden(int query, int key) {
    return (AHEAD >= 0 && key > query + AHEAD) || (BEHIND >= 0 && key < query - BEHIND);
}

// The first of the positions that reach up to a place, at most `reach` before it.
__device__ __forceinline__ int first_within(int reach, int place) {
    return reach < 0 ? 0 : max(0, place - reach);
}

// The one after the last of them, at most `reach` after it, of `count` in all.
__device__ __forceinline__ int end_within(int reach, int place, int count) {
    return reach < 0 ? count : min(count, place + reach + 1);
}

// The dropout factor of a weight, at the mask's row `query` and `column`; 1 without DROPOUT.
__device__ __forceinline__ float factor_of(const Mask& mask, unsigned query, unsigned column) {
    if (!DROPOUT) return 1;
    uint4 words = philox(counter_of(mask, query, column), mask.key0, mask.key1);
    unsigned k = column % EIGHT;
    unsigned word = k < 4 ? (k < 2 ? words.x : words.y) : (k < 6 ? words.z : words.w);
    return (word >> 16 * (k % 2) & 0xffff) >= mask.threshold ? mask.scale : 0;
}
