// Bias and activation after the product of a linear layer, and their gradients before the products of
// the backward pass. `columns` is a multiple of 8. ACTIVATION is the one of `activate` and of
// `bias_gradient`.

#include "device.cuh"

constexpr int RELU = 0, GELU = 1, SWISH = 2;

__device__ __forceinline__ float sigmoid(float x) { return 1 / (1 + __expf(-x)); }

constexpr float GELU_SLOPE = 0.797884561f, GELU_CUBE = 0.044715f;  // √(2 / π)

__device__ __forceinline__ float gelu_tanh(float x) {
    return tanhf(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
}

// The activation of x. NaN stays NaN.
__device__ __forceinline__ float activated(float x) {
    if (ACTIVATION == GELU) return 0.5f * x * (1 + gelu_tanh(x));
    if (ACTIVATION == SWISH) return x * sigmoid(x);
    return x < 0 ? 0 : x;
}

// dy times the slope of the activation at x. Of the ReLU, x may be its result.
__device__ __forceinline__ float through_activation(float dy, float x) {
    if (ACTIVATION == GELU) {
        float t = gelu_tanh(x);
        float slope = GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x) * (1 - t * t);
        return dy * (0.5f * (1 + t) + 0.5f * x * slope);
    }
    if (ACTIVATION == SWISH) {
        float s = sigmoid(x);
        return dy * s * (1 + x * (1 - s));
    }
    return x > 0 ? dy : 0;
}

// y = the activation of x, for `groups` of eight numbers each. A thread has eight.
extern "C" __global__ void __launch_bounds__(256)
    activate(const real* x, real* y, unsigned groups) {
    unsigned group = blockIdx.x * blockDim.x + threadIdx.x;
    if (group >= groups) return;
    float values[EIGHT];
    load8(values, x + size_t(group) * EIGHT);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++) values[i] = activated(values[i]);
    store8(y + size_t(group) * EIGHT, values);
}

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

// mask: [rows, mask_stride] bytes gets a bit for each number of y: [rows, columns] that is above 0. A
// thread has eight columns.
extern "C" __global__ void __launch_bounds__(256)
    find_positive(const real* y, unsigned char* mask, unsigned mask_stride, unsigned rows,
                  unsigned columns) {
    unsigned groups = columns / EIGHT, positive = 0;
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(rows) * groups) return;
    float x[EIGHT];
    load8(x, y + i * EIGHT);
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) positive |= unsigned(x[k] > 0) << k;
    mask[i / groups * mask_stride + i % groups] = positive;
}

// Sets y: [rows, columns] to 0 where the mask has no bit. A thread has eight columns.
extern "C" __global__ void __launch_bounds__(256)
    keep_where(real* y, const unsigned char* mask, unsigned mask_stride, unsigned rows,
               unsigned columns) {
    unsigned groups = columns / EIGHT;
    size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size_t(rows) * groups) return;
    float x[EIGHT];
    load8(x, y + i * EIGHT);
    unsigned kept = mask[i / groups * mask_stride + i % groups];
#pragma unroll
    for (unsigned k = 0; k < EIGHT; k++) x[k] = kept >> k & 1 ? x[k] : 0;
    store8(y + i * EIGHT, x);
}

// Takes dy through the activation of x, in place, unless x is null, and sums it over `rows_a_block`
// rows into each row of parts: [grid y, columns]. dy and x: [rows, columns]; for the ReLU, x is its
// result. A block takes eight rows of 256 columns at a time; blockIdx.x counts along the columns,
// blockIdx.y along the rows.
extern "C" __global__ void __launch_bounds__(256)
    bias_gradient(real* dy, const real* x, float* parts, unsigned rows, unsigned columns,
                  unsigned rows_a_block) {
    __shared__ __align__(16) float sums[8][WARP * EIGHT];
    unsigned lane = threadIdx.x % WARP, line = threadIdx.x / WARP;
    unsigned column = (blockIdx.x * WARP + lane) * EIGHT;
    unsigned last = min(rows, (blockIdx.y + 1) * rows_a_block);
    float total[EIGHT] = {};
    if (column < columns)
        for (unsigned row = blockIdx.y * rows_a_block + line; row < last; row += 8) {
            size_t place = size_t(row) * columns + column;
            float gradient[EIGHT];
            load8(gradient, dy + place);
            if (x) {
                float before[EIGHT];
                load8(before, x + place);
#pragma unroll
                for (unsigned k = 0; k < EIGHT; k++)
                    gradient[k] = through_activation(gradient[k], before[k]);
                store8(dy + place, gradient);
            }
#pragma unroll
            for (unsigned k = 0; k < EIGHT; k++) total[k] += gradient[k];
        }
    store8(sums[line] + lane * EIGHT, total);
    __syncthreads();
    unsigned c = threadIdx.x;  // one of the block's 256 columns
    if (blockIdx.x * WARP * EIGHT + c >= columns) return;
    float sum = 0;
    for (unsigned k = 0; k < 8; k++) sum += sums[k][c];
    parts[size_t(blockIdx.y) * columns + blockIdx.x * WARP * EIGHT + c] = sum;
}
