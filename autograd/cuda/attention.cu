// Attention of packed sentences in bfloat16 on tensor cores (section 3.2 of the paper; keys are
// taken tile by tile as in Dao, "FlashAttention-2", 2023).
//
// A block has TILE queries of a head of a sentence, a warp 16 of them, and loops over the
// sentence's keys, TILE at a time. TILE is the smallest size that a sentence fits into, or 64:
// small blocks leave room for more blocks on a multiprocessor. All rows that a block needs are
// asked for before it waits for the first. The scores stay in registers. For the backward pass, one
// number is kept for each query and head, `log_sum_exp`: log Σ exp(score).
//
// TILE_ROWS is 16, 32, 48 or 64. D_K and D_V are multiples of 16 up to 128. Keys more than BEHIND
// positions behind a query or AHEAD of it are hidden; with DROPOUT, weights are dropped.

#include "heads.cuh"

constexpr unsigned TILE = TILE_ROWS, OF_WARP = 16, THREADS = TILE / OF_WARP * WARP;
// The registers of a thread, which limit the blocks on a multiprocessor.
constexpr unsigned REGISTERS = D_K + D_V > 128 || TILE + 16 * DROPOUT > 48 ? 255 : 168;
constexpr unsigned RESIDENT = 65536 / (THREADS * REGISTERS);
// Rows in shared memory are padded, so that eight of them are in different banks.
constexpr unsigned K_ROW = D_K + EIGHT, V_ROW = D_V + EIGHT;
constexpr unsigned LONGER_ROW = K_ROW > V_ROW ? K_ROW : V_ROW;

// TILE queries or keys of a sentence: the first one's position, the sentence's first query and its
// number of queries, and the same of its keys.
struct Tile {
    int first, start, n, key_start, m;
};

