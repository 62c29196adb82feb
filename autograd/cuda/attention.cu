// Attention of packed sentences in bfloat16 on tensor cores (section 3.2 of the paper; keys are
// taken tile by tile as in Dao, "FlashAttention-2", 2023).
//
// A block has TILE queries of a head of a sentence, a warp 16 of them, and loops over the
// sentence's keys, TILE at a time. TILE is the smallest size that a sentence fits into, or 64:
// small blocks leave room for more blocks on a multiprocessor. The scores stay in registers. For
// the backward pass, one number is kept for each query and head, `log_sum_exp`: log Σ exp(score).

#include "attention_tiles.cuh"

// The registers of a thread, which limit the blocks on a multiprocessor.
constexpr unsigned REGISTERS = D_K + D_V > 128 || DROPOUT ? 255 : 128;
constexpr unsigned RESIDENT = 65536 / (THREADS * REGISTERS);
constexpr unsigned LONGER_ROW = K_ROW > V_ROW ? K_ROW : V_ROW;
// Keys that a warp takes together, or leaves out if none of its queries sees any of them: products
// of several blocks of scores do not wait for each other.
constexpr unsigned STEP = TILE % 32 ? TILE : 32;

// y = softmax(q kᵀ · factor) v. tiles: [grid y], of queries. y: [tokens, heads · D_V]; log_sum_exp:
// [heads, tokens]. A query without keys gets zeros. Shared memory:
// TILE · (LONGER_ROW + K_ROW + V_ROW).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention(Matrix q, Matrix k, Matrix v, const Tile* tiles, float factor, Mask mask, Matrix y,
              float* log_sum_exp, unsigned tokens) {
    DYNAMIC_SHARED(real, queries);  // and then y, 16 rows a warp
    real* keys = queries + TILE * LONGER_ROW;
    real* values = keys + TILE * K_ROW;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.x;
    Tile tile = tiles[blockIdx.y];
    int start = tile.start, n = tile.n, key_start = tile.key_start, m = tile.m;
    int first = tile.first + warp * BLOCK;        // of the warp's queries
    int from = first_within(BEHIND, tile.first);  // the keys that the block's queries see
    int seen = end_within(AHEAD, tile.first + int(TILE) - 1, m);
    Sight sight(first, m);

    fetch_rows<D_K>(queries, q.first + (start + tile.first) * q.stride + head * D_K, q.stride,
                    n - tile.first);
    float sums[D_V / 8][4] = {};
    // Two rows a thread: lane / 4, and that + 8. The largest score is one without the factor.
    float most[2] = {minus_infinity(), minus_infinity()}, total[2] = {0, 0};
    float scale = factor * LOG2_E;  // powers of two are one instruction
    for (int j = from; j < seen; j += TILE) {
        if (j > from) __syncthreads();  // until the previous keys are no longer needed
        fetch_rows<D_K>(keys, k.first + (key_start + j) * k.stride + head * D_K, k.stride, m - j);
        fetch_rows<D_V>(values, v.first + (key_start + j) * v.stride + head * D_V, v.stride, m - j);
        wait_for_copies();
        __syncthreads();
        if (first >= n) continue;

        unsigned left[D_K / 16][4];
        load_left<D_K>(left, queries + warp * BLOCK * K_ROW);
#pragma unroll
        for (unsigned s = 0; s < TILE; s += STEP) {
            if (!sight.reaches(j + s, STEP)) continue;
            float p[STEP / 8][4] = {};
            add_dots<D_K>(p, left, keys + s * K_ROW);
            if (!sight.has_all(j + s, STEP))
#pragma unroll
                for (unsigned t = 0; t < STEP / 8; t++)
#pragma unroll
                    for (unsigned i = 0; i < 4; i++) {
                        int key = j + s + t * 8 + lane % 4 * 2 + i % 2;
                        int query = first + lane / 4 + i / 2 * 8;
                        if (key >= m || is_hidden(query, key)) p[t][i] = minus_infinity();
                    }
            float above[2] = {most[0], most[1]};
#pragma unroll
            for (unsigned t = 0; t < STEP / 8; t++)
#pragma unroll
                for (unsigned i = 0; i < 4; i++) above[i / 2] = fmaxf(above[i / 2], p[t][i]);
            // Rescale the sums so far, which are relative to a lower maximum.
            float less[2], shift[2];
#pragma unroll
            for (unsigned r = 0; r < 2; r++) {
                above[r] = most_of_row(above[r]);
                shift[r] = above[r] * scale;
                // Within a window a query may see none of the first keys.
                if (BEHIND >= 0 && above[r] == minus_infinity()) shift[r] = 0;
                less[r] = exp2f(most[r] * scale - shift[r]);
                most[r] = above[r];
                total[r] *= less[r];
            }
#pragma unroll
            for (unsigned t = 0; t < D_V / 8; t++)
#pragma unroll
                for (unsigned i = 0; i < 4; i++) sums[t][i] *= less[i / 2];
#pragma unroll
            for (unsigned t = 0; t < STEP / 8; t++)
#pragma unroll
                for (unsigned i = 0; i < 4; i++) {
                    p[t][i] = exp2f(p[t][i] * scale - shift[i / 2]);
                    total[i / 2] += p[t][i];
                    unsigned key = j + s + t * 8 + lane % 4 * 2 + i % 2;
                    unsigned query = start + first + lane / 4 + i / 2 * 8;
                    p[t][i] *= factor_of(mask, query, head * HEAD_COLUMNS + key);
                }
#pragma unroll
            for (unsigned t = 0; t < STEP / 8; t += 2) {
                unsigned weights[4];
                pack_left(weights, p[t], p[t + 1]);
                add_product<D_V>(sums, weights, values + (s + t * 8) * V_ROW);
            }
        }
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
            log_sum_exp[size_t(head) * tokens + start + query] =
                most[r] * factor + __logf(total[r]);
    }
    store_rows<D_V>(y.first + (start + first) * y.stride + head * D_V, y.stride, n - first,
                    queries + warp * BLOCK * LONGER_ROW, sums, inverse[0], inverse[1]);
}
