// Attention of new queries to cached keys and values, for decoding. LANES threads share the WIDTH
// numbers of a key, eight each, so that a warp reads whole lines of KEYS keys at once.
//
// A warp has a head of up to QUERIES queries of a group, which read the same keys and values: so they
// are read once. WIDTH is the size of a head's keys and of its values, a power of two from 8 to 256.

#include "device.cuh"

constexpr unsigned WARPS = 4, THREADS = WARPS * WARP;
constexpr unsigned LANES = WIDTH / EIGHT, KEYS = WARP / LANES;
// Keys that a thread reads before it waits for one. With several queries there are fewer registers.
constexpr unsigned AT_ONCE = QUERIES > 1 || REAL_BYTES == 4 ? 2 : 4;
constexpr unsigned RESIDENT = QUERIES == 1 ? 6 : 4;  // blocks on a multiprocessor
constexpr float LOG2_E = 1.44269504f;

// y: [groups, n, HEADS · WIDTH] for q: n queries per group, with a stride of q_stride numbers, and
// kv: [slots, capacity, HEADS · 2 WIDTH], all keys and then all values of a position. The keys of a
// group are in slot slots[group · slots_stride] or, with `scattered`, that of token t in
// slots[group · slots_stride + t]. Attention is to the last `capacity` of the group's lengths[group]
// tokens, of which token t has the place t % capacity. blockIdx.y is the head. Strides are multiples of 8.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    cached_attention(const real* q, unsigned q_stride, const real* kv, unsigned capacity,
                     const int* slots, unsigned slots_stride, int scattered,
                     const int* lengths, unsigned n, float factor, real* y, unsigned groups) {
    unsigned lane = threadIdx.x % WARP, warp = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned warps = (n + QUERIES - 1) / QUERIES, group = warp / warps;  // warps of a group
    unsigned head = blockIdx.y, column = lane % LANES * EIGHT;
    if (group >= groups) return;
    unsigned begin = warp % warps * QUERIES, queries = min(unsigned(QUERIES), n - begin);
    size_t first = size_t(group) * n + begin;
    unsigned length = lengths[group], count = min(length, capacity);
    // The token in place 0, and the places of those from it on; in the others are those before it.
    unsigned first_token = length <= capacity ? 0 : (length - 1) / capacity * capacity;
    unsigned latest = length - first_token;
    const int* own = slots + size_t(group) * slots_stride + (scattered ? first_token : 0);
    float own_queries[QUERIES][EIGHT];  // the last one is repeated
#pragma unroll
    for (unsigned i = 0; i < QUERIES; i++) {
        size_t query = first + min(i, queries - 1);
        load8(own_queries[i], q + query * q_stride + head * WIDTH + column);
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) own_queries[i][k] *= factor * LOG2_E;
    }

    // A thread takes every KEYS-th key, and has its own sums.
    float most[QUERIES], total[QUERIES] = {}, sums[QUERIES][EIGHT] = {};
#pragma unroll
    for (unsigned i = 0; i < QUERIES; i++) most[i] = minus_infinity();
    for (unsigned j = 0; j < count; j += AT_ONCE * KEYS) {
        Packed8 keys[AT_ONCE], values[AT_ONCE];
#pragma unroll
        for (unsigned u = 0; u < AT_ONCE; u++) {
            unsigned place = min(j + u * KEYS + lane / LANES, count - 1);
            unsigned slot = own[scattered ? int(place - (place < latest ? 0 : capacity)) : 0];
            size_t entry = (size_t(slot) * capacity + place) * HEADS * 2 * WIDTH;
            keys[u] = load_packed8(kv + entry + head * WIDTH + column);
            values[u] = load_packed8(kv + entry + (HEADS + head) * WIDTH + column);
        }
#pragma unroll
        for (unsigned i = 0; i < QUERIES; i++) {
            float scores[AT_ONCE], above = most[i];
#pragma unroll
            for (unsigned u = 0; u < AT_ONCE; u++) {
                float key[EIGHT], score = 0;
                unpack8(key, keys[u]);
#pragma unroll
                for (unsigned k = 0; k < EIGHT; k++) score += own_queries[i][k] * key[k];
#pragma unroll
                for (unsigned lanes = LANES / 2; lanes; lanes /= 2)
                    score += __shfl_xor_sync(ALL, score, lanes);
                bool is_key = j + u * KEYS + lane / LANES < count;  // else the last one again
                scores[u] = is_key ? score : minus_infinity();
                above = fmaxf(above, scores[u]);
            }
            // Rescale the sums so far, which are relative to a lower maximum.
            float shift = above == minus_infinity() ? 0 : above, less = exp2f(most[i] - shift);
            most[i] = above;
            total[i] *= less;
#pragma unroll
            for (unsigned k = 0; k < EIGHT; k++) sums[i][k] *= less;
#pragma unroll
            for (unsigned u = 0; u < AT_ONCE; u++) {
                float value[EIGHT], weight = exp2f(scores[u] - shift);
                unpack8(value, values[u]);
                total[i] += weight;
#pragma unroll
                for (unsigned k = 0; k < EIGHT; k++) sums[i][k] += weight * value[k];
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < QUERIES; i++) {
        float above = most_over_warp(most[i]), less = count ? exp2f(most[i] - above) : 0;
        total[i] *= less;
#pragma unroll
        for (unsigned lanes = LANES; lanes < WARP; lanes *= 2)
            total[i] += __shfl_xor_sync(ALL, total[i], lanes);
        float inverse = count ? __fdividef(1, total[i]) : 0;  // a query without keys gets zeros
#pragma unroll
        for (unsigned k = 0; k < EIGHT; k++) {
            sums[i][k] *= less;
#pragma unroll
            for (unsigned lanes = LANES; lanes < WARP; lanes *= 2)
                sums[i][k] += __shfl_xor_sync(ALL, sums[i][k], lanes);
            sums[i][k] *= inverse;
        }
        if (lane < LANES && i < queries)
            store8(y + ((first + i) * HEADS + head) * WIDTH + column, sums[i]);
    }
}
