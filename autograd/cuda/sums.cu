// Adding up the partial sums of blocks, always in the same order.

#include "device.cuh"

constexpr unsigned LINES = 16;  // threads that share a column, each with every 16th part

// out: [columns] = Σ parts, or with `add` out + Σ parts, for parts: [count, columns].
struct Sum {
    const float* parts;
    float* out;
    unsigned count, columns;
    int add;
};

// Passed by value, with COUNT sums of which a launch may use fewer: a kernel's parameters, and so
// the table, have at most 4 KiB, and nothing has to be copied to the device before the launch.
struct Sums {
    Sum of[COUNT];
};

// A block has 32 columns of a sum; blockIdx.x counts along the columns, blockIdx.y the sums.
extern "C" __global__ void __launch_bounds__(WARP * LINES)
    sum_parts(const __grid_constant__ Sums sums) {
    __shared__ float totals[LINES][WARP];
    unsigned lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
    unsigned column = blockIdx.x * WARP + lane;
    const Sum& sum = sums.of[blockIdx.y];
    unsigned count = sum.count, columns = sum.columns;
    if (blockIdx.x * WARP >= columns) return;  // other sums have more columns
    const float* parts = sum.parts + column;
    float total = 0;
    if (column < columns)
        for (unsigned p = line; p < count; p += LINES) total += parts[size_t(p) * columns];
    totals[line][lane] = total;
    __syncthreads();
    if (line || column >= columns) return;
    total = sum.add ? sum.out[column] : 0;
#pragma unroll
    for (unsigned i = 0; i < LINES; i++) total += totals[i][lane];
    sum.out[column] = total;
}
