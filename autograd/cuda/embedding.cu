// Dropout(table[id] · scale + positions[position_id]), and the gradient of the table.
//
// COLUMNS is a multiple of 8; a thread has a group of eight columns. A block of the gradient has
// SPAN such groups, each shared by LINES threads.

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

// gradient: [count, COLUMNS], float32, += scale · dy for the rows that tokens used. rows: [tokens],
// the row of each token, or a number out of range for none; order: [tokens], the tokens in a stable
// sort by rows. A block has one index of that order (blockIdx.x) and up to SPAN · 8 columns
// (blockIdx.y). It has work only if a row's tokens begin there. LINES threads share a column, each
// with every LINES-th of these tokens, since a frequent token can be a twentieth of all. The
// order of a sum is fixed.
extern "C" __global__ void __launch_bounds__(512)
    embedding_gradient(const real* dy, const int* rows, const long long* order, unsigned tokens,
                       float scale, Mask mask, float* gradient, unsigned count) {
    __shared__ __align__(16) float sums[LINES][SPAN * EIGHT];
    unsigned first = blockIdx.x, group = threadIdx.x % SPAN, line = threadIdx.x / SPAN;
    int row = rows[order[first]];
    if (unsigned(row) >= count || (first && rows[order[first - 1]] == row)) return;
    // The end of the row's tokens, by bisection: all before `last` have it, none from `behind` on.
    unsigned last = first + 1, behind = tokens;
    while (last < behind) {
        unsigned middle = (last + behind) / 2;
        if (rows[order[middle]] == row)
            last = middle + 1;
        else
            behind = middle;
    }
    unsigned column = (blockIdx.y * SPAN + group) * EIGHT;
    float sum[EIGHT] = {};
    if (line < LINES && column < COLUMNS) {
#pragma unroll 4
        for (unsigned k = first + line; k < last; k += LINES) {
            unsigned token = order[k];
            float part[EIGHT], factors[EIGHT];
            load8(part, dy + size_t(token) * COLUMNS + column);
            dropout_factors(factors, mask, token, column);
#pragma unroll
            for (unsigned n = 0; n < EIGHT; n++) sum[n] += part[n] * factors[n];
        }
        store8(sums[line] + group * EIGHT, sum);
    }
    __syncthreads();
    if (line || column >= COLUMNS) return;
    unsigned lines = min(unsigned(LINES), last - first);
    for (unsigned other = 1; other < lines; other++) {
        float part[EIGHT];
        load8(part, sums[other] + group * EIGHT);
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
