// The k likeliest tokens of each row of logits, and their log-probabilities. A block takes a row,
// which stays in registers, as in cross_entropy.cu.

#include "logits.cuh"

// A logit and its token id. The larger logit is better; among equal ones, the lower id.
struct Candidate {
    float logit;
    unsigned token;
};

__device__ __forceinline__ bool is_better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

__device__ __forceinline__ Candidate best_over_warp(Candidate best) {
#pragma unroll
    for (unsigned lanes = WARP / 2; lanes; lanes /= 2) {
        Candidate other = {__shfl_xor_sync(ALL, best.logit, lanes),
                           __shfl_xor_sync(ALL, best.token, lanes)};
        if (is_better(other, best)) best = other;
    }
    return best;
}

// The best of a thread's numbers that have not been taken yet.
__device__ __forceinline__ Candidate best_of_thread(const Packed8 (&chunks)[CHUNKS],
                                                    const unsigned (&taken)[CHUNKS]) {
    Candidate best = {minus_infinity(), 0xffffffff};
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        if (!is_there(c, 0)) continue;
        float x[EIGHT];
        unpack8(x, chunks[c]);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) {
            Candidate other = {x[i], column_of(c) + i};
            if (is_there(c, i) && !(taken[c] >> i & 1) && is_better(other, best))
                best = other;
        }
    }
    return best;
}

// log_p and ids: [rows, k], best first; logits: [rows, stride], to which bias [VOCABULARY], unless it
// is null, is added. `stride` is a multiple of 8, and k is at most VOCABULARY.
extern "C" __global__ void __launch_bounds__(THREADS)
    top_k(const real* logits, const float* bias, unsigned stride, unsigned k, float* log_p,
          long long* ids) {
    __shared__ Candidate of_warps[2][WARPS];
    __shared__ float sums[WARPS];
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const real* row = logits + size_t(blockIdx.x) * stride;

    Packed8 chunks[CHUNKS];
    load_row(chunks, row);
    if (bias) {
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++) {
            if (!is_there(c, 0)) continue;
            float x[EIGHT];
            unpack8(x, chunks[c]);
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++)
                if (is_there(c, i)) x[i] += bias[column_of(c) + i];
            store8(reinterpret_cast<real*>(&chunks[c]), x);
        }
    }
    unsigned taken[CHUNKS] = {};  // a bit for each number that has been taken
    Candidate own;
    bool is_taken = true;  // what was the thread's best
    float highest = 0, log_sum_exp = 0;  // the latter of logits - highest
    for (unsigned rank = 0; rank < k; rank++) {
        if (is_taken) own = best_of_thread(chunks, taken);  // the others have theirs already
        Candidate best = best_over_warp(own);
        if (lane == 0) of_warps[rank % 2][warp] = best;
        __syncthreads();
        best = {minus_infinity(), 0xffffffff};
        if (lane < WARPS) best = of_warps[rank % 2][lane];
        best = best_over_warp(best);
        if (rank == 0) {
            highest = best.logit;
            float total = 0;
#pragma unroll
            for (unsigned c = 0; c < CHUNKS; c++) {
                float x[EIGHT];
                if (!is_there(c, 0)) continue;
                unpack8(x, chunks[c]);
#pragma unroll
                for (unsigned i = 0; i < EIGHT; i++) total += __expf(x[i] - highest);
            }
            total = sum_over_warp(total);
            if (lane == 0) sums[warp] = total;
            __syncthreads();
            log_sum_exp = __logf(sum_over_warp(lane < WARPS ? sums[lane] : 0));
        }
        if (threadIdx.x == 0) {
            log_p[size_t(blockIdx.x) * k + rank] = best.logit - highest - log_sum_exp;
            // Where every logit is NaN, no candidate was found; the id is a valid one all the same.
            ids[size_t(blockIdx.x) * k + rank] = min(best.token, VOCABULARY - 1u);
        }
        is_taken = own.token == best.token;
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++)
            if (column_of(c) == best.token / EIGHT * EIGHT)
                taken[c] |= 1 << best.token % EIGHT;
    }
}
