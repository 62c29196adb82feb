// The loss of each row of logits, and the gradient, which overwrites them. One block per row.
//
// The logits are the largest array of a step, so they are read once and written once: in between, a
// row of VOCABULARY numbers stays in the registers of its block's THREADS threads, in the dtype
// that it has in memory.

#include "logits.cuh"

// Two small blocks per multiprocessor: while one computes, the other reads or writes its row.
constexpr unsigned RESIDENT = THREADS > 512 ? 1 : 2;

// logits: [rows, stride], where `stride` is a multiple of 8. q is a + b for the target, and b for
// every other token. losses: [rows] receives -Σ q log p, and -log p of the target. With `gradient`,
// p - q overwrites the logits, and zeros the padding after them up to a multiple of 8.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    cross_entropy(real* logits, unsigned stride, const int* targets, float a, float b, int gradient,
                  float2* losses) {
    __shared__ float of_warps[3][WARPS];
    __shared__ float at_target;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    real* row = logits + size_t(blockIdx.x) * stride;
    unsigned target = targets[blockIdx.x];
    if (int(target) < 0) {  // none: no loss, and no gradient
        float zeros[EIGHT] = {};
        for (unsigned c = 0; c < CHUNKS; c++)
            if (gradient && column_of(c) < VOCABULARY) store8(row + column_of(c), zeros);
        if (threadIdx.x == 0) losses[blockIdx.x] = make_float2(0, 0);
        return;
    }
    if (target >= VOCABULARY) {  // not in the vocabulary: the loss and the gradient become NaN
        target = ~0u, b = __uint_as_float(0x7fc00000);
        if (threadIdx.x == 0) at_target = b;
    }

    Chunk chunks[CHUNKS];
    float most = minus_infinity();
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        if (column_of(c) >= VOCABULARY) continue;
        chunks[c] = *reinterpret_cast<const Chunk*>(row + column_of(c));
        float x[EIGHT];
        numbers_of(x, chunks[c], c);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) {
            most = fmaxf(most, x[i]);
            if (column_of(c) + i == target) at_target = x[i];
        }
    }
    most = most_over_warp(most);
    if (lane == 0) of_warps[0][warp] = most;
    __syncthreads();
    most = most_over_warp(lane < WARPS ? of_warps[0][lane] : minus_infinity());

    float total = 0, shifted_sum = 0;  // Σ exp(x - most), Σ (x - most)
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        if (column_of(c) >= VOCABULARY) continue;
        float x[EIGHT];
        numbers_of(x, chunks[c], c);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) {
            total += __expf(x[i] - most);
            if (column_of(c) + i < VOCABULARY) shifted_sum += x[i] - most;
        }
    }
    total = sum_over_warp(total);
    shifted_sum = sum_over_warp(shifted_sum);
    if (lane == 0) of_warps[1][warp] = total, of_warps[2][warp] = shifted_sum;
    __syncthreads();
    total = sum_over_warp(lane < WARPS ? of_warps[1][lane] : 0);
    shifted_sum = sum_over_warp(lane < WARPS ? of_warps[2][lane] : 0);

    if (threadIdx.x == 0) {
        float log_sum_exp = __logf(total), shifted = at_target - most;
        float loss = log_sum_exp - a * shifted - b * shifted_sum;
        losses[blockIdx.x] = make_float2(loss, log_sum_exp - shifted);
    }
    if (!gradient) return;
    float inverse = 1 / total;
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        if (column_of(c) >= VOCABULARY) continue;
        float x[EIGHT];
        numbers_of(x, chunks[c], c);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) {
            unsigned column = column_of(c) + i;
            x[i] = __expf(x[i] - most) * inverse - (column < VOCABULARY ? b : 0);
            if (column == target) x[i] -= a;
        }
        store8(row + column_of(c), x);
    }
}
