// Attention of new queries to cached keys and values, for decoding, with one warp per query and
// head. LANES threads share the WIDTH numbers of a key, eight each, so that a warp reads whole
// lines of KEYS keys at once.
//
// WIDTH is the size of a head's keys and of its values, a power of two from 8 to 256.

#include "device.cuh"

constexpr unsigned WARPS = 4, THREADS = WARPS * WARP;
constexpr unsigned LANES = WIDTH / EIGHT, KEYS = WARP / LANES;

// y: [groups, n, HEADS · WIDTH] for q: n queries per group, with a stride of q_stride numbers, and
// kv: [slots, capacity, HEADS · 2 WIDTH], all keys and then all values of a position. The keys of a
// group are in slot slots[group · slots_stride] or, with `scattered`, the key at position j in
// slots[group · slots_stride + j]. Attention is to the first `length` positions, or to
// key_lengths[group] of them unless that is null. One warp per query; blockIdx.y is the head.
// Strides are multiples of 8.
extern "C" __global__ void __launch_bounds__(THREADS)
    cached_attention(const real* q, unsigned q_stride, const real* kv, unsigned capacity,
                     const int* slots, unsigned slots_stride, int scattered, unsigned length,
                     const int* key_lengths, unsigned n, float factor, real* y, unsigned queries) {
    unsigned lane = threadIdx.x % WARP, query = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned head = blockIdx.y, group = query / n, column = lane % LANES * EIGHT;
    if (query >= queries) return;
    unsigned count = key_lengths ? min(length, unsigned(key_lengths[group])) : length;
    const int* own = slots + size_t(group) * slots_stride;
    float own_query[EIGHT];
    load8(own_query, q + size_t(query) * q_stride + head * WIDTH + column);

    // A thread takes every KEYS-th key, and has its own sums.
    float most = minus_infinity(), total = 0, sums[EIGHT] = {};
    for (unsigned j = 0; j < count; j += KEYS) {
        unsigned place = min(j + lane / LANES, count - 1);
        size_t entry = (size_t(own[scattered ? place : 0]) * capacity + place) * HEADS * 2 * WIDTH;
        float key[EIGHT], value[EIGHT];
        load8(key, kv + entry + head * WIDTH + column);
        load8(value, kv + entry + (HEADS + head) * WIDTH + column);
        float score = 0;
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) score += own_query[i] * key[i];
#pragma unroll
        for (unsigned lanes = LANES / 2; lanes; lanes /= 2)
            score += __shfl_xor_sync(ALL, score, lanes);
        if (j + lane / LANES >= count) continue;  // a repetition of the last key
        score *= factor;
        // Rescale the sums so far, which are relative to a lower maximum.
        float above = fmaxf(most, score), less = __expf(most - above);
        float weight = __expf(score - above);
        most = above;
        total = total * less + weight;
#pragma unroll
        for (unsigned i = 0; i < EIGHT; i++) sums[i] = sums[i] * less + weight * value[i];
    }
    __syncwarp();
    float above = most_over_warp(most), less = count ? __expf(most - above) : 0;
    total *= less;
#pragma unroll
    for (unsigned lanes = LANES; lanes < WARP; lanes *= 2)
        total += __shfl_xor_sync(ALL, total, lanes);
    float inverse = count ? 1 / total : 0;  // a query without keys gets zeros
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++) {
        sums[i] *= less;
#pragma unroll
        for (unsigned lanes = LANES; lanes < WARP; lanes *= 2)
            sums[i] += __shfl_xor_sync(ALL, sums[i], lanes);
        sums[i] *= inverse;
    }
    if (lane < LANES) store8(y + (size_t(query) * HEADS + head) * WIDTH + column, sums);
}
