// LayerNorm(residual + Dropout(x)) and its gradient. A warp has a row of COLUMNS numbers, which
// stays in registers from the first to the last use. COLUMNS is a multiple of 8.
//
// Memory traffic: forward reads x and residual, and writes y; backward reads dy, x and residual,
// and writes dx and dresidual. The sum and the mask are recomputed rather than kept.

#include "philox.cuh"

constexpr unsigned CHUNKS = (COLUMNS + WARP * EIGHT - 1) / (WARP * EIGHT);  // of eight, per thread

// The first of the eight columns of chunk c of thread `lane`, which may be past the end of the row.
__device__ __forceinline__ unsigned column_of(unsigned c, unsigned lane) {
    return (c * WARP + lane) * EIGHT;
}

// residual + Dropout(x), or residual if x is null; zeros past the end of the row.
__device__ __forceinline__ void sum_of(float (&total)[CHUNKS][EIGHT], const real* x,
                                       const real* residual, const Mask& mask, unsigned row,
                                       unsigned lane) {
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        unsigned column = column_of(c, lane);
        if (column < COLUMNS) {
            load8(total[c], residual + size_t(row) * COLUMNS + column);
        } else {
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++) total[c][i] = 0;
        }
        if (x && column < COLUMNS) {
            float dropped[EIGHT], factors[EIGHT];
            load8(dropped, x + size_t(row) * COLUMNS + column);
            dropout_factors(factors, mask, row, column);
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++) total[c][i] += dropped[i] * factors[i];
        }
    }
}

// x, residual and y: [rows, COLUMNS]; gain and bias: [COLUMNS]; statistics: [rows] receives each
// row's mean and 1 / √(variance + epsilon). One warp per row.
extern "C" __global__ void __launch_bounds__(128)
    add_dropout_norm(const real* x, const real* residual, const float* gain, const float* bias,
                     Mask mask, float epsilon, real* y, float2* statistics, unsigned rows) {
    unsigned lane = threadIdx.x % WARP;
    unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    float total[CHUNKS][EIGHT];
    sum_of(total, x, residual, mask, row, lane);

    float sum = 0;
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++)
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) sum += total[c][i];
    float mean = sum_over_warp(sum) / COLUMNS;
    float squares = 0;
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++)
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            if (column_of(c, lane) < COLUMNS)
                squares += (total[c][i] - mean) * (total[c][i] - mean);
    float inverse = rsqrtf(sum_over_warp(squares) / COLUMNS + epsilon);
    if (lane == 0) statistics[row] = make_float2(mean, inverse);

#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        unsigned column = column_of(c, lane);
        if (column >= COLUMNS) continue;
        float gains[EIGHT], biases[EIGHT], out[EIGHT];
        load8(gains, gain + column);
        load8(biases, bias + column);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            out[i] = (total[c][i] - mean) * inverse * gains[i] + biases[i];
        store8(y + size_t(row) * COLUMNS + column, out);
    }
}

// dx and dresidual from dy: [rows, COLUMNS]; dx is null if x is. Each block writes its partial
// gradients of gain and bias to parts: [2, blocks, COLUMNS], which `sum_parts` adds up. The rows of
// a warp, and so the sums, depend only on the number of blocks. Shared memory: 2 COLUMNS floats per
// warp.
extern "C" __global__ void __launch_bounds__(128, 2)
    add_dropout_norm_gradient(const real* dy, const real* x, const real* residual,
                              const float* gain, Mask mask, const float2* statistics, real* dx,
                              real* dresidual, float* parts, unsigned rows) {
    DYNAMIC_SHARED(float, sums);  // [warps, 2, COLUMNS]
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    float dgain[CHUNKS][EIGHT] = {}, dbias[CHUNKS][EIGHT] = {};
    for (unsigned row = blockIdx.x * warps + warp; row < rows; row += gridDim.x * warps) {
        float normed[CHUNKS][EIGHT], dnormed[CHUNKS][EIGHT];
        sum_of(normed, x, residual, mask, row, lane);
        float mean = statistics[row].x, inverse = statistics[row].y;
        float along = 0, average = 0;
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++) {
            unsigned column = column_of(c, lane);
            if (column >= COLUMNS) continue;
            float gains[EIGHT];
            load8(gains, gain + column);
            load8(dnormed[c], dy + size_t(row) * COLUMNS + column);
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++) {
                normed[c][i] = (normed[c][i] - mean) * inverse;
                dgain[c][i] += dnormed[c][i] * normed[c][i];
                dbias[c][i] += dnormed[c][i];
                dnormed[c][i] *= gains[i];
                along += dnormed[c][i] * normed[c][i];
                average += dnormed[c][i];
            }
        }
        // Normalising removes mean and scale, so the gradient has no component along either.
        along = sum_over_warp(along) / COLUMNS;
        average = sum_over_warp(average) / COLUMNS;
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++) {
            unsigned column = column_of(c, lane);
            if (column >= COLUMNS) continue;
            float out[EIGHT];
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++)
                out[i] = (dnormed[c][i] - average - normed[c][i] * along) * inverse;
            store8(dresidual + size_t(row) * COLUMNS + column, out);
            if (dx) {
                float factors[EIGHT];
                dropout_factors(factors, mask, row, column);
#pragma unroll
                for (unsigned i = 0; i < EIGHT; i++) out[i] *= factors[i];
                store8(dx + size_t(row) * COLUMNS + column, out);
            }
        }
    }
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        unsigned column = column_of(c, lane);
        if (column >= COLUMNS) continue;
        store8(sums + (warp * 2 + 0) * COLUMNS + column, dgain[c]);
        store8(sums + (warp * 2 + 1) * COLUMNS + column, dbias[c]);
    }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < 2 * COLUMNS; i += blockDim.x) {
        float total = 0;
        for (unsigned w = 0; w < warps; w++) total += sums[w * 2 * COLUMNS + i];
        parts[(size_t(i / COLUMNS) * gridDim.x + blockIdx.x) * COLUMNS + i % COLUMNS] = total;
    }
}
