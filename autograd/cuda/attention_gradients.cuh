// What the gradients of attention share. A warp has 16 queries, and takes 16 keys at a time:
// weights and gradients of scores go to shared memory as bfloat16, from where warps with 16 keys
// each take them, the other way round.

#include "attention_tiles.cuh"

// A row of scores in shared memory: the weights of a query, and the gradients of its scores. Before
// it has them, it has the query's y.
constexpr unsigned SCORES = 2 * TILE + EIGHT, S_ROW = SCORES > V_ROW ? SCORES : V_ROW;

// Shared memory of a block: TILE rows each of queries, dy, keys, values and scores.
struct Rows {
    real *queries, *dys, *keys, *values, *scores;

    __device__ __forceinline__ Rows(real* room)
        : queries(room),
          dys(queries + TILE * K_ROW),
          keys(dys + TILE * V_ROW),
          values(keys + TILE * K_ROW),
          scores(values + TILE * V_ROW) {}
};

// What a warp keeps of its 16 queries: them and their dy as left factors, log-sum-exp, and Σ dy y,
// which is Σ p dp. Queries that are not there are zero, with a log-sum-exp of 0: the gradients of
// their scores are zero, and their weights meet a dy of zero.
struct Queries {
    unsigned queries[D_K / 16][4], dys[D_V / 16][4];
    // Of two rows a thread, lane / 4 and that + 8: as a power of two, and with the scores' factor.
    float log_sum[2], along[2];

    // Asks for what is not copied to shared memory, before the copies are waited for.
    __device__ __forceinline__ void begin(const float* log_sum_exp, int there) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = threadIdx.x % WARP / 4 + r * 8;
            log_sum[r] = row < there ? log_sum_exp[row] * LOG2_E : 0;
        }
    }

    // Takes the rest from 16 rows of queries, dy and y. y gives way to scores afterwards.
    __device__ __forceinline__ void finish(const real* of_queries, const real* of_dys,
                                           const real* of_ys, float factor) {
        unsigned lane = threadIdx.x % WARP;
#pragma unroll
        for (unsigned r = 0; r < 2; r++) {
            unsigned row = lane / 4 + r * 8;
            float sum = 0;
#pragma unroll
            for (unsigned c = lane % 4 * EIGHT; c < D_V; c += 4 * EIGHT) {
                float a[EIGHT], b[EIGHT];
                load8(a, of_ys + row * S_ROW + c);
                load8(b, of_dys + row * V_ROW + c);
#pragma unroll
                for (unsigned i = 0; i < EIGHT; i++) sum += a[i] * b[i];
            }
            along[r] = sum_of_row(sum) * factor;
        }
        load_left<D_K>(queries, of_queries);
        load_left<D_V>(dys, of_dys);
        __syncwarp();
    }
};

// The weights of 16 queries and 16 keys, with dropout, and the gradients of their scores. The first
// query is at a position of its sentence and at a `row` of all; `masked`: not all queries see all
// keys.
__device__ __forceinline__ void differentiate_scores(float (&p)[2][4], float (&dscores)[2][4],
                                                     const Queries& of, const real* keys,
                                                     const real* values, int query, int row,
                                                     int key, int m, bool masked, float factor,
                                                     const Mask& mask) {
    unsigned lane = threadIdx.x % WARP;
    add_dots<D_K>(p, of.queries, keys);
    add_dots<D_V>(dscores, of.dys, values);
#pragma unroll
    for (unsigned t = 0; t < 2; t++)
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            int across = key + t * 8 + lane % 4 * 2 + i % 2, down = lane / 4 + i / 2 * 8;
            float weight = exp2f(p[t][i] * (factor * LOG2_E) - of.log_sum[i / 2]);
            if (masked && (across >= m || is_hidden(query + down, across))) weight = 0;
            float kept = factor_of(mask, row + down, blockIdx.x * HEAD_COLUMNS + across);
            dscores[t][i] = weight * (dscores[t][i] * (kept * factor) - of.along[i / 2]);
            p[t][i] = weight * kept;
        }
}

// Writes 16 × 16 numbers, distributed over a warp, to rows of scores.
__device__ __forceinline__ void put_scores(real* scores, const unsigned (&left)[4]) {
    unsigned lane = threadIdx.x % WARP;
    real* place = scores + lane / 4 * S_ROW + lane % 4 * 2;
    *reinterpret_cast<unsigned*>(place) = left[0];
    *reinterpret_cast<unsigned*>(place + 8 * S_ROW) = left[1];
    *reinterpret_cast<unsigned*>(place + 8) = left[2];
    *reinterpret_cast<unsigned*>(place + 8 * S_ROW + 8) = left[3];
}

// Adds dv = pᵀ dy and dk = dscoresᵀ q of a warp's 16 keys, over the queries of a tile, of which the
// first has a position in its sentence, and `there` are there. `column` is that of the keys in the
// rows of scores, and `key` their position.
__device__ __forceinline__ void add_key_gradients(float (&dkeys)[D_K / 8][4],
                                                  float (&dvalues)[D_V / 8][4], const Rows& rows,
                                                  int query, int there, unsigned column, int key,
                                                  int m) {
    unsigned lane = threadIdx.x % WARP;
#pragma unroll 1
    for (int i = 0; i < min(there, int(TILE)); i += BLOCK) {
        if (!Sight(query + i, m).reaches(key, BLOCK)) continue;  // no warp has written them
        unsigned place = (i + lane % 8 + lane / 16 * 8) * S_ROW + column + lane / 8 % 2 * 8;
        unsigned left[4];
        load_matrices<true>(left, rows.scores + place);
        add_product<D_V>(dvalues, left, rows.dys + i * V_ROW);
        load_matrices<true>(left, rows.scores + place + TILE);
        add_product<D_K>(dkeys, left, rows.queries + i * K_ROW);
    }
}
