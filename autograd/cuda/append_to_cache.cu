// Writing the keys and values of a new token to the cache.

#include "device.cuh"

// Copies the last `columns` of each row of added: [rows, stride] to the place of the row's last token
// in its slot of kv: [slots, capacity, columns]. lengths: [rows], its tokens. One block per row.
extern "C" __global__ void __launch_bounds__(256)
    append_to_cache(const real* added, unsigned stride, real* kv, unsigned capacity,
                    unsigned columns, const int* slots, const int* lengths) {
    const real* from = added + size_t(blockIdx.x) * stride + stride - columns;
    unsigned place = unsigned(lengths[blockIdx.x] - 1) % capacity;
    real* to = kv + (size_t(slots[blockIdx.x]) * capacity + place) * columns;
    for (unsigned c = threadIdx.x; c < columns; c += blockDim.x) to[c] = from[c];
}
