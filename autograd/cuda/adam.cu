// Adam's step and the gradient norm, each in one pass over flat arrays.

#include "device.cuh"

// A step of Adam (Kingma and Ba, 2015, algorithm 1), in place. `copy`, unless null, receives the
// values as bfloat16, for the other kernels. If `scale` is not finite, nothing is changed. `rate`
// and `correction` include the bias corrections: rate / (1 - β₁^t) and 1 - β₂^t. These three are
// numbers on the device, as they change from step to step. The arrays are aligned to 16 bytes, and
// `count` is a multiple of 4. For each number, 16 bytes are read, and 12 written, or 14 with `copy`.
extern "C" __global__ void __launch_bounds__(256)
    adam_step(float4* values, const float4* grads, float4* first, float4* second, uint2* copy,
              const float* rate, float beta1, float beta2, const float* correction, float epsilon,
              const float* scale, unsigned count) {
    float factor = __ldg(scale), size = __ldg(rate), corrected = __ldg(correction);
    if (!isfinite(factor)) return;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count / 4;
         i += gridDim.x * blockDim.x) {
        float4 value4 = values[i], grad4 = grads[i], first4 = first[i], second4 = second[i];
        float value[4] = {value4.x, value4.y, value4.z, value4.w};
        float grad[4] = {grad4.x, grad4.y, grad4.z, grad4.w};
        float m[4] = {first4.x, first4.y, first4.z, first4.w};
        float v[4] = {second4.x, second4.y, second4.z, second4.w};
#pragma unroll
        for (unsigned k = 0; k < 4; k++) {
            float g = grad[k] * factor;
            m[k] = beta1 * m[k] + (1 - beta1) * g;
            v[k] = beta2 * v[k] + (1 - beta2) * g * g;
            value[k] -= size * m[k] / (sqrtf(v[k] / corrected) + epsilon);
        }
        values[i] = make_float4(value[0], value[1], value[2], value[3]);
        first[i] = make_float4(m[0], m[1], m[2], m[3]);
        second[i] = make_float4(v[0], v[1], v[2], v[3]);
        if (copy) copy[i] = make_uint2(pack_bf16(value[0], value[1]), pack_bf16(value[2], value[3]));
    }
}

// sums: [blocks], the sum of squares over each block's share of x. x is aligned to 16 bytes, and
// `count` is a multiple of 4.
extern "C" __global__ void __launch_bounds__(256)
    sum_of_squares(const float4* x, unsigned count, float* sums) {
    __shared__ float of_warps[8];
    float total = 0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count / 4;
         i += gridDim.x * blockDim.x) {
        float4 part = x[i];
        total += part.x * part.x + part.y * part.y + part.z * part.z + part.w * part.w;
    }
    total = sum_over_warp(total);
    if (threadIdx.x % WARP == 0) of_warps[threadIdx.x / WARP] = total;
    __syncthreads();
    if (threadIdx.x == 0) {
        total = 0;
        for (unsigned warp = 0; warp < blockDim.x / WARP; warp++) total += of_warps[warp];
        sums[blockIdx.x] = total;
    }
}
