// The gradient of attention (attention.cu) for sentences that are too long for one block
// (attention_gradient.cu): a block has TILE keys and loops over the queries that see them, TILE at
// a time; another kernel has TILE queries and loops over keys.

#include "attention_gradients.cuh"

// The registers of a thread, which limit the blocks on a multiprocessor.
constexpr unsigned REGISTERS = D_K + D_V > 128 || DROPOUT ? 255 : 168;
constexpr unsigned RESIDENT = 65536 / (THREADS * REGISTERS);

// dk and dv of TILE keys of a head of a sentence. tiles: [grid y], of keys. Shared memory:
// TILE · (2 K_ROW + 2 V_ROW + S_ROW).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_key_gradient(Matrix q, Matrix k, Matrix v, Matrix y, Matrix dy,
                           const float* log_sum_exp, const Tile* tiles, float factor, Mask mask,
                           Matrix dk, Matrix dv, unsigned tokens) {
    DYNAMIC_SHARED(real, room);
    Rows rows(room);
    unsigned head = blockIdx.x;
    Tile tile = tiles[blockIdx.y];
    int start = tile.start, n = tile.n, key_start = tile.key_start, m = tile.m;
    int of_warp = threadIdx.x / WARP * BLOCK;  // the row of the warp's queries, and of its keys
    int keys_end = min(m, tile.first + int(TILE)), own = tile.first + of_warp;

    fetch_rows<D_K>(rows.keys, k.first + (key_start + tile.first) * k.stride + head * D_K, k.stride,
                    m - tile.first);
    fetch_rows<D_V>(rows.values, v.first + (key_start + tile.first) * v.stride + head * D_V,
                    v.stride, m - tile.first);
    float dkeys[D_K / 8][4] = {}, dvalues[D_V / 8][4] = {};
    int from = first_within(AHEAD, tile.first);  // of the queries that see them
    int end = end_within(BEHIND, tile.first + int(TILE) - 1, n);
    for (int i = from; i < end; i += TILE) {
        if (i > from) __syncthreads();  // until the previous queries are no longer needed
        int top = start + i, first = i + of_warp;
        fetch_rows<D_K>(rows.queries, q.first + top * q.stride + head * D_K, q.stride, n - i);
        fetch_rows<D_V>(rows.dys, dy.first + top * dy.stride + head * D_V, dy.stride, n - i);
        fetch_rows<D_V, S_ROW>(rows.scores, y.first + top * y.stride + head * D_V, y.stride, n - i);
        Queries of;
        of.begin(log_sum_exp + size_t(head) * tokens + top + of_warp, n - first);
        wait_for_copies();
        __syncthreads();
        if (first < n) {
            real* scores = rows.scores + of_warp * S_ROW;
            of.finish(rows.queries + of_warp * K_ROW, rows.dys + of_warp * V_ROW, scores, factor);
            Sight sight(first, m);
#pragma unroll 1
            for (int j = tile.first; j < keys_end; j += BLOCK) {
                if (!sight.reaches(j, BLOCK)) continue;
                int row = j - tile.first;
                float p[2][4] = {}, dscores[2][4] = {};
                differentiate_scores(p, dscores, of, rows.keys + row * K_ROW,
                                     rows.values + row * V_ROW, first, start + first, j, m,
                                     !sight.has_all(j, BLOCK), factor, mask);
                unsigned left[4];
                pack_left(left, p[0], p[1]);
                put_scores(scores + row, left);
                pack_left(left, dscores[0], dscores[1]);
                put_scores(scores + TILE + row, left);
            }
        }
        __syncthreads();  // until all scores are there
        if (own < m) add_key_gradients(dkeys, dvalues, rows, i, n - i, of_warp, own, m);
    }
    wait_for_copies();  // also where there are no queries
    __syncthreads();    // until no copies go to the places of the keys and values
    store_rows<D_K>(dk.first + (key_start + own) * dk.stride + head * D_K, dk.stride, m - own,
                    rows.keys + of_warp * K_ROW, dkeys, 1, 1);
    store_rows<D_V>(dv.first + (key_start + own) * dv.stride + head * D_V, dv.stride, m - own,
                    rows.values + of_warp * V_ROW, dvalues, 1, 1);
}

// dq of TILE queries. tiles: [grid y], of queries. Shared memory:
// TILE · (2 K_ROW + 2 V_ROW + S_ROW).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_query_gradient(Matrix q, Matrix k, Matrix v, Matrix y, Matrix dy,
                             const float* log_sum_exp, const Tile* tiles, float factor, Mask mask,
                             Matrix dq, unsigned tokens) {
    DYNAMIC_SHARED(real, room);
    Rows rows(room);
    unsigned head = blockIdx.x;
    Tile tile = tiles[blockIdx.y];
    int start = tile.start, n = tile.n, key_start = tile.key_start, m = tile.m;
    int of_warp = threadIdx.x / WARP * BLOCK, first = tile.first + of_warp;
    int top = start + tile.first;
    real *queries = rows.queries + of_warp * K_ROW, *dys = rows.dys + of_warp * V_ROW;

    fetch_rows<D_K>(rows.queries, q.first + top * q.stride + head * D_K, q.stride, n - tile.first);
    fetch_rows<D_V>(rows.dys, dy.first + top * dy.stride + head * D_V, dy.stride, n - tile.first);
    fetch_rows<D_V, S_ROW>(rows.scores, y.first + top * y.stride + head * D_V, y.stride,
                           n - tile.first);
    Queries of;
    of.begin(log_sum_exp + size_t(head) * tokens + top + of_warp, n - first);
    float dqueries[D_K / 8][4] = {};
    Sight sight(first, m);
    int from = first_within(BEHIND, tile.first);  // of the keys that the block's queries see
    int end = end_within(AHEAD, tile.first + int(TILE) - 1, m);
    for (int i = from; i < end; i += TILE) {
        if (i > from) __syncthreads();  // until the previous keys are no longer needed
        fetch_rows<D_K>(rows.keys, k.first + (key_start + i) * k.stride + head * D_K, k.stride,
                        m - i);
        fetch_rows<D_V>(rows.values, v.first + (key_start + i) * v.stride + head * D_V, v.stride,
                        m - i);
        wait_for_copies();
        __syncthreads();
        if (first >= n) continue;
        if (i == from) of.finish(queries, dys, rows.scores + of_warp * S_ROW, factor);
#pragma unroll 1
        for (int j = i; j < min(end, i + int(TILE)); j += BLOCK) {
            if (!sight.reaches(j, BLOCK)) continue;
            const real* keys = rows.keys + (j - i) * K_ROW;
            float p[2][4] = {}, dscores[2][4] = {};
            differentiate_scores(p, dscores, of, keys, rows.values + (j - i) * V_ROW, first,
                                 start + first, j, m, !sight.has_all(j, BLOCK), factor, mask);
            unsigned left[4];
            pack_left(left, dscores[0], dscores[1]);
            add_product<D_K>(dqueries, left, keys);
        }
    }
    wait_for_copies();  // also where there are no keys
    __syncthreads();    // until no copies go to the places of the queries
    store_rows<D_K>(dq.first + (start + first) * dq.stride + head * D_K, dq.stride, n - first,
                    queries, dqueries, 1, 1);
}
