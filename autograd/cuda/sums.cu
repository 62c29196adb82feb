// Adding up the partial sums of blocks, always in the same order.

#include "device.cuh"

constexpr unsigned LINES = 16;  // threads that share a column, each with every 16th part

// out: [columns] = Σ parts, or with `add` out + Σ parts, for parts: [count, columns]. A block has
// 32 columns.
extern "C" __global__ void __launch_bounds__(WARP * LINES)
    sum_parts(const float* parts, unsigned count, unsigned columns, int add, float* out) {
    __shared__ float sums[LINES][WARP];
    unsigned lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
    unsigned column = blockIdx.x * WARP + lane;
    float total = 0;
    if (column < columns)
        for (unsigned p = line; p < count; p += LINES) total += parts[size_t(p) * columns + column];
    sums[line][lane] = total;
    __syncthreads();
    if (line || column >= columns) return;
    total = add ? out[column] : 0;
#pragma unroll
    for (unsigned i = 0; i < LINES; i++) total += sums[i][lane];
    out[column] = total;
}
