// Dropout(table[id] · scale + positions[place]), and the gradient of the table.
//
// COLUMNS is a multiple of 8; a thread has eight columns.

#include "philox.cuh"

constexpr unsigned GROUPS = COLUMNS / EIGHT;  // threads that share a row

// y [tokens, COLUMNS]; positions may be null. An id below 0 stands for no symbol: its embedding is
// zero. A thread for each eight columns of a token.
extern "C" __global__ void __launch_bounds__(256)
    embedding(const real* table, const real* positions, const int* ids, const int* places,
              float scale, Mask mask, real* y, unsigned tokens) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned token = i / GROUPS, column = i % GROUPS * EIGHT;
    if (token >= tokens) return;
    float sum[EIGHT] = {};
    int id = ids[token];
    if (id >= 0) {
        load8(sum, table + size_t(id) * COLUMNS + column);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) sum[k] *= scale;
    }
    float other[EIGHT];
    if (positions) {
        load8(other, positions + size_t(places[token]) * COLUMNS + column);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) sum[k] += other[k];
    }
    dropout_factors(other, mask, token, column);
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) sum[k] *= other[k];
    store8(y + size_t(token) * COLUMNS + column, sum);
}

// gradient [rows, COLUMNS], float32, += scale · dy where a row was used. `order` [tokens] are the
// tokens sorted by what they used, stably, so that a row's sum is always added up in one order;
// `starts` [used + 1] says where in it each used row begins, `rows` [used] which one it is. A row
// below 0 has no gradient. A thread for each eight columns of a used row.
extern "C" __global__ void __launch_bounds__(256)
    embedding_gradient(const real* dy, const int* order, const int* starts, const int* rows,
                       unsigned used, float scale, Mask mask, float* gradient) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned u = i / GROUPS, column = i % GROUPS * EIGHT;
    if (u >= used || rows[u] < 0 || starts[u] == starts[u + 1]) return;
    float sum[EIGHT] = {};
    for (int k = starts[u]; k < starts[u + 1]; k++) {
        unsigned token = order[k];
        float part[EIGHT], factors[EIGHT];
        load8(part, dy + size_t(token) * COLUMNS + column);
        dropout_factors(factors, mask, token, column);
#pragma unroll
        for (unsigned n = 0; n < EIGHT; n++) sum[n] += part[n] * factors[n];
    }
    float* row = gradient + size_t(rows[u]) * COLUMNS + column;
    float before[EIGHT];
    load8(before, row);
#pragma unroll
    for (unsigned n = 0; n < EIGHT; n++) before[n] += scale * sum[n];
    store8(row, before);
}
