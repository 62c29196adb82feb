// The likeliest symbols of a row of logits, and their log-probabilities: a block a row, which stays
// in registers, as in cross_entropy.cu.

#include "logits.cuh"

// A logit and its symbol; the larger logit is better, and of equals the lower symbol.
struct Candidate {
    float logit;
    unsigned symbol;
};

__device__ __forceinline__ bool is_better(const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.symbol < b.symbol);
}

__device__ __forceinline__ Candidate best_over_warp(Candidate best) {
#pragma unroll
    for (unsigned lanes = WARP / 2; lanes; lanes /= 2) {
        Candidate other = {__shfl_xor_sync(ALL, best.logit, lanes),
                           __shfl_xor_sync(ALL, best.symbol, lanes)};
        if (is_better(other, best)) best = other;
    }
    return best;
}

// The best of a thread's numbers that are not taken.
__device__ __forceinline__ Candidate best_of_thread(const Chunk (&chunks)[CHUNKS],
                                                    const unsigned (&taken)[CHUNKS]) {
    Candidate best = {minus_infinity(), 0xffffffff};
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++) {
        if (!is_there(c, 0)) continue;
        float x[EIGHT];
        numbers_of(x, chunks[c], c);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) {
            Candidate other = {x[i], column_of(c) + i};
            if (is_there(c, i) && !(taken[c] >> i & 1) && is_better(other, best))
                best = other;
        }
    }
    return best;
}

// log_p and symbols [rows, count], best first, from logits [rows, stride]; `stride` is a multiple of
// 8, and count at most VOCABULARY.
extern "C" __global__ void __launch_bounds__(THREADS)
    likeliest_symbols(const real* logits, unsigned stride, unsigned count, float* log_p,
                      long long* symbols) {
    __shared__ Candidate of_warps[2][WARPS];
    __shared__ float sums[WARPS];
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const real* row = logits + size_t(blockIdx.x) * stride;

    Chunk chunks[CHUNKS];
#pragma unroll
    for (unsigned c = 0; c < CHUNKS; c++)
        if (is_there(c, 0))
            chunks[c] = *reinterpret_cast<const Chunk*>(row + column_of(c));
    unsigned taken[CHUNKS] = {};  // a bit for each number that is no candidate any more
    Candidate own;
    bool is_taken = true;  // what was the thread's best
    float most = 0, log_total = 0;
    for (unsigned k = 0; k < count; k++) {
        if (is_taken) own = best_of_thread(chunks, taken);  // the others have theirs already
        Candidate best = best_over_warp(own);
        if (lane == 0) of_warps[k % 2][warp] = best;
        __syncthreads();
        best = {minus_infinity(), 0xffffffff};
        if (lane < WARPS) best = of_warps[k % 2][lane];
        best = best_over_warp(best);
        if (k == 0) {
            most = best.logit;
            float total = 0;
#pragma unroll
            for (unsigned c = 0; c < CHUNKS; c++) {
                float x[EIGHT];
                if (!is_there(c, 0)) continue;
                numbers_of(x, chunks[c], c);
#pragma unroll
                for (unsigned i = 0; i < EIGHT; i++) total += __expf(x[i] - most);
            }
            total = sum_over_warp(total);
            if (lane == 0) sums[warp] = total;
            __syncthreads();
            log_total = __logf(sum_over_warp(lane < WARPS ? sums[lane] : 0));
        }
        if (threadIdx.x == 0) {
            log_p[size_t(blockIdx.x) * count + k] = best.logit - most - log_total;
            // Where every logit is NaN, nothing is better than nothing; it is a symbol all the same.
            symbols[size_t(blockIdx.x) * count + k] = min(best.symbol, VOCABULARY - 1u);
        }
        is_taken = own.symbol == best.symbol;
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++)
            if (column_of(c) == best.symbol / EIGHT * EIGHT)
                taken[c] |= 1 << best.symbol % EIGHT;
    }
}
