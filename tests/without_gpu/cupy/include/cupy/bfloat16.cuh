// Stands for CuPy's header of this name, which needs CUDA's.
#pragma once

#include <cupy/carray.cuh>

class bfloat16 {
    unsigned short bits;

  public:
    bfloat16() {}
    bfloat16(float number) : bits(float_to_bf16(number)) {}
    template <class T>
    explicit bfloat16(T number) : bfloat16(float(number)) {}
    operator float() const { return bf16_to_float(bits); }
};

inline bool isnan(bfloat16 x) { return isnan(float(x)); }
