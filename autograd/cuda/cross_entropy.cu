// The loss of each row of logits, and the gradient, which overwrites them. One block per row.
//
// The logits are the largest array of a step, so they are read once and written once: in between, a
// row of VOCABULARY numbers stays in the registers of its block's THREADS threads, in the dtype
// that it has in memory.

#include "logits.cuh"

constexpr float LOG_2 = 0.693147181f;

// logits: [rows, stride], where `stride` is a multiple of 8. q is a + b for the target, and b for
// every other token. losses: [rows] receives -Σ q log p, and -log p of the target. With `gradient`,
// p - q overwrites the logits, and zeros the padding after them up to a multiple of 8. A target
// below 0 is none, and its row has neither. One beyond the vocabulary makes the loss and the gradient
// of its row NaN.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    cross_entropy(real* logits, unsigned stride, const int* targets, float a, float b, int gradient,
                  float2* losses) {
    __shared__ float of_warps[3][WARPS], at_target;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    real* row = logits + size_t(blockIdx.x) * stride;
    unsigned target = targets[blockIdx.x];
    bool is_none = int(target) < 0;
    Packed8 chunks[CHUNKS];
    load_row(chunks, row);
    // One thread reads the target's logit a second time. That is cheaper than to ask of every number
    // whether it is the target's.
    if (threadIdx.x == 0)
        at_target = target < VOCABULARY ? load1(row + target) : __uint_as_float(0x7fc00000);

    float most = most_over_warp(most_of(chunks));
    if (lane == 0) of_warps[0][warp] = most;
    __syncthreads();
    most = most_over_warp(lane < WARPS ? of_warps[0][lane] : minus_infinity());

    // exp(x - most) is 2^y, with y of one multiply-add.
    float shift = most * LOG2_E, total = 0, sum = 0;  // Σ 2^y, Σ y
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        float x[EIGHT];
        unpack8(x, chunks[c]);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) {
            float y = fmaf(x[i], LOG2_E, -shift);
            total += exp2f(y);
            if (is_there(c, i)) sum += y;
        }
    }
    total = sum_over_warp(total);
    sum = sum_over_warp(sum);
    if (lane == 0) of_warps[1][warp] = total, of_warps[2][warp] = sum;
    __syncthreads();
    total = sum_over_warp(lane < WARPS ? of_warps[1][lane] : 0);
    sum = sum_over_warp(lane < WARPS ? of_warps[2][lane] : 0);

    float log_sum_exp = __logf(total);  // of x - most
    if (threadIdx.x == 0) {
        float shifted = at_target - most;
        float loss = log_sum_exp - a * shifted - b * LOG_2 * sum;
        losses[blockIdx.x] = is_none ? make_float2(0, 0) : make_float2(loss, log_sum_exp - shifted);
    }
    if (!gradient) return;
    shift = (most + log_sum_exp) * LOG2_E;
    if (is_none)  // p and q become 0
        shift = -minus_infinity(), b = 0;
    else if (target >= VOCABULARY)
        b = at_target;  // NaN
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        if (!is_there(c, 0)) continue;
        float x[EIGHT];
        unpack8_again(x, chunks[c]);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) {
            float p = exp2f(fmaf(x[i], LOG2_E, -shift));
            x[i] = is_there(c, i) ? p - b : 0;
        }
        store8(row + column_of(c), x);
    }
    // By the thread that has just written this column, and therefore after it.
    if (target < VOCABULARY && threadIdx.x == target / EIGHT % THREADS)
        store1(row + target, exp2f(fmaf(at_target, LOG2_E, -shift)) - b - a);
}
