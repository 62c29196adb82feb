// A step of beam search, from the continuations of a beam to the next beam. A warp has a sentence.
//
// A sentence has BEAM hypotheses in GROUPS, and COUNT continuations of each hypothesis.

#include "device.cuh"

constexpr unsigned CONTINUATIONS = BEAM * COUNT, WIDTH = CONTINUATIONS / GROUPS;
constexpr unsigned OF_GROUP = BEAM / GROUPS;  // hypotheses, at most 32 in all groups
constexpr unsigned BEST_OF_GROUP = WIDTH < 2 * OF_GROUP ? WIDTH : 2 * OF_GROUP;
constexpr unsigned BEST = BEST_OF_GROUP * GROUPS;

__device__ __forceinline__ double no_probability() { return minus_infinity(); }

// A continuation, by what decides its rank and its place within its group. Among equal ones the first
// is better; one that is NaN has been taken already.
struct Ranked {
    double merit;
    unsigned place;
};

__device__ __forceinline__ bool is_better(const Ranked& a, const Ranked& b) {
    return a.merit > b.merit || (a.merit == b.merit && a.place < b.place);
}

__device__ __forceinline__ Ranked best_over_warp(Ranked best) {
#pragma unroll
    for (unsigned lanes = WARP / 2; lanes; lanes /= 2) {
        Ranked other = {__shfl_xor_sync(ALL, best.merit, lanes),
                        __shfl_xor_sync(ALL, best.place, lanes)};
        if (is_better(other, best)) best = other;
    }
    return best;
}

// The best of every 32nd continuation of a group.
__device__ __forceinline__ Ranked best_of_lane(const double* merits, unsigned lane) {
    Ranked best = {no_probability(), ~0u};
    for (unsigned place = lane; place < WIDTH; place += WARP) {
        Ranked other = {merits[place], place};
        if (is_better(other, best)) best = other;
    }
    return best;
}

