// Dropout(table[id] · scale + positions[position_id]), and the gradient of the table.
//
// COLUMNS is a multiple of 8; a thread has a group of eight columns.

#include "philox.cuh"

constexpr unsigned GROUPS = COLUMNS / EIGHT;  // threads that share a row

// y: [tokens, COLUMNS]; table: [vocabulary, COLUMNS]; positions: [length, COLUMNS] or null. An id
// below 0, or not below `vocabulary`, stands for no token: its embedding is zero, as is that of a
// position that is not in the table. One thread per eight columns of a token.
extern "C" __global__ void __launch_bounds__(256)
    embedding(const real* table, unsigned vocabulary, const real* positions, unsigned length,
              const int* ids, const int* position_ids, float scale, Mask mask, real* y,
              unsigned tokens) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned token = i / GROUPS, column = i % GROUPS * EIGHT;
    if (token >= tokens) return;
    float sum[EIGHT] = {};
    unsigned id = ids[token];
    if (id < vocabulary) {
        load8(sum, table + size_t(id) * COLUMNS + column);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) sum[k] *= scale;
    }
    float other[EIGHT];
    if (positions && unsigned(position_ids[token]) < length) {
        load8(other, positions + size_t(position_ids[token]) * COLUMNS + column);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) sum[k] += other[k];
    }
    dropout_factors(other, mask, token, column);
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) sum[k] *= other[k];
    store8(y + size_t(token) * COLUMNS + column, sum);
}

// The gradient is summed along `order`, the tokens in a stable sort by the row that each has used. The
// tokens of one row are a run. A warp has PLACES of the order, and 256 columns.
constexpr unsigned PLACES = 16, WARPS = 4;
constexpr unsigned SPANS = (COLUMNS + WARP * EIGHT - 1) / (WARP * EIGHT);  // of columns
constexpr unsigned AT_ONCE = 4;  // places that are read before anything waits for one of them
constexpr unsigned RESIDENT = REAL_BYTES == 2 ? 5 : 4;  // blocks on a multiprocessor

// gradient: [count, COLUMNS], float32, += scale · dy for the rows that tokens used, where dy is not
// dropped; `scale` contains the mask's. rows: [tokens], the row of each token, or a number out of
// range for none; order: [tokens]. A run that lies within the places of a warp is done here. Of
// other runs the warp leaves its sums in parts: [⌈tokens / PLACES⌉, 2, COLUMNS], of one that began
// before its places in [0], and of one that begins in them in [1]. The order of a sum is fixed.
extern "C" __global__ void __launch_bounds__(WARPS* WARP, RESIDENT)
    embedding_gradient(const real* dy, const int* rows, const int* order, unsigned tokens,
                       float scale, Mask mask, float* gradient, unsigned count, float* parts) {
    unsigned lane = threadIdx.x % WARP, warp = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned column = (warp % SPANS * WARP + lane) * EIGHT, first = warp / SPANS * PLACES;
    if (first >= tokens) return;
    bool has_column = COLUMNS % (WARP * EIGHT) == 0 || column < COLUMNS;

    // Lane i knows place i - 1 of these, and lane 0 and the last one those around them.
    unsigned place = first + lane - 1;
    bool is_place = lane < PLACES + 2 && place < tokens;  // before the first: a very large number
    unsigned token = is_place ? order[place] : 0;
    unsigned row = is_place ? rows[token] : 0, next = __shfl_sync(ALL, row, lane + 1);
    // A bit for each lane: whether the next place is of another run.
    unsigned ends = __ballot_sync(ALL, !is_place || place + 1 >= tokens || next != row);

    float sum[EIGHT] = {};
#pragma unroll 1
    for (unsigned i = 1; i <= PLACES; i += AT_ONCE) {
        Packed8 parts_of_sum[AT_ONCE];
        float before[AT_ONCE][EIGHT];
        unsigned kept = 0;  // eight bits for each place
#pragma unroll
        for (unsigned k = 0; k < AT_ONCE; k++) {
            unsigned used = __shfl_sync(ALL, row, i + k), from = __shfl_sync(ALL, token, i + k);
            bool is_sum = ends >> (i + k) & 1 && used < count;
            if (has_column && first + i + k <= tokens)
                parts_of_sum[k] = load_packed8(dy + size_t(from) * COLUMNS + column);
            if (has_column && is_sum)
                load8(before[k], gradient + size_t(used) * COLUMNS + column);
        }
#pragma unroll
        for (unsigned k = 0; k < AT_ONCE; k++)
            kept |= kept8(mask, __shfl_sync(ALL, token, i + k), column) << EIGHT * k;
#pragma unroll
        for (unsigned k = 0; k < AT_ONCE; k++) {
            unsigned used = __shfl_sync(ALL, row, i + k);
            if (!has_column || first + i + k > tokens) continue;
            float part[EIGHT];
            unpack8(part, parts_of_sum[k]);
#pragma unroll
            for (unsigned n = 0; n < EIGHT; n++)
                if (kept >> (EIGHT * k + n) & 1) sum[n] += part[n];
            if (!(ends >> (i + k) & 1)) continue;
            bool began_here = ends & ((1u << (i + k)) - 1);
            if (!began_here) {
                store8(parts + size_t(first / PLACES) * 2 * COLUMNS + column, sum);
            } else if (used < count) {
#pragma unroll
                for (unsigned n = 0; n < EIGHT; n++) sum[n] = before[k][n] + scale * sum[n];
                store8(gradient + size_t(used) * COLUMNS + column, sum);
            }
#pragma unroll
            for (unsigned n = 0; n < EIGHT; n++) sum[n] = 0;
        }
    }
    bool goes_on = !(ends >> PLACES & 1), began_here = ends & ((1u << PLACES) - 1);
    if (has_column && goes_on)
        store8(parts + (size_t(first / PLACES) * 2 + began_here) * COLUMNS + column, sum);
}

