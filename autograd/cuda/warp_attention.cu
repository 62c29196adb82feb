// Attention of packed sentences in float32, or for heads of any width, without tensor cores. One
// warp has a query (or, for dk and dv, a key) of a head, and takes 32 keys (or queries) at a time,
// one per thread.
//
// D_K and D_V are the widths of a head. Keys more than BEHIND positions behind a query or AHEAD of it
// are hidden; with DROPOUT, weights are dropped. attention.cu is used where tensor cores can be.

#include "heads.cuh"

constexpr unsigned WARPS = 4, THREADS = WARPS * WARP;
constexpr unsigned OF_K = (D_K + WARP - 1) / WARP, OF_V = (D_V + WARP - 1) / WARP;  // per thread

__device__ __forceinline__ const real* row_of(const Matrix& x, unsigned row, unsigned column) {
    return x.first + row * x.stride + column;
}

template <unsigned WIDTH>
__device__ __forceinline__ float dot(const real* a, const real* b) {
    float sum = 0;
#pragma unroll 8
    for (unsigned c = 0; c < WIDTH; c++) sum += load1(a + c) * load1(b + c);
    return sum;
}

// sums += Σ weight · row over up to 32 rows, with the weight of one row in each thread. A thread
// has the columns lane, lane + 32, ... of WIDTH.
template <unsigned WIDTH, unsigned OF>
__device__ __forceinline__ void add_rows(float (&sums)[OF], float weight, const Matrix& x,
                                         unsigned first, unsigned count, unsigned column) {
    unsigned lane = threadIdx.x % WARP;
    for (unsigned s = 0; s < count; s++) {
        float factor = __shfl_sync(ALL, weight, s);
        const real* row = row_of(x, first + s, column);
#pragma unroll
        for (unsigned c = 0; c < OF; c++)
            if (c * WARP + lane < WIDTH) sums[c] += factor * load1(row + c * WARP + lane);
    }
}

template <unsigned WIDTH, unsigned OF>
__device__ __forceinline__ void store_row(const Matrix& x, unsigned row, unsigned column,
                                          const float (&sums)[OF], float factor) {
    unsigned lane = threadIdx.x % WARP;
#pragma unroll
    for (unsigned c = 0; c < OF; c++)
        if (c * WARP + lane < WIDTH)
            store1(x.first + row * x.stride + column + c * WARP + lane, sums[c] * factor);
}

// y = softmax(q kᵀ · factor) v. sentence_ids: [tokens], the sentence of each query; starts and
// key_starts: [sentences + 1], the first rows of sentences; log_sum_exp: [heads, tokens] receives
// log Σ exp(score). A query without keys gets zeros. One warp per query; blockIdx.y is the head.
extern "C" __global__ void __launch_bounds__(THREADS)
    warp_attention(Matrix q, Matrix k, Matrix v, const int* sentence_ids, const int* starts,
                   const int* key_starts, float factor, Mask mask, Matrix y, float* log_sum_exp,
                   unsigned tokens) {
    unsigned lane = threadIdx.x % WARP, query = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned head = blockIdx.y;
    if (query >= tokens) return;
    unsigned sentence = sentence_ids[query], first = key_starts[sentence];
    unsigned m = key_starts[sentence + 1] - first;
    int place = query - starts[sentence];
    unsigned from = first_within(BEHIND, place), seen = end_within(AHEAD, place, m);
    const real* row = row_of(q, query, head * D_K);
    float most = minus_infinity(), total = 0, sums[OF_V] = {};
    for (unsigned j = from; j < seen; j += WARP) {
        unsigned count = min(WARP, seen - j);
        float score = minus_infinity();
        if (lane < count) score = factor * dot<D_K>(row, row_of(k, first + j + lane, head * D_K));
        // Rescale the sums so far, which are relative to a lower maximum.
        float above = fmaxf(most, most_over_warp(score)), less = __expf(most - above);
        float weight = __expf(score - above);
        most = above;
        total = total * less + weight;
#pragma unroll
        for (unsigned c = 0; c < OF_V; c++) sums[c] *= less;
        weight *= factor_of(mask, query, head * HEAD_COLUMNS + j + lane);
        add_rows<D_V>(sums, weight, v, first + j, count, head * D_V);
    }
    total = sum_over_warp(total);
    store_row<D_V>(y, query, head * D_V, sums, seen ? 1 / total : 0);
    if (lane == 0) log_sum_exp[size_t(head) * tokens + query] = most + __logf(total);
}

