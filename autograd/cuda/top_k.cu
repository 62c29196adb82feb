// The k likeliest tokens of each row of logits, and their log-probabilities. A block takes a row,
// which stays in registers, as in cross_entropy.cu.
//
// The k-th best of the largest logits of some groups of threads is a lower bound of what is chosen.
// The logits that reach it, little more than k, go to a list, and the rank of each is the number of
// those in the list that are better.

#include "logits.cuh"

constexpr unsigned LISTED = THREADS;  // logits that the list has room for

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

// A row of logits and, where they are BIASED, the bias.
struct Row {
    const real* logits;
    const float* bias;

    __device__ __forceinline__ void add_bias(Packed8& chunk, unsigned column) const {
        float x[EIGHT];
        unpack8(x, chunk);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++)
            if (column + i < VOCABULARY) x[i] += bias[column + i];
        store8(reinterpret_cast<real*>(&chunk), x);
    }

    // Calls use(candidate) for each of the thread's numbers, which are read again: the row was read
    // just now, so it is near, and this is for few threads.
    template <class Use>
    __device__ __forceinline__ void for_each(Use use) const {
#pragma unroll 2
        for (unsigned c = 0; c < CHUNKS; c++) {
            unsigned column = column_of(c);
            if (column >= VOCABULARY) return;
            Packed8 chunk = load_packed8(logits + column);
            if (BIASED) add_bias(chunk, column);
            float x[EIGHT];
            unpack8(x, chunk);
#pragma unroll
            for (unsigned i = 0; i < EIGHT; i++)
                if (column + i < VOCABULARY) use(Candidate{x[i], column + i});
        }
    }
};

// log_p and ids: [rows, k], best first; logits: [rows, stride], to which bias [groups, VOCABULARY] is
// added if they are BIASED, each for `rows_per_bias` rows. `stride` is a multiple of 8, and k is at
// most VOCABULARY. Unless NORMALISED, log_p are the logits themselves. Where tokens are NAMED, their ids
// are names [VOCABULARY].
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    top_k(const real* logits, const float* bias, unsigned rows_per_bias, const long long* names,
          unsigned stride, unsigned k, float* log_p, long long* ids) {
    __shared__ float of_groups[THREADS], of_warps[WARPS], sums[WARPS], bound;
    __shared__ Candidate list[LISTED];
    __shared__ unsigned listed;
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    Row row = {logits + size_t(blockIdx.x) * stride,
               bias + size_t(blockIdx.x / rows_per_bias) * VOCABULARY};
    log_p += size_t(blockIdx.x) * k;
    ids += size_t(blockIdx.x) * k;

    Packed8 chunks[CHUNKS];
    load_row(chunks, row.logits);
    if (BIASED) {
#pragma unroll
        for (unsigned c = 0; c < CHUNKS; c++) row.add_bias(chunks[c], column_of(c));
    }

    // The maxima of the threads, of groups of them, and of the warps. There are many more groups than
    // are chosen: likely tokens have similar ids, and those of one group make the bound lower.
    unsigned members = WARP;
    while (members > 1 && THREADS / members < 8 * k) members /= 2;
    unsigned groups = THREADS / members;
    float own = most_of(chunks), most = own;
    for (unsigned lanes = 1; lanes < WARP; lanes *= 2) {
        if (lanes == members && lane % members == 0) of_groups[threadIdx.x / members] = most;
        most = fmaxf(most, __shfl_xor_sync(ALL, most, lanes));
    }
    if (members == WARP && lane == 0) of_groups[warp] = most;
    if (lane == 0) of_warps[warp] = most;
    if (threadIdx.x == 0) listed = 0, bound = minus_infinity();
    __syncthreads();
    if (threadIdx.x < groups) {
        float mine = of_groups[threadIdx.x];
        unsigned better = 0;
#pragma unroll 8
        for (unsigned g = 0; g < groups; g++)
            better += of_groups[g] > mine || (of_groups[g] == mine && g < threadIdx.x);
        if (better == k - 1) bound = mine;
    }
    float highest = most_over_warp(lane < WARPS ? of_warps[lane] : minus_infinity());
    float total = 0, shift = highest * LOG2_E;
#pragma unroll
    for (unsigned c = 0; NORMALISED && c < CHUNKS; c++) {
        float x[EIGHT];
        unpack8(x, chunks[c]);
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) total += exp2f(fmaf(x[i], LOG2_E, -shift));
    }
    total = sum_over_warp(total);
    if (lane == 0) sums[warp] = total;
    __syncthreads();
    float log_sum_exp = __logf(sum_over_warp(lane < WARPS ? sums[lane] : 0));  // of logits - highest
    auto log_p_of = [&](const Candidate& one) {
        return NORMALISED ? one.logit - highest - log_sum_exp : one.logit;
    };

    if (own >= bound && bound > minus_infinity())
        row.for_each([&](const Candidate& one) {
            if (!(one.logit >= bound)) return;
            unsigned place = atomicAdd(&listed, 1);
            if (place < LISTED) list[place] = one;
        });
    __syncthreads();
    // Where fewer than k groups have a number, or too many numbers reach the bound, one is chosen
    // after the other.
    if (k <= listed && listed <= LISTED) {
        if (threadIdx.x >= listed) return;
        Candidate mine = list[threadIdx.x];
        unsigned rank = 0;
        for (unsigned i = 0; i < listed; i++) rank += is_better(list[i], mine);
        if (rank >= k) return;
        log_p[rank] = log_p_of(mine);
        ids[rank] = NAMED ? names[mine.token] : mine.token;
        return;
    }
    Candidate best = {0, 0};
    for (unsigned rank = 0; rank < k; rank++) {
        Candidate previous = best;
        best = {minus_infinity(), ~0u};
        row.for_each([&](const Candidate& one) {
            if ((rank == 0 || is_better(previous, one)) && is_better(one, best)) best = one;
        });
        best = best_over_warp(best);
        if (lane == 0) list[rank % 2 * WARPS + warp] = best;
        __syncthreads();
        best = {minus_infinity(), ~0u};
        if (lane < WARPS) best = list[rank % 2 * WARPS + lane];
        best = best_over_warp(best);
        if (threadIdx.x == 0) {
            log_p[rank] = log_p_of(best);
            // Where every logit is NaN, no candidate was found; the id is a valid one all the same.
            unsigned token = min(best.token, VOCABULARY - 1u);
            ids[rank] = NAMED ? names[token] : token;
        }
    }
}