constexpr unsigned LINES = 8;  // threads that share a column, each with every LINES-th part

// For each run that goes on behind the places where it begins: gradient += scale · Σ parts. A block
// has the run that goes on behind the places of a warp (blockIdx.x), if it begins in them, and 256
// columns (blockIdx.y).
extern "C" __global__ void __launch_bounds__(LINES* WARP)
    sum_long_runs(const float* parts, const int* rows, const int* order, unsigned tokens,
                  float scale, float* gradient, unsigned count) {
    __shared__ __align__(16) float sums[LINES][WARP * EIGHT];
    unsigned lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
    unsigned first = blockIdx.x * PLACES, behind = first + PLACES;
    unsigned column = (blockIdx.y * WARP + lane) * EIGHT;
    if (behind >= tokens) return;
    unsigned row = rows[order[behind - 1]];
    if (row >= count || unsigned(rows[order[behind]]) != row) return;
    if (first && unsigned(rows[order[first - 1]]) == row) return;  // it began earlier
    // How many warps have a part behind the first one: those whose first place is of the run.
    unsigned more = 0, found = ALL;
    for (; found == ALL; more += __popc(found)) {
        unsigned place = behind + (more + lane) * PLACES;
        found = __ballot_sync(ALL, place < tokens && unsigned(rows[order[place]]) == row);
    }
    float sum[EIGHT] = {};
    if (column < COLUMNS) {
#pragma unroll 4
        for (unsigned k = line; k <= more; k += LINES) {
            float part[EIGHT];
            load8(part, parts + (size_t(blockIdx.x + k) * 2 + !k) * COLUMNS + column);
#pragma unroll
            for (unsigned n = 0; n < EIGHT; n++) sum[n] += part[n];
        }
    }
    store8(sums[line] + lane * EIGHT, sum);
    __syncthreads();
    if (line || column >= COLUMNS) return;
    for (unsigned other = 1; other < LINES; other++) {
        float part[EIGHT];
        load8(part, sums[other] + lane * EIGHT);
#pragma unroll
        for (unsigned n = 0; n < EIGHT; n++) sum[n] += part[n];
    }
    float* place = gradient + size_t(row) * COLUMNS + column;
    float before[EIGHT];
    load8(before, place);
#pragma unroll
    for (unsigned n = 0; n < EIGHT; n++) before[n] += scale * sum[n];
    store8(place, before);
}