// dq, and along: [heads, tokens] = Σ dy y, which is Σ p dp. One warp per query.
extern "C" __global__ void __launch_bounds__(THREADS)
    warp_query_gradient(Matrix q, Matrix k, Matrix v, Matrix y, Matrix dy, const float* log_sum_exp,
                        const int* sentence_ids, const int* starts, const int* key_starts,
                        float factor, Mask mask, Matrix dq, float* along, unsigned tokens) {
    unsigned lane = threadIdx.x % WARP, query = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned head = blockIdx.y;
    if (query >= tokens) return;
    unsigned sentence = sentence_ids[query], first = key_starts[sentence];
    unsigned m = key_starts[sentence + 1] - first;
    int place = query - starts[sentence];
    unsigned from = first_within(BEHIND, place), seen = end_within(AHEAD, place, m);
    const real *row = row_of(q, query, head * D_K), *dout = row_of(dy, query, head * D_V);
    const real* out = row_of(y, query, head * D_V);
    float log_sum = log_sum_exp[size_t(head) * tokens + query], sum = 0, sums[OF_K] = {};
    for (unsigned c = lane; c < D_V; c += WARP) sum += load1(out + c) * load1(dout + c);
    sum = sum_over_warp(sum);
    if (lane == 0) along[size_t(head) * tokens + query] = sum;
    for (unsigned j = from; j < seen; j += WARP) {
        unsigned count = min(WARP, seen - j);
        float dscore = 0;
        if (lane < count) {
            float score = factor * dot<D_K>(row, row_of(k, first + j + lane, head * D_K));
            float dweight = dot<D_V>(dout, row_of(v, first + j + lane, head * D_V));
            dweight *= factor_of(mask, query, head * HEAD_COLUMNS + j + lane);
            dscore = __expf(score - log_sum) * (dweight - sum) * factor;
        }
        add_rows<D_K>(sums, dscore, k, first + j, count, head * D_K);
    }
    store_row<D_K>(dq, query, head * D_K, sums, 1);
}

// dk and dv. key_sentence_ids: [keys], the sentence of each key. One warp per key.
extern "C" __global__ void __launch_bounds__(THREADS)
    warp_key_gradient(Matrix q, Matrix k, Matrix v, Matrix dy, const float* log_sum_exp,
                      const float* along, const int* key_sentence_ids, const int* starts,
                      const int* key_starts, float factor, Mask mask, Matrix dk, Matrix dv,
                      unsigned tokens, unsigned keys) {
    unsigned lane = threadIdx.x % WARP, key = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned head = blockIdx.y;
    if (key >= keys) return;
    unsigned sentence = key_sentence_ids[key], place = key - key_starts[sentence];
    unsigned start = starts[sentence], n = starts[sentence + 1] - start;
    unsigned first = start + first_within(AHEAD, place), last = start + end_within(BEHIND, place, n);
    const real *row = row_of(k, key, head * D_K), *value = row_of(v, key, head * D_V);
    float dkey[OF_K] = {}, dvalue[OF_V] = {};
    for (unsigned i = first; i < last; i += WARP) {
        unsigned count = min(WARP, last - i), query = i + lane;
        float dscore = 0, kept = 0;
        if (lane < count) {
            size_t number = size_t(head) * tokens + query;
            float score = factor * dot<D_K>(row_of(q, query, head * D_K), row);
            float weight = __expf(score - log_sum_exp[number]);
            float drop = factor_of(mask, query, head * HEAD_COLUMNS + place);
            float dweight = drop * dot<D_V>(row_of(dy, query, head * D_V), value);
            dscore = weight * (dweight - along[number]) * factor;
            kept = weight * drop;
        }
        add_rows<D_K>(dkey, dscore, q, i, count, head * D_K);
        add_rows<D_V>(dvalue, kept, dy, i, count, head * D_V);
    }
    store_row<D_K>(dk, key, head * D_K, dkey, 1);
    store_row<D_V>(dv, key, head * D_V, dvalue, 1);
}
