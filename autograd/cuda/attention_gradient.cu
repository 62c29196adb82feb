// The gradient of attention (attention.cu) for sentences of up to TILE queries and keys, in one
// pass. Longer ones have long_attention_gradient.cu.
//
// A block has a head of a sentence. First a warp has 16 queries, and computes dq over all keys;
// then it has 16 keys, and computes dk and dv over all queries. TILE is the smallest size that the
// sentence fits into.

#include "attention_gradients.cuh"

// The registers of a thread, which limit the blocks on a multiprocessor.
constexpr unsigned REGISTERS = D_K + D_V > 128 || DROPOUT ? 255 : 128;
constexpr unsigned RESIDENT = 65536 / (THREADS * REGISTERS);

// tiles: [grid y], whole sentences. y and dy: [tokens, heads · D_V]; log_sum_exp: [heads,
// tokens]. Shared memory: TILE · (2 K_ROW + 2 V_ROW + S_ROW).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_gradient(Matrix q, Matrix k, Matrix v, Matrix y, Matrix dy, const float* log_sum_exp,
                       const Tile* tiles, float factor, Mask mask, Matrix dq, Matrix dk, Matrix dv,
                       unsigned tokens) {
    DYNAMIC_SHARED(real, room);
    Rows rows(room);
    unsigned head = blockIdx.x;
    Tile tile = tiles[blockIdx.y];
    int start = tile.start, n = tile.n, key_start = tile.key_start, m = tile.m;
    int first = threadIdx.x / WARP * BLOCK;  // of the warp's queries, and of its keys

    fetch_rows<D_K>(rows.queries, q.first + start * q.stride + head * D_K, q.stride, n);
    fetch_rows<D_V>(rows.dys, dy.first + start * dy.stride + head * D_V, dy.stride, n);
    fetch_rows<D_K>(rows.keys, k.first + key_start * k.stride + head * D_K, k.stride, m);
    fetch_rows<D_V>(rows.values, v.first + key_start * v.stride + head * D_V, v.stride, m);
    fetch_rows<D_V, S_ROW>(rows.scores, y.first + start * y.stride + head * D_V, y.stride, n);
    Queries of;
    of.begin(log_sum_exp + size_t(head) * tokens + start + first, n - first);
    wait_for_copies();
    __syncthreads();

    float dqueries[D_K / 8][4] = {};
    if (first < n) {
        real* scores = rows.scores + first * S_ROW;
        of.finish(rows.queries + first * K_ROW, rows.dys + first * V_ROW, scores, factor);
        Sight sight(first, m);
#pragma unroll 1
        for (int j = sight.from / BLOCK * BLOCK; j < sight.end; j += BLOCK) {
            float p[2][4] = {}, dscores[2][4] = {};
            differentiate_scores(p, dscores, of, rows.keys + j * K_ROW, rows.values + j * V_ROW,
                                 first, start + first, j, m, !sight.has_all(j, BLOCK), factor,
                                 mask);
            unsigned left[4];
            pack_left(left, p[0], p[1]);
            put_scores(scores + j, left);
            pack_left(left, dscores[0], dscores[1]);
            put_scores(scores + TILE + j, left);
            add_product<D_K>(dqueries, left, rows.keys + j * K_ROW);
        }
    }
    __syncthreads();  // until all scores are there, and neither keys nor values are needed
    // The places of the warp's 16 keys and values are its own now, for what it stores.
    real *of_keys = rows.keys + first * K_ROW, *of_values = rows.values + first * V_ROW;
    store_rows<D_K>(dq.first + (start + first) * dq.stride + head * D_K, dq.stride, n - first,
                    of_keys, dqueries, 1, 1);
    if (first >= m) return;
    float dkeys[D_K / 8][4] = {}, dvalues[D_V / 8][4] = {};
    add_key_gradients(dkeys, dvalues, rows, 0, n, first, first, m);
    store_rows<D_V>(dv.first + (key_start + first) * dv.stride + head * D_V, dv.stride, m - first,
                    of_values, dvalues, 1, 1);
    __syncwarp();  // until dq has been read
    store_rows<D_K>(dk.first + (key_start + first) * dk.stride + head * D_K, dk.stride, m - first,
                    of_keys, dkeys, 1, 1);
}
