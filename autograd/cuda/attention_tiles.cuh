// What the kernels of attention on tensor cores share: sentences in parts of TILE queries or keys,
// in shared memory, and scores in blocks of 16 queries, those of a warp, and 16 keys.
//
// TILE_ROWS is a multiple of 16, and D_K and D_V are multiples of 16 up to 128. Keys more than
// BEHIND positions behind a query or AHEAD of it are hidden; with DROPOUT, weights are dropped.

#include "heads.cuh"

constexpr unsigned TILE = TILE_ROWS, BLOCK = 16, THREADS = TILE / BLOCK * WARP;
// Rows in shared memory are padded, so that eight of them are in different banks.
constexpr unsigned K_ROW = D_K + EIGHT, V_ROW = D_V + EIGHT;
constexpr float LOG2_E = 1.44269504f;

// TILE queries or keys of a sentence: its first query and number of queries, the same of its keys,
// and the position of the tile's first one. A block has a head of a tile: blockIdx.x is the head,
// and blockIdx.y the tile, so that blocks side by side read and write whole rows together.
struct __align__(16) Tile {  // so that it is read at once
    int start, n, key_start, m, first, unused[3];
};

// Begins to copy TILE rows of WIDTH numbers to shared memory, with zeros after the last. Copies in
// flight need no registers, so all that a block needs is asked for before it waits for the first.
template <unsigned WIDTH, unsigned ROW = WIDTH + EIGHT>
__device__ __forceinline__ void fetch_rows(real* shared, const real* rows, size_t stride,
                                           int there) {
    constexpr unsigned GROUPS = WIDTH / EIGHT;
#pragma unroll
    for (unsigned i = 0; i < TILE * GROUPS / THREADS; i++) {  // a number that is known: no branches
        unsigned group = i * THREADS + threadIdx.x;
        unsigned row = group / GROUPS, column = group % GROUPS * EIGHT;
        begin_copy16(shared + row * ROW + column, rows + row * stride + column,
                     int(row) < there);
    }
}

// Writes 16 rows of sums, distributed over a warp, to memory as bfloat16, through shared memory.
template <unsigned WIDTH>
__device__ __forceinline__ void store_rows(real* rows, size_t stride, int there, real* shared,
                                           const float (&sums)[WIDTH / 8][4], float factor0,
                                           float factor1) {
    unsigned lane = threadIdx.x % WARP;
    constexpr unsigned ROW = WIDTH + EIGHT, GROUPS = WIDTH / EIGHT;
#pragma unroll
    for (unsigned t = 0; t < WIDTH / 8; t++) {
        real* place = shared + lane / 4 * ROW + t * 8 + lane % 4 * 2;
        *reinterpret_cast<unsigned*>(place) = pack_bf16(sums[t][0] * factor0, sums[t][1] * factor0);
        *reinterpret_cast<unsigned*>(place + 8 * ROW) =
            pack_bf16(sums[t][2] * factor1, sums[t][3] * factor1);
    }
    __syncwarp();
#pragma unroll
    for (unsigned i = 0; i < 16 * GROUPS / WARP; i++) {
        unsigned group = i * WARP + lane;
        unsigned row = group / GROUPS, column = group % GROUPS * EIGHT;
        if (int(row) < there)
            *reinterpret_cast<uint4*>(rows + row * stride + column) =
                *reinterpret_cast<const uint4*>(shared + row * ROW + column);
    }
}

// Keys, by their positions: those that any of 16 queries sees, and those that all of them see.
struct Sight {
    int from, end, all_from, all_end;

    __device__ __forceinline__ Sight(int query, int m)
        : from(first_within(BEHIND, query)),
          end(end_within(AHEAD, query + int(BLOCK) - 1, m)),
          all_from(first_within(BEHIND, query + int(BLOCK) - 1)),
          all_end(end_within(AHEAD, query, m)) {}

    // Whether any of `count` keys is seen, and whether all of them are, by all queries.
    __device__ __forceinline__ bool reaches(int key, int count) const {
        return key < end && key + count > from;
    }
    __device__ __forceinline__ bool has_all(int key, int count) const {
        return key >= all_from && key + count <= all_end;
    }
};

// 16 rows of WIDTH numbers in shared memory, as a left factor.
template <unsigned WIDTH>
__device__ __forceinline__ void load_left(unsigned (&left)[WIDTH / 16][4], const real* rows) {
    unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned k = 0; k < WIDTH / 16; k++)
        load_matrices<false>(left[k],
                             rows + lane % 16 * (WIDTH + EIGHT) + k * 16 + lane / 16 * 8);
}

// sums: [16, 8 N] += a bᵀ, for a left factor a: [16, WIDTH] and b: [8 N, WIDTH] in shared memory.
template <unsigned WIDTH, unsigned N>
__device__ __forceinline__ void add_dots(float (&sums)[N][4], const unsigned (&left)[WIDTH / 16][4],
                                         const real* b) {
    unsigned lane = threadIdx.x % WARP;
    const real* row = b + (lane % 8 + lane / 16 * 8) * (WIDTH + EIGHT) + lane / 8 % 2 * 8;
#pragma unroll
    for (unsigned k = 0; k < WIDTH / 16; k++)
#pragma unroll
        for (unsigned t = 0; t < N; t += 2) {
            unsigned right[4];
            load_matrices<false>(right, row + t * 8 * (WIDTH + EIGHT) + k * 16);
            unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
            multiply_add_bf16(sums[t], left[k], first);
            multiply_add_bf16(sums[t + 1], left[k], second);
        }
}

// A block of scores, distributed over a warp, as a left factor.
__device__ __forceinline__ void pack_left(unsigned (&left)[4], const float (&low)[4],
                                          const float (&high)[4]) {
    left[0] = pack_bf16(low[0], low[1]);
    left[1] = pack_bf16(low[2], low[3]);
    left[2] = pack_bf16(high[0], high[1]);
    left[3] = pack_bf16(high[2], high[3]);
}

// sums: [16, WIDTH] += a b, for a left factor a: [16, 16] and b: [16, WIDTH] in shared memory.
template <unsigned WIDTH>
__device__ __forceinline__ void add_product(float (&sums)[WIDTH / 8][4], const unsigned (&left)[4],
                                            const real* b) {
    unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned c = 0; c < WIDTH; c += 16) {
        unsigned right[4];
        load_matrices<true>(right, b + lane % 16 * (WIDTH + EIGHT) + c + lane / 16 * 8);
        unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
        multiply_add_bf16(sums[c / 8], left, first);
        multiply_add_bf16(sums[c / 8 + 1], left, second);
    }
}

// The largest, or the sum, over the four threads that share a row of scores.
__device__ __forceinline__ float most_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}

__device__ __forceinline__ float sum_of_row(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}
