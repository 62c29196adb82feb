// LayerNorm(residual + Dropout(x)) and its gradient. A warp has a row of COLUMNS numbers, which
// stays in registers from the first to the last use. COLUMNS is a multiple of 8. HAS_X says whether
// there is an x, or only the residual.
//
// Memory traffic: forward reads x and residual, and writes y; backward reads dy, x and residual,
// and writes dx and dresidual. The sum and the mask are recomputed rather than kept.

#include "philox.cuh"

constexpr unsigned CHUNKS = (COLUMNS + WARP * EIGHT - 1) / (WARP * EIGHT);  // of eight, per thread

// The first of the eight columns of chunk c of thread `lane`, which may be past the end of the row.
__device__ __forceinline__ unsigned column_of(unsigned c, unsigned lane) {
    return (c * WARP + lane) * EIGHT;
}

// A row's chunks, all of which are loaded before the first is used.
struct Row {
    Packed8 chunks[CHUNKS];

    __device__ __forceinline__ void load(const real* place, unsigned lane) {
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++) {
            unsigned column = column_of(c, lane);
            if (column < COLUMNS) chunks[c] = load_packed8(place + column);
        }
    }
};

constexpr unsigned WORDS = (CHUNKS + 3) / 4;  // of the bits of what dropout keeps, eight a chunk

// The factor of number i of chunk c.
__device__ __forceinline__ float factor_in(const Mask& mask, const unsigned (&kept)[WORDS],
                                           unsigned c, unsigned i) {
    return factor_if_kept(mask, kept[c / 4], c % 4 * EIGHT + i);
}

// x: [rows, COLUMNS], which is null without HAS_X; residual and y: [rows, COLUMNS]; gain and bias:
// [COLUMNS]; statistics: [rows] receives each row's mean and 1 / √(variance + epsilon). One warp per
// row.
extern "C" __global__ void __launch_bounds__(128)
    add_dropout_norm(const real* x, const real* residual, const float* gain, const float* bias,
                     Mask mask, float epsilon, real* y, float2* statistics, unsigned rows) {
    unsigned lane = threadIdx.x % WARP;
    unsigned row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    Row x_row, residual_row;
    residual_row.load(residual + size_t(row) * COLUMNS, lane);
    if (HAS_X) x_row.load(x + size_t(row) * COLUMNS, lane);

    float total[CHUNKS][EIGHT] = {};  // zeros past the end of the row
    float sum = 0;
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        unsigned column = column_of(c, lane);
        if (column >= COLUMNS) continue;
        unpack8(total[c], residual_row.chunks[c]);
        if (HAS_X) {
            float dropped[EIGHT];
            unpack8(dropped, x_row.chunks[c]);
            unsigned kept = kept8(mask, row, column);
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++)
                total[c][i] += dropped[i] * factor_if_kept(mask, kept, i);
        }
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) sum += total[c][i];
    }
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

// Adds up what the warps of a block have of one kind, and writes the sum to part: [COLUMNS].
__device__ __forceinline__ void sum_over_block(float (*sums)[COLUMNS],
                                               const float (&mine)[CHUNKS][EIGHT], float* part) {
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    __syncthreads();  // the sums of the kind before have been read
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++)
        if (column_of(c, lane) < COLUMNS) store8(sums[warp] + column_of(c, lane), mine[c]);
    __syncthreads();
    for (unsigned i = threadIdx.x; i < COLUMNS; i += blockDim.x) {
        float total = 0;
#pragma unroll
        for (unsigned w = 0; w < WARPS; w++) total += sums[w][i];
        part[i] = total;
    }
}

// dx and dresidual from dy: [rows, COLUMNS]; without HAS_X, dx is null. A multiprocessor has one
// block of WARPS warps, as its registers hold no more. They hide the memory's latency all the same,
// for a warp waits only once a row: all of its loads are issued before their first number is used.
// Each block writes its partial gradients of gain and bias, and with HAS_X its partial sum of dx, to
// parts: [2 + HAS_X, blocks, COLUMNS], which `sum_parts` adds up. The sum of dx is the gradient of a
// bias within x. The rows of a warp, and so the sums, depend only on the number of blocks.
extern "C" __global__ void __launch_bounds__(WARPS* WARP, 1)
    add_dropout_norm_gradient(const real* dy, const real* x, const real* residual,
                              const float* gain, Mask mask, const float2* statistics, real* dx,
                              real* dresidual, float* parts, unsigned rows) {
    __shared__ __align__(16) float sums[WARPS][COLUMNS];
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Mask now = read_once(mask);
    float dgain[CHUNKS][EIGHT] = {}, dbias[CHUNKS][EIGHT] = {}, sum_of_dx[CHUNKS][EIGHT] = {};
    for (unsigned row = blockIdx.x * WARPS + warp; row < rows; row += gridDim.x * WARPS) {
        size_t place = size_t(row) * COLUMNS;
        Row dy_row, x_row, residual_row;
        float2 of_row = statistics[row];
        residual_row.load(residual + place, lane);
        if (HAS_X) x_row.load(x + place, lane);
        dy_row.load(dy + place, lane);

        float normed[CHUNKS][EIGHT], dnormed[CHUNKS][EIGHT];
        unsigned kept[WORDS] = {};
        float mean = of_row.x, inverse = of_row.y, along = 0, average = 0;
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++) {
            unsigned column = column_of(c, lane);
            if (column >= COLUMNS) continue;
            unpack8(normed[c], residual_row.chunks[c]);
            if (HAS_X) {
                float dropped[EIGHT];
                unpack8(dropped, x_row.chunks[c]);
                kept[c / 4] |= kept8(now, row, column) << c % 4 * EIGHT;
#pragma unroll
                for (unsigned i = 0; i < EIGHT; i++)
                    normed[c][i] += dropped[i] * factor_in(now, kept, c, i);
            }
            unpack8(dnormed[c], dy_row.chunks[c]);
            float gains[EIGHT];
            load8(gains, gain + column);
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
            store8(dresidual + place + column, out);
            if (HAS_X) {
#pragma unroll
                for (unsigned i = 0; i < EIGHT; i++) {
                    out[i] *= factor_in(now, kept, c, i);
                    sum_of_dx[c][i] += out[i];
                }
                store8(dx + place + column, out);
            }
        }
    }
    size_t kind = size_t(gridDim.x) * COLUMNS;
    float* part = parts + size_t(blockIdx.x) * COLUMNS;
    sum_over_block(sums, dgain, part);
    sum_over_block(sums, dbias, part + kind);
    if (HAS_X) sum_over_block(sums, sum_of_dx, part + 2 * kind);
}
