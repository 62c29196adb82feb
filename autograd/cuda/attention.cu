// Attention of packed sentences in bfloat16 on tensor cores (section 3.2 of the paper; keys are
// taken tile by tile as in Dao, "FlashAttention-2", 2023).
//
// A block has TILE queries of a head of a sentence, a warp 16 of them, and loops over the
// sentence's keys, TILE at a time. TILE is the smallest size that a sentence fits into, or 64:
// small blocks leave room for more blocks on a multiprocessor. The scores stay in registers. For the
// backward pass, one number is kept for each query and head, `log_sum_exp`: log Σ exp(score).

#include "attention_tiles.cuh"

// The registers of a thread, which limit the blocks on a multiprocessor.
constexpr unsigned REGISTERS = D_K + D_V > 128 || TILE + 16 * DROPOUT > 48 ? 255 : 168;
constexpr unsigned RESIDENT = 65536 / (THREADS * REGISTERS);
constexpr unsigned LONGER_ROW = K_ROW > V_ROW ? K_ROW : V_ROW;

// sums: [16, 8 N] += a bᵀ, for a: [16, WIDTH] and b: [8 N, WIDTH] in shared memory.
template <unsigned N, unsigned WIDTH>
__device__ __forceinline__ void add_dots_of_rows(float (&sums)[N][4], const real* a, const real* b) {
    constexpr unsigned ROW = WIDTH + EIGHT;
    unsigned lane = threadIdx.x % WARP;
#pragma unroll (DROPOUT ? 1 : 2)
    for (unsigned k = 0; k < WIDTH; k += 16) {
        unsigned left[4];
        load_matrices<false>(left, a + lane % 16 * ROW + k + lane / 16 * 8);
#pragma unroll
        for (unsigned t = 0; t < N; t += 2) {
            unsigned right[4];
            unsigned row = t * 8 + lane % 8 + lane / 16 * 8;
            load_matrices<false>(right, b + row * ROW + k + lane / 8 % 2 * 8);
            unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
            multiply_add_bf16(sums[t], left, first);
            multiply_add_bf16(sums[t + 1], left, second);
        }
    }
}

// sums: [16, WIDTH] += p b, for p: [16, 8 N], distributed over the warp, and b: [8 N, WIDTH] in
// shared memory.
template <unsigned N, unsigned WIDTH>
__device__ __forceinline__ void add_weighted(float (&sums)[WIDTH / 8][4], const float (&p)[N][4],
                                            const real* b) {
    constexpr unsigned ROW = WIDTH + EIGHT;
    unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned t = 0; t < N; t += 2) {
        unsigned left[4] = {pack_bf16(p[t][0], p[t][1]), pack_bf16(p[t][2], p[t][3]),
                            pack_bf16(p[t + 1][0], p[t + 1][1]),
                            pack_bf16(p[t + 1][2], p[t + 1][3])};
#pragma unroll
        for (unsigned c = 0; c < WIDTH; c += 16) {
            unsigned right[4];
            load_matrices<true>(right, b + (t * 8 + lane % 16) * ROW + c + lane / 16 * 8);
            unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
            multiply_add_bf16(sums[c / 8], left, first);
            multiply_add_bf16(sums[c / 8 + 1], left, second);
        }
    }
}

// y = softmax(q kᵀ · factor) v. tiles: [grid x], the queries of each block; blockIdx.y is the head.
// y: [tokens, heads · D_V]; log_sum_exp: [heads, tokens]. A query without keys gets zeros. Shared
// memory: TILE · (LONGER_ROW + K_ROW + V_ROW).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention(Matrix q, Matrix k, Matrix v, const Tile* tiles, float factor, Mask mask, Matrix y,
              float* log_sum_exp, unsigned tokens) {
    DYNAMIC_SHARED(real, queries);  // and then y, 16 rows a warp
    real* keys = queries + TILE * LONGER_ROW;
    real* values = keys + TILE * K_ROW;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y;
    Tile tile = tiles[blockIdx.x];
    int start = tile.start, n = tile.n, key_start = tile.key_start, m = tile.m;
    int first = tile.first + warp * BLOCK;  // of the warp's queries
    int from = first_within(BEHIND, tile.first);  // the keys that the block's queries see
    int seen = end_within(AHEAD, tile.first + int(TILE) - 1, m);

    fetch_rows<D_K>(queries, q.first + (start + tile.first) * q.stride + head * D_K, q.stride,
                    n - tile.first);
    float sums[D_V / 8][4] = {};
    // Two rows a thread: lane / 4, and that + 8.
    float most[2] = {minus_infinity(), minus_infinity()}, total[2] = {0, 0};
    for (int j = from; j < seen; j += TILE) {
        if (j > from) __syncthreads();  // until the previous keys are no longer needed
        fetch_rows<D_K>(keys, k.first + (key_start + j) * k.stride + head * D_K, k.stride, m - j);
        fetch_rows<D_V>(values, v.first + (key_start + j) * v.stride + head * D_V, v.stride, m - j);
        wait_for_copies();
        __syncthreads();
        if (first >= n) continue;

        float p[TILE / 8][4] = {};
        add_dots_of_rows<TILE / 8, D_K>(p, queries + warp * BLOCK * K_ROW, keys);
        float above[2] = {most[0], most[1]};
#pragma unroll
        for (unsigned t = 0; t < TILE / 8; t++)
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                int key = j + t * 8 + lane % 4 * 2 + i % 2, query = first + lane / 4 + i / 2 * 8;
                bool hidden = key >= m || is_hidden(query, key);
                p[t][i] = hidden ? minus_infinity() : p[t][i] * factor;
                above[i / 2] = fmaxf(above[i / 2], p[t][i]);
            }
        // Rescale the sums so far, which are relative to a lower maximum.
        float less[2];
#pragma unroll
        for (unsigned r = 0; r < 2; r++) {
            above[r] = most_of_row(above[r]);
            less[r] = __expf(most[r] - above[r]);
            most[r] = above[r];
            total[r] *= less[r];
        }
#pragma unroll
        for (unsigned t = 0; t < D_V / 8; t++)
#pragma unroll
            for (unsigned i = 0; i < 4; i++) sums[t][i] *= less[i / 2];
#pragma unroll
        for (unsigned t = 0; t < TILE / 8; t++)
#pragma unroll
            for (unsigned i = 0; i < 4; i++) {
                p[t][i] = __expf(p[t][i] - most[i / 2]);
                total[i / 2] += p[t][i];
                unsigned key = j + t * 8 + lane % 4 * 2 + i % 2;
                unsigned query = start + first + lane / 4 + i / 2 * 8;
                p[t][i] *= factor_of(mask, query, head * HEAD_COLUMNS + key);
            }
        add_weighted<TILE / 8, D_V>(sums, p, values);
    }
    wait_for_copies();  // also where there are no keys: y goes to the place of the queries
    __syncthreads();    // until the queries are no longer needed
    if (first >= n) return;
    float inverse[2];
#pragma unroll
    for (unsigned r = 0; r < 2; r++) {
        total[r] = sum_of_row(total[r]);
        inverse[r] = seen > 0 ? 1 / total[r] : 0;
        int query = first + lane / 4 + r * 8;
        if (lane % 4 == 0 && query < n)
            log_sum_exp[size_t(head) * tokens + start + query] = most[r] + __logf(total[r]);
    }
    store_rows<D_V>(y.first + (start + first) * y.stride + head * D_V, y.stride, n - first,
                    queries + warp * BLOCK * LONGER_ROW, sums, inverse[0], inverse[1]);
}
