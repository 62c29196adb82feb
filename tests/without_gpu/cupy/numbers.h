// The arithmetic of NCCL's reductions, for its stand-in: one number with another, rounded to the
// type each time.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

enum ncclDataType_t : int {
    ncclInt8 = 0,
    ncclUint8 = 1,
    ncclInt32 = 2,
    ncclUint32 = 3,
    ncclInt64 = 4,
    ncclUint64 = 5,
    ncclFloat16 = 6,
    ncclFloat32 = 7,
    ncclFloat64 = 8,
    ncclBfloat16 = 9,
    ncclNumTypes,
};
enum ncclRedOp_t : int {
    ncclSum = 0,
    ncclProd = 1,
    ncclMax = 2,
    ncclMin = 3,
    ncclAvg = 4,
    ncclNumOps,
};

constexpr const char* names_of_types[ncclNumTypes] = {
    "int8",  "uint8",   "int32",   "uint32",  "int64",
    "uint64", "float16", "float32", "float64", "bfloat16",
};
constexpr size_t bytes_of_types[ncclNumTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
constexpr const char* names_of_operations[ncclNumOps] = {"sum", "product", "maximum", "minimum",
                                                         "average"};

struct Bfloat16 {
    uint16_t bits;
    Bfloat16(float number) {
        uint32_t wide;
        memcpy(&wide, &number, 4);
        bits = number != number ? 0x7fff : (wide + 0x7fff + (wide >> 16 & 1)) >> 16;
    }
    operator float() const {
        uint32_t wide = uint32_t(bits) << 16;
        float number;
        memcpy(&number, &wide, 4);
        return number;
    }
};

struct Float16 {
    uint16_t bits;
    Float16(float number) {
        uint32_t wide;
        memcpy(&wide, &number, 4);
        uint32_t sign = wide >> 16 & 0x8000, magnitude = wide & 0x7fffffff;
        if (magnitude > 0x7f800000)
            bits = sign | 0x7fff;
        else if (magnitude >= 0x477ff000)  // rounds to 65536 or is more
            bits = sign | 0x7c00;
        else if (magnitude >= 0x38800000)  // 2^-14
            bits = sign | ((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
        else {  // a multiple of 2^-24, rounded by an addition
            float shifted;
            memcpy(&shifted, &magnitude, 4);
            shifted += 0.5f;
            memcpy(&magnitude, &shifted, 4);
            bits = sign | (magnitude - 0x3f000000);
        }
    }
    operator float() const {
        uint32_t sign = uint32_t(bits & 0x8000) << 16, magnitude = bits & 0x7fff, wide;
        float number;
        if (magnitude >= 0x7c00) {
            wide = sign | 0x7f800000 | (magnitude & 0x3ff) << 13;
        } else {
            number = magnitude & 0x7c00 ? 0 : magnitude * 0x1p-24f;
            memcpy(&wide, &number, 4);
            if (magnitude & 0x7c00) wide = (magnitude << 13) + 0x38000000;
            wide |= sign;
        }
        memcpy(&number, &wide, 4);
        return number;
    }
};

// Adds the numbers of ranks 0, 1, 2 ... in this order, or what else is asked for. As NCCL does, an
// average of floating-point numbers is a sum of their parts, and one of integers a sum divided.
template <class T>
void reduce(const void* const* numbers, int ranks, size_t count, ncclRedOp_t operation, void* out) {
    constexpr bool is_integer = std::is_integral<T>::value;
    const T part(1.0 / ranks);
    for (size_t i = 0; i < count; i++) {
        auto of = [&](int rank) {
            T number = static_cast<const T*>(numbers[rank])[i];
            return operation == ncclAvg && !is_integer ? T(number * part) : number;
        };
        T result = of(0);
        for (int rank = 1; rank < ranks; rank++) {
            T number = of(rank);
            switch (operation) {
                case ncclProd: result = T(result * number); break;
                case ncclMax: result = number > result ? number : result; break;
                case ncclMin: result = number < result ? number : result; break;
                default: result = T(result + number);
            }
        }
        if (operation == ncclAvg && is_integer) result = T(result / T(ranks));
        static_cast<T*>(out)[i] = result;
    }
}

typedef void (*Reduce)(const void* const*, int, size_t, ncclRedOp_t, void*);
constexpr Reduce reductions[ncclNumTypes] = {
    reduce<int8_t>,   reduce<uint8_t>, reduce<int32_t>, reduce<uint32_t>, reduce<int64_t>,
    reduce<uint64_t>, reduce<Float16>, reduce<float>,   reduce<double>,   reduce<Bfloat16>,
};
