// Writing the keys and values of a new token to the cache.

#include "device.cuh"

// Copies the last `columns` of each row of added: [rows, stride] to position `length` of its slot
// in kv: [slots, capacity, columns]. One block per row.
extern "C" __global__ void __launch_bounds__(256)
    append_to_cache(const real* added, unsigned stride, real* kv, unsigned capacity,
                    unsigned columns, const int* slots, unsigned length) {
    const real* from = added + size_t(blockIdx.x) * stride + stride - columns;
    real* to = kv + (size_t(slots[blockIdx.x]) * capacity + length) * columns;
    for (unsigned c = threadIdx.x; c < columns; c += blockDim.x) to[c] = from[c];
}
