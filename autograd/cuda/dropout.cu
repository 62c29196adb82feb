// Dropout, and its gradient, which is dropout with the same mask.

#include "philox.cuh"

// y = x · factors, for x and y: [rows, columns]; y may be x. `columns` is a multiple of 8. A thread
// has eight columns.
extern "C" __global__ void __launch_bounds__(256)
    dropout(const real* x, Mask mask, real* y, unsigned rows, unsigned columns) {
    unsigned groups = columns / EIGHT, i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned row = i / groups, column = i % groups * EIGHT;
    if (row >= rows) return;
    size_t place = size_t(i) * EIGHT;
    float values[EIGHT], factors[EIGHT];
    load8(values, x + place);
    dropout_factors(factors, mask, row, column);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++) values[i] *= factors[i];
    store8(y + place, values);
}
