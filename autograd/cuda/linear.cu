// Bias and ReLU after the product of a linear layer, and their gradients before the products of the
// backward pass. `columns` is a multiple of 8.

#include "device.cuh"

// y = y + bias, or max(0, y + bias) with `relu`, in place. y: [rows, columns]; bias may be null. A
// thread has eight columns. NaN stays NaN.
extern "C" __global__ void __launch_bounds__(256)
    add_bias(real* y, const real* bias, int relu, unsigned rows, unsigned columns) {
    unsigned groups = columns / EIGHT;
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(rows) * groups) return;
    unsigned column = i % groups * EIGHT;
    float x[EIGHT], biases[EIGHT] = {};
    load8(x, y + i * EIGHT);
    if (bias) load8(biases, bias + column);
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) {
        x[k] += biases[k];
        if (relu && x[k] < 0) x[k] = 0;
    }
    store8(y + i * EIGHT, x);
}

// Sets dy to 0 where y is not above 0, unless y is null, and sums it over `rows_a_block` rows into
// each row of parts: [grid y, columns]. dy and y: [rows, columns]. A block takes eight rows of 256
// columns at a time; blockIdx.x counts along the columns, blockIdx.y along the rows.
extern "C" __global__ void __launch_bounds__(256)
    bias_gradient(real* dy, const real* y, float* parts, unsigned rows, unsigned columns,
                  unsigned rows_a_block) {
    __shared__ __align__(16) float sums[8][WARP * EIGHT];
    unsigned lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
    unsigned column = (blockIdx.x * WARP + lane) * EIGHT;
    unsigned last = min(rows, (blockIdx.y + 1) * rows_a_block);
    float total[EIGHT] = {};
    if (column < columns)
        for (unsigned row = blockIdx.y * rows_a_block + line; row < last; row += 8) {
            size_t place = size_t(row) * columns + column;
            float x[EIGHT];
            load8(x, dy + place);
            if (y) {
                float out[EIGHT];
                load8(out, y + place);
#pragma unroll
                for (unsigned k = 0; k < EIGHT; k++) x[k] = out[k] > 0 ? x[k] : 0;
                store8(dy + place, x);
            }
#pragma unroll
            for (unsigned k = 0; k < EIGHT; k++) total[k] += x[k];
        }
    store8(sums[line] + lane * EIGHT, total);
    __syncthreads();
    unsigned c = threadIdx.x;  // one of the block's 256 columns
    if (blockIdx.x * WARP * EIGHT + c >= columns) return;
    float sum = 0;
    for (unsigned k = 0; k < 8; k++) sum += sums[k][c];
    parts[size_t(blockIdx.y) * columns + blockIdx.x * WARP * EIGHT + c] = sum;
}
