// Attention of new queries to cached keys and values, for heads of any width: one warp per query
// and head takes 32 keys at a time, one per thread. cached_attention.cu is faster for the widths
// that it supports.

#include "device.cuh"

constexpr unsigned WARPS = 4, THREADS = WARPS * WARP;
constexpr unsigned OF_V = (D_V + WARP - 1) / WARP;  // columns of the result per thread
constexpr unsigned HEAD = D_K + D_V;

// y: [groups, n, HEADS · D_V] for q: n queries per group, with a stride of q_stride numbers, and
// kv: [slots, capacity, HEADS · HEAD], all keys and then all values of a position. The keys of a
// group are in slot slots[group · slots_stride] or, with `scattered`, that of token t in
// slots[group · slots_stride + t]. Attention is to the last `capacity` of the group's lengths[group]
// tokens, of which token t has the place t % capacity. One warp per query; blockIdx.y is the head.
extern "C" __global__ void __launch_bounds__(THREADS)
    warp_cached_attention(const real* q, unsigned q_stride, const real* kv, unsigned capacity,
                          const int* slots, unsigned slots_stride, int scattered,
                          const int* lengths, unsigned n, float factor, real* y,
                          unsigned queries) {
    unsigned lane = threadIdx.x % WARP, query = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned head = blockIdx.y, group = query / n;
    if (query >= queries) return;
    unsigned length = lengths[group], count = min(length, capacity);
    // The token in place 0, and the places of those from it on; in the others are those before it.
    unsigned first_token = length <= capacity ? 0 : (length - 1) / capacity * capacity;
    unsigned latest = length - first_token;
    const real* row = q + size_t(query) * q_stride + head * D_K;
    const int* own = slots + size_t(group) * slots_stride + (scattered ? first_token : 0);
    float most = minus_infinity(), total = 0, sums[OF_V] = {};
    for (unsigned j = 0; j < count; j += WARP) {
        unsigned there = min(WARP, count - j), place = min(j + lane, count - 1);
        unsigned slot = own[scattered * int(place - (place < latest ? 0 : capacity))];
        size_t entry = (size_t(slot) * capacity + place) * HEADS * HEAD;
        float score = minus_infinity();
        if (lane < there) {
            const real* key = kv + entry + head * D_K;
            score = 0;
#pragma unroll 8
            for (unsigned c = 0; c < D_K; c++) score += load1(row + c) * load1(key + c);
            score *= factor;
        }
        float above = fmaxf(most, most_over_warp(score)), less = __expf(most - above);
        float weight = __expf(score - above);
        most = above;
        total = total * less + weight;
#pragma unroll
        for (unsigned c = 0; c < OF_V; c++) sums[c] *= less;
        for (unsigned s = 0; s < there; s++) {
            float share = __shfl_sync(ALL, weight, s);
            const real* value = kv + __shfl_sync(ALL, entry, s) + HEADS * D_K + head * D_V;
#pragma unroll
            for (unsigned c = 0; c < OF_V; c++)
                if (c * WARP + lane < D_V) sums[c] += share * load1(value + c * WARP + lane);
        }
    }
    total = sum_over_warp(total);
    float inverse = count ? 1 / total : 0;  // a query without keys gets zeros
#pragma unroll
    for (unsigned c = 0; c < OF_V; c++)
        if (c * WARP + lane < D_V)
            store1(y + (size_t(query) * HEADS + head) * D_V + c * WARP + lane, sums[c] * inverse);
}
