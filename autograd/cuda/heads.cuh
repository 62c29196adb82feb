// What the two kinds of attention share: where a head lies, and which of its weights are dropped.

#include "philox.cuh"

constexpr unsigned HEAD_COLUMNS = 1 << 20;  // of the mask, from the keys of one head to the next's

// Where a matrix of queries, keys or values begins, and how far it is from one row to the next.
struct Matrix {
    real* first;
    size_t stride;
};

// The dropout factor of a query's weight for a key, both numbered as the mask does; 1 without DROPOUT.
__device__ __forceinline__ float factor_of(const Mask& mask, unsigned query, unsigned column) {
    if (!DROPOUT) return 1;
    uint4 words = philox(make_uint4(mask.row + query, column / EIGHT, mask.site, mask.step),
                         mask.key0, mask.key1);
    unsigned k = column % EIGHT;
    unsigned word = k < 4 ? (k < 2 ? words.x : words.y) : (k < 6 ? words.z : words.w);
    return (word >> 16 * (k % 2) & 0xffff) >= mask.threshold ? mask.scale : 0;
}