// A sentence's hypotheses log_p: [sentences, BEAM], with their last tokens `ids`, become the next ones
// in place. next_log_p and next_ids: [sentences · BEAM, COUNT] are their continuations; lengths:
// [sentences · BEAM] counts the tokens with these. The best are written to trace_log_p, trace_rows,
// trace_ids and, with `coverage`: [sentences, BEAM], trace_coverage, [steps, places, BEST] each, at the
// place sentence_ids[sentence]. With `found`: [sentences, kept], at most BEAM of them, it gets the
// best scores, best last. What they, and until_full, mean is said in autograd/ops/large/beam.py. tokens_so_far:
// [sentences · BEAM, length or more], with a stride, is reordered in place unless it is null. rows:
// [sentences · BEAM], unless it is null, gets the rows of the old beam that the new ones continue,
// counted over all sentences.
extern "C" __global__ void __launch_bounds__(WARP)
    beam_step(double* log_p, const float* next_log_p, const long long* next_ids, int* ids,
              double* found, unsigned kept, unsigned until_full, const double* coverage,
              const long long* limits, const double* divisors, const int* lengths,
              long long end_id, double diversity, int* tokens_so_far, unsigned stride,
              long long* rows, double* trace_log_p, int* trace_rows, int* trace_ids,
              double* trace_coverage, unsigned places, const int* sentence_ids) {
    __shared__ double merits[WIDTH], of_best[BEST], scores[BEAM + BEST], worst;
    __shared__ long long tokens[BEST], chosen[BEAM];
    __shared__ unsigned best[BEST], alive[BEAM], row_of[BEAM];
    unsigned lane = threadIdx.x;
    size_t first = size_t(blockIdx.x) * BEAM;  // row
    unsigned length = lengths[first];
    next_log_p += first * COUNT, next_ids += first * COUNT;

    auto log_p_of = [&](unsigned c) {
        return fmax(log_p[first + c / COUNT] + double(next_log_p[c]), no_probability());
    };
    for (unsigned group = 0; group < GROUPS; group++) {
        unsigned begin = group * WIDTH, begin_best = group * BEST_OF_GROUP;
        for (unsigned place = lane; place < WIDTH; place += WARP) {
            double merit = log_p_of(begin + place);
            for (unsigned i = 0; i < group * OF_GROUP; i++)
                if (chosen[i] == next_ids[begin + place]) merit -= diversity;
            merits[place] = merit;
        }
        __syncwarp();
        Ranked own = best_of_lane(merits, lane);
        for (unsigned rank = 0; rank < BEST_OF_GROUP; rank++) {
            unsigned place = best_over_warp(own).place;
            if (place % WARP != lane) continue;
            best[begin_best + rank] = begin + place;
            of_best[begin_best + rank] = log_p_of(begin + place);
            tokens[begin_best + rank] = next_ids[begin + place];
            merits[place] = __uint_as_float(0x7fc00000);  // taken
            own = best_of_lane(merits, lane);
        }
        __syncwarp();
        // Those that do not end go on, and in the order of ranks; those that end fill up.
        unsigned going_on = 0;
        for (unsigned r = 0; r < BEST_OF_GROUP; r++) going_on += tokens[begin_best + r] != end_id;
        for (unsigned r = lane; r < BEST_OF_GROUP; r += WARP) {
            bool ends = tokens[begin_best + r] == end_id;
            unsigned at = ends ? going_on : 0;
            for (unsigned i = 0; i < r; i++) at += (tokens[begin_best + i] == end_id) == ends;
            if (at >= OF_GROUP) continue;
            alive[group * OF_GROUP + at] = begin_best + r;
            bool is_hypothesis = of_best[begin_best + r] > no_probability();
            chosen[group * OF_GROUP + at] = is_hypothesis ? tokens[begin_best + r] : -1;
        }
        __syncwarp();
    }

    for (unsigned r = lane; r < BEST; r += WARP) {
        unsigned row = best[r] / COUNT;
        size_t place = (size_t(length - 1) * places + sentence_ids[blockIdx.x]) * BEST + r;
        trace_log_p[place] = of_best[r];
        trace_rows[place] = row;
        trace_ids[place] = tokens[r];
        double score = of_best[r] / divisors[length];
        if (coverage) {
            trace_coverage[place] = coverage[first + row];
            score += coverage[first + row];
        }
        bool counts = !until_full || r % BEST_OF_GROUP < OF_GROUP;
        scores[kept + r] = counts && tokens[r] == end_id ? score : no_probability();
    }
    if (found) {
        found += size_t(blockIdx.x) * kept;
        for (unsigned i = lane; i < kept; i += WARP) scores[i] = found[i];
        __syncwarp();
        for (unsigned i = lane; i < kept + BEST; i += WARP) {
            unsigned better = 0;
            for (unsigned j = 0; j < kept + BEST; j++)
                better += scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
            if (better < kept) found[kept - 1 - better] = scores[i];
            if (better == kept - 1) worst = scores[i];
        }
    }
    __syncwarp();

    double own_log_p = no_probability();
    if (lane < BEAM) {
        unsigned one = alive[lane];
        if (tokens[one] != end_id) own_log_p = of_best[one];
        row_of[lane] = best[one] / COUNT;
        if (rows) rows[first + lane] = first + row_of[lane];
        ids[first + lane] = tokens[one];
    }
    double highest = own_log_p;
#pragma unroll
    for (unsigned lanes = WARP / 2; lanes; lanes /= 2)
        highest = fmax(highest, __shfl_xor_sync(ALL, highest, lanes));
    bool is_over = limits[blockIdx.x] <= length;
    if (!found)
        is_over |= highest == no_probability();
    else if (until_full)
        is_over |= worst > no_probability();
    else
        is_over |= worst >= highest / divisors[limits[blockIdx.x]];
    if (lane < BEAM) log_p[first + lane] = is_over ? no_probability() : own_log_p;
    if (!tokens_so_far) return;

    // A column belongs to one lane, which reads all of it before it writes.
    __syncwarp();
    tokens_so_far += first * stride;
    for (unsigned column = lane; column < length; column += WARP) {
        int moved[BEAM];
#pragma unroll
        for (unsigned i = 0; i < BEAM; i++)
            moved[i] = tokens_so_far[row_of[i] * size_t(stride) + column];
#pragma unroll
        for (unsigned i = 0; i < BEAM; i++) tokens_so_far[i * size_t(stride) + column] = moved[i];
    }
}