// Begins to copy TILE rows of WIDTH numbers to shared memory, with zeros after the last.
template <unsigned WIDTH>
__device__ __forceinline__ void fetch_rows(real* shared, const real* rows, size_t stride,
                                           int there) {
    constexpr unsigned GROUPS = WIDTH / EIGHT;
    // Copies in flight need no registers, but addresses that are computed ahead do.
#pragma unroll (D_K + D_V > 128 || DROPOUT ? 1 : 8)
    for (unsigned i = 0; i < TILE * GROUPS / THREADS; i++) {
        unsigned group = i * THREADS + threadIdx.x;
        unsigned row = group / GROUPS, column = group % GROUPS * EIGHT;
        begin_copy16(shared + row * (WIDTH + EIGHT) + column, rows + row * stride + column,
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
    for (unsigned i = lane; i < 16 * GROUPS; i += WARP) {
        unsigned row = i / GROUPS, column = i % GROUPS * EIGHT;
        if (int(row) < there)
            *reinterpret_cast<uint4*>(rows + row * stride + column) =
                *reinterpret_cast<const uint4*>(shared + row * ROW + column);
    }
}

// sums: [16, 8 N] += a bᵀ, for a: [16, WIDTH] and b: [8 N, WIDTH] in shared memory.
template <unsigned N, unsigned WIDTH>
__device__ __forceinline__ void add_dots(float (&sums)[N][4], const real* a, const real* b) {
    constexpr unsigned ROW = WIDTH + EIGHT;
    unsigned lane = threadIdx.x % WARP;
    // With more unrolling the gradients no longer fit into registers.
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
__device__ __forceinline__ void add_product(float (&sums)[WIDTH / 8][4], const float (&p)[N][4],
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

// The largest, or the sum, over the four threads that share a row of a tile.
__device__ __forceinline__ float most_of_row(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}

__device__ __forceinline__ float sum_of_row(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
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
    int first = tile.first + warp * OF_WARP;  // of the warp's queries
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
        add_dots<TILE / 8, D_K>(p, queries + warp * OF_WARP * K_ROW, keys);
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
        add_product<TILE / 8, D_V>(sums, p, values);
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
                    queries + warp * OF_WARP * LONGER_ROW, sums, inverse[0], inverse[1]);
}

// Shared memory of the backward pass: TILE rows each of queries, keys, values and dy.
struct Rows {
    real *queries, *keys, *values, *dys, *more;
};

__device__ __forceinline__ Rows divided(real* room) {
    Rows rows;
    rows.queries = room;
    rows.keys = rows.queries + TILE * K_ROW;
    rows.values = rows.keys + TILE * K_ROW;
    rows.dys = rows.values + TILE * V_ROW;
    rows.more = rows.dys + TILE * V_ROW;
    return rows;
}

// Fetches what the gradient of a score needs of its query: log-sum-exp, and Σ dy y, which is
// Σ p dp. For TILE queries; dy is in shared memory.
__device__ __forceinline__ void fetch_log_sums(float (&log_sum)[TILE], float (&along)[TILE],
                                             const float* log_sum_exp, const real* y, size_t stride,
                                             const real* dys, int there) {
    constexpr unsigned SHARE = THREADS / TILE;  // threads per query
    unsigned row = threadIdx.x / SHARE, part = threadIdx.x % SHARE;
    float sum = 0;
    if (int(row) < there)
        for (unsigned c = part * EIGHT; c < D_V; c += SHARE * EIGHT) {
            float a[EIGHT], b[EIGHT];
            load8(a, y + row * stride + c);
            load8(b, dys + row * V_ROW + c);
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++) sum += a[i] * b[i];
        }
    sum += __shfl_xor_sync(ALL, sum, 1);
    if (part == 0) {
        along[row] = sum;
        log_sum[row] = int(row) < there ? log_sum_exp[row] : 0;
    }
}

// dk and dv of TILE keys of a head of a sentence, 16 per warp, in a loop over its queries, TILE at
// a time. tiles: [grid x], the keys of each block. If a block has all keys of its sentence, it
// computes dq as well; for other sentences, `attention_query_gradient` does. Shared memory:
// 2 TILE · (K_ROW + V_ROW) and TILE · (TILE + EIGHT).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_gradient(Matrix q, Matrix k, Matrix v, Matrix y, Matrix dy, const float* log_sum_exp,
                       const Tile* tiles, float factor, Mask mask, Matrix dq, Matrix dk, Matrix dv,
                       unsigned tokens) {
    DYNAMIC_SHARED(real, room);
    __shared__ float log_sum[TILE], along[TILE];
    Rows rows = divided(room);
    constexpr unsigned S_ROW = TILE + EIGHT;
    real* dscores = rows.more;  // [keys, queries]
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y;
    Tile tile = tiles[blockIdx.x];
    int start = tile.start, n = tile.n, key_start = tile.key_start, m = tile.m;
    bool alone = m <= int(TILE);

    fetch_rows<D_K>(rows.keys, k.first + (key_start + tile.first) * k.stride + head * D_K, k.stride,
                    m - tile.first);
    fetch_rows<D_V>(rows.values, v.first + (key_start + tile.first) * v.stride + head * D_V,
                    v.stride, m - tile.first);
    float dkeys[D_K / 8][4] = {}, dvalues[D_V / 8][4] = {};
    int end = end_within(BEHIND, tile.first + int(TILE) - 1, n);  // of the queries that see them
    for (int i = first_within(AHEAD, tile.first); i < end; i += TILE) {
        __syncthreads();  // until the previous queries are no longer needed
        fetch_rows<D_K>(rows.queries, q.first + (start + i) * q.stride + head * D_K, q.stride, n - i);
        fetch_rows<D_V>(rows.dys, dy.first + (start + i) * dy.stride + head * D_V, dy.stride, n - i);
        wait_for_copies();
        __syncthreads();
        fetch_log_sums(log_sum, along, log_sum_exp + size_t(head) * tokens + start + i,
                     y.first + (start + i) * y.stride + head * D_V, y.stride, rows.dys, n - i);
        __syncthreads();

        // Rows are keys and columns queries, so that products with these rows sum over queries.
        float p[TILE / 8][4] = {}, dp[TILE / 8][4] = {};
        add_dots<TILE / 8, D_K>(p, rows.keys + warp * OF_WARP * K_ROW, rows.queries);
        add_dots<TILE / 8, D_V>(dp, rows.values + warp * OF_WARP * V_ROW, rows.dys);
#pragma unroll
        for (unsigned t = 0; t < TILE / 8; t++)
#pragma unroll
            for (unsigned e = 0; e < 4; e++) {
                int across = t * 8 + lane % 4 * 2 + e % 2, query = i + across;
                int key = tile.first + warp * OF_WARP + lane / 4 + e / 2 * 8;
                bool hidden = key >= m || query >= n || is_hidden(query, key);
                float weight = hidden ? 0 : __expf(p[t][e] * factor - log_sum[across]);
                float kept = factor_of(mask, start + query, head * HEAD_COLUMNS + key);
                dp[t][e] = weight * (dp[t][e] * kept - along[across]) * factor;
                p[t][e] = weight * kept;
            }
        add_product<TILE / 8, D_V>(dvalues, p, rows.dys);
        add_product<TILE / 8, D_K>(dkeys, dp, rows.queries);
        if (!alone) continue;

#pragma unroll
        for (unsigned t = 0; t < TILE / 8; t++) {
            real* place = dscores + (warp * OF_WARP + lane / 4) * S_ROW + t * 8 + lane % 4 * 2;
            *reinterpret_cast<unsigned*>(place) = pack_bf16(dp[t][0], dp[t][1]);
            *reinterpret_cast<unsigned*>(place + 8 * S_ROW) = pack_bf16(dp[t][2], dp[t][3]);
        }
        __syncthreads();
        float dqueries[D_K / 8][4] = {};
#pragma unroll
        for (unsigned j = 0; j < TILE; j += 16) {
            unsigned left[4];
            load_matrices<true>(left, dscores + (j + lane % 8 + lane / 16 * 8) * S_ROW +
                                          warp * OF_WARP + lane / 8 % 2 * 8);
#pragma unroll
            for (unsigned c = 0; c < D_K; c += 16) {
                unsigned right[4];
                load_matrices<true>(right, rows.keys + (j + lane % 16) * K_ROW + c + lane / 16 * 8);
                unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
                multiply_add_bf16(dqueries[c / 8], left, first);
                multiply_add_bf16(dqueries[c / 8 + 1], left, second);
            }
        }
        int first = i + warp * OF_WARP;
        // The queries in shared memory are no longer needed: all threads have passed the barrier.
        store_rows<D_K>(dq.first + (start + first) * dq.stride + head * D_K, dq.stride, n - first,
                        rows.queries + warp * OF_WARP * K_ROW, dqueries, 1, 1);
    }
    wait_for_copies();  // also where there are no queries
    __syncthreads();    // until the keys are no longer needed
    int first = tile.first + warp * OF_WARP;
    store_rows<D_K>(dk.first + (key_start + first) * dk.stride + head * D_K, dk.stride, m - first,
                    rows.keys + warp * OF_WARP * K_ROW, dkeys, 1, 1);
    store_rows<D_V>(dv.first + (key_start + first) * dv.stride + head * D_V, dv.stride, m - first,
                    rows.values + warp * OF_WARP * V_ROW, dvalues, 1, 1);
}

// dq of TILE queries, for sentences with more than TILE keys. tiles: [grid x], the queries of a
// block. Shared memory: 2 TILE · (K_ROW + V_ROW).
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_query_gradient(Matrix q, Matrix k, Matrix v, Matrix y, Matrix dy, const float* log_sum_exp,
                             const Tile* tiles, float factor, Mask mask, Matrix dq,
                             unsigned tokens) {
    DYNAMIC_SHARED(real, room);
    __shared__ float log_sum[TILE], along[TILE];
    Rows rows = divided(room);
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, head = blockIdx.y;
    Tile tile = tiles[blockIdx.x];
    int start = tile.start, n = tile.n, key_start = tile.key_start, m = tile.m;
    int first = tile.first + warp * OF_WARP;
    int seen = end_within(AHEAD, tile.first + int(TILE) - 1, m);

    size_t top = start + tile.first;
    fetch_rows<D_K>(rows.queries, q.first + top * q.stride + head * D_K, q.stride, n - tile.first);
    fetch_rows<D_V>(rows.dys, dy.first + top * dy.stride + head * D_V, dy.stride, n - tile.first);
    float dqueries[D_K / 8][4] = {};
    int from = first_within(BEHIND, tile.first);
    for (int j = from; j < seen; j += TILE) {
        if (j > from) __syncthreads();  // until the previous keys are no longer needed
        fetch_rows<D_K>(rows.keys, k.first + (key_start + j) * k.stride + head * D_K, k.stride,
                        m - j);
        fetch_rows<D_V>(rows.values, v.first + (key_start + j) * v.stride + head * D_V, v.stride,
                        m - j);
        wait_for_copies();
        __syncthreads();
        if (j == from) {
            fetch_log_sums(log_sum, along, log_sum_exp + size_t(head) * tokens + top,
                           y.first + top * y.stride + head * D_V, y.stride, rows.dys,
                           n - tile.first);
            __syncthreads();
        }
        if (first >= n) continue;
        float p[TILE / 8][4] = {}, dp[TILE / 8][4] = {};
        add_dots<TILE / 8, D_K>(p, rows.queries + warp * OF_WARP * K_ROW, rows.keys);
        add_dots<TILE / 8, D_V>(dp, rows.dys + warp * OF_WARP * V_ROW, rows.values);
#pragma unroll
        for (unsigned t = 0; t < TILE / 8; t++)
#pragma unroll
            for (unsigned e = 0; e < 4; e++) {
                int down = warp * OF_WARP + lane / 4 + e / 2 * 8, query = tile.first + down;
                int key = j + t * 8 + lane % 4 * 2 + e % 2;
                bool hidden = key >= m || query >= n || is_hidden(query, key);
                float weight = hidden ? 0 : __expf(p[t][e] * factor - log_sum[down]);
                float kept = factor_of(mask, start + query, head * HEAD_COLUMNS + key);
                dp[t][e] = weight * (dp[t][e] * kept - along[down]) * factor;
            }
        add_product<TILE / 8, D_K>(dqueries, dp, rows.keys);
    }
    __syncthreads();
    store_rows<D_K>(dq.first + (start + first) * dq.stride + head * D_K, dq.stride, n - first,
                    rows.queries + warp * OF_WARP * K_ROW, dqueries, 1, 1);
}
