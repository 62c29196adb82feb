// The factors of dropout, with the same bits as autograd/dropout.py.

#include "device.cuh"

// A DropoutSite, passed by value. An element is kept if its 16-bit random number is at least
// `threshold`, and is then multiplied by `scale`. `row` is the number of the first row. What changes
// while launches are replayed is on the device: unless null, `step_place` and `row_place` have the
// numbers that count in place of `step` and `row`.
struct Mask {
    const unsigned *step_place, *row_place;
    unsigned key0, key1, site, step, row, threshold;
    float scale;
};

// Philox 4x32-10 (Salmon et al., 2011): four random words for a counter of four words.
__device__ __forceinline__ uint4 philox(uint4 counter, unsigned key0, unsigned key1) {
    constexpr unsigned M0 = 0xD2511F53, M1 = 0xCD9E8D57;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        counter = make_uint4(__umulhi(M1, counter.z) ^ counter.y ^ key0, M1 * counter.z,
                             __umulhi(M0, counter.x) ^ counter.w ^ key1, M0 * counter.x);
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
    return counter;
}

// The same mask, with its numbers read from the device: for a kernel that needs them many times.
__device__ __forceinline__ Mask read_once(Mask mask) {
    if (mask.step_place) mask.step = __ldg(mask.step_place);
    if (mask.row_place) mask.row = __ldg(mask.row_place);
    mask.step_place = mask.row_place = nullptr;
    return mask;
}

// The counter of the eight columns of a row that `column` is one of.
__device__ __forceinline__ uint4 counter_of(const Mask& mask, unsigned row, unsigned column) {
    unsigned step = mask.step_place ? __ldg(mask.step_place) : mask.step;
    unsigned first = mask.row_place ? __ldg(mask.row_place) : mask.row;
    return make_uint4(first + row, column / EIGHT, mask.site, step);
}

// Which of the eight columns of a row from `column`, a multiple of 8, on are kept: a bit for each.
__device__ __forceinline__ unsigned kept8(const Mask& mask, unsigned row, unsigned column) {
    if (!mask.threshold) return 0xff;  // nothing is dropped: no site, or a rate of 0
    uint4 words = philox(counter_of(mask, row, column), mask.key0, mask.key1);
    unsigned word[4] = {words.x, words.y, words.z, words.w}, kept = 0;
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++) {
        unsigned number = word[i / 2] >> 16 * (i % 2) & 0xffff;
        kept |= unsigned(number >= mask.threshold) << i;
    }
    return kept;
}

// The factor of column i of the eight, from the bits of `kept8`.
__device__ __forceinline__ float factor_if_kept(const Mask& mask, unsigned kept, unsigned i) {
    return kept >> i & 1 ? mask.scale : 0;
}

// The factors of the eight columns of a row from `column`, a multiple of 8, on.
__device__ __forceinline__ void dropout_factors(float (&factors)[EIGHT], const Mask& mask,
                                                unsigned row, unsigned column) {
    unsigned kept = kept8(mask, row, column);
#pragma unroll
    for (unsigned i = 0; i < EIGHT; i++) factors[i] = factor_if_kept(mask, kept, i);
}
