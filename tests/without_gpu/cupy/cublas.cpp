// Stands for cuBLAS where there is no GPU: the calls that CuPy and autograd/cuda make, with the
// library's ABI, on the memory of the stand-in for a GPU. Names, values and the order of arguments
// are those of cublas_api.h, and matrices are column-major. Loops are plain; sums have the type that
// the caller asks for.
//
// Every other function that CuPy's binding needs is put beside these when the library is built, and
// says that it is missing.

#include "machine.h"

#include <cstdint>
#include <cstring>
#include <vector>

enum cublasStatus_t : int {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum cudaDataType : int { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16BF = 14 };
enum cublasComputeType_t : int {
    CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_64F = 70,
    CUBLAS_COMPUTE_32F_FAST_TF32 = 77,
};
enum cublasPointerMode_t : int { CUBLAS_POINTER_MODE_HOST = 0, CUBLAS_POINTER_MODE_DEVICE = 1 };

struct Context {
    int pointer_mode = CUBLAS_POINTER_MODE_HOST, math_mode = 0;
    void* stream = nullptr;
};

#define CUBLAS extern "C" __attribute__((visibility("default"))) int
#define REFUSE(status, ...) return stand_in_refuses(status, "cuBLAS: " __VA_ARGS__)

static size_t bytes_of(int type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }

static float widened(uint16_t number) {
    uint32_t bits = uint32_t(number) << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

static uint16_t rounded(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    if (number != number) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <class T>
static T read(const void* data, int type, size_t i) {
    switch (type) {
        case CUDA_R_64F: return static_cast<const double*>(data)[i];
        case CUDA_R_32F: return static_cast<const float*>(data)[i];
        default: return widened(static_cast<const uint16_t*>(data)[i]);
    }
}

template <class T>
static void write(void* data, int type, size_t i, T number) {
    switch (type) {
        case CUDA_R_64F: static_cast<double*>(data)[i] = number; break;
        case CUDA_R_32F: static_cast<float*>(data)[i] = number; break;
        default: static_cast<uint16_t*>(data)[i] = rounded(number);
    }
}

struct Matrix {
    const void* data;
    int type, stride;  // numbers from column to column
    bool transposed;

    // The matrix as it is multiplied, row after row.
    template <class T>
    std::vector<T> rows(int rows, int columns) const {
        std::vector<T> out(size_t(rows) * columns);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < columns; j++) {
                size_t place = transposed ? j + size_t(i) * stride : i + size_t(j) * stride;
                out[size_t(i) * columns + j] = read<T>(data, type, place);
            }
        return out;
    }

    // From its first number to its last, as one that is multiplied as [rows, columns].
    size_t bytes(int rows, int columns) const {
        size_t height = transposed ? columns : rows, width = transposed ? rows : columns;
        return height && width ? ((width - 1) * stride + height) * bytes_of(type) : 0;
    }

    // What is wrong with it as one that is multiplied as [rows, columns], or null.
    const char* fault(int rows, int columns) const {
        if (stride < 1 || stride < (transposed ? columns : rows)) return "columns overlap";
        if (uintptr_t(data) % bytes_of(type)) return "numbers begin between numbers";
        if (bytes(rows, columns) && !stand_in_has_allocated(data, bytes(rows, columns)))
            return "it is not in the device's memory";
        return nullptr;
    }
};

// out [m, n] = alpha a [m, k] b [k, n] + beta out, where out is not read if beta is 0.
template <class T>
static int multiply(void* handle, int m, int n, int k, const void* alpha, Matrix a, Matrix b,
                    const void* beta, Matrix out) {
    auto context = static_cast<Context*>(handle);
    if (!context) REFUSE(CUBLAS_STATUS_NOT_INITIALIZED, "no handle");
    if (m < 0 || n < 0 || k < 0) REFUSE(CUBLAS_STATUS_INVALID_VALUE, "%d x %d x %d", m, n, k);
    if (auto fault = a.fault(m, k)) REFUSE(CUBLAS_STATUS_INVALID_VALUE, "the first matrix: %s", fault);
    if (auto fault = b.fault(k, n)) REFUSE(CUBLAS_STATUS_INVALID_VALUE, "the second matrix: %s", fault);
    if (auto fault = out.fault(m, n)) REFUSE(CUBLAS_STATUS_INVALID_VALUE, "the result: %s", fault);
    for (auto scale : {alpha, beta})
        if (stand_in_has_allocated(scale, sizeof(T)) != (context->pointer_mode == CUBLAS_POINTER_MODE_DEVICE))
            REFUSE(CUBLAS_STATUS_INVALID_VALUE, "a scale is not where the pointer mode says");
    Touched touched[] = {{a.data, a.bytes(m, k), false},
                         {b.data, b.bytes(k, n), false},
                         {out.data, out.bytes(m, n), true}};
    switch (stand_in_turn("a product", context->stream, touched, 3)) {
        case FAULT: return CUBLAS_STATUS_EXECUTION_FAILED;
        case SKIP: return CUBLAS_STATUS_SUCCESS;
        case RUN: break;
    }
    if (!stand_in_executes()) return CUBLAS_STATUS_SUCCESS;
    T by = *static_cast<const T*>(alpha), keep = *static_cast<const T*>(beta);
    auto left = a.rows<T>(m, k), right = b.rows<T>(k, n);
    std::vector<T> sums(n);
    for (int i = 0; i < m; i++) {
        sums.assign(n, 0);
        for (int l = 0; l < k; l++) {
            T factor = left[size_t(i) * k + l];
            const T* row = &right[size_t(l) * n];
            for (int j = 0; j < n; j++) sums[j] += factor * row[j];
        }
        for (int j = 0; j < n; j++) {
            size_t place = i + size_t(j) * out.stride;
            T before = keep == 0 ? 0 : keep * read<T>(out.data, out.type, place);
            write<T>(const_cast<void*>(out.data), out.type, place, by * sums[j] + before);
        }
    }
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasCreate_v2(void** handle) {
    *handle = new Context;
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasDestroy_v2(void* handle) {
    delete static_cast<Context*>(handle);
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasSetStream_v2(void* handle, void* stream) {
    static_cast<Context*>(handle)->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasSetPointerMode_v2(void* handle, int mode) {
    static_cast<Context*>(handle)->pointer_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasGetPointerMode_v2(void* handle, int* mode) {
    *mode = static_cast<Context*>(handle)->pointer_mode;
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasSetMathMode(void* handle, int mode) {
    static_cast<Context*>(handle)->math_mode = mode;
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasGetMathMode(void* handle, int* mode) {
    *mode = static_cast<Context*>(handle)->math_mode;
    return CUBLAS_STATUS_SUCCESS;
}

static int multiply_typed(void* handle, int m, int n, int k, const void* alpha, Matrix a, Matrix b,
                          const void* beta, Matrix out, int compute) {
    auto are = [&](int factors, int result) {
        return a.type == factors && b.type == factors && out.type == result;
    };
    bool is_float = are(CUDA_R_32F, CUDA_R_32F);
    bool is_bfloat16 = are(CUDA_R_16BF, CUDA_R_16BF) || are(CUDA_R_16BF, CUDA_R_32F);
    if (compute == CUBLAS_COMPUTE_64F && are(CUDA_R_64F, CUDA_R_64F))
        return multiply<double>(handle, m, n, k, alpha, a, b, beta, out);
    if ((compute == CUBLAS_COMPUTE_32F && (is_float || is_bfloat16)) ||
        (compute == CUBLAS_COMPUTE_32F_FAST_TF32 && is_float))
        return multiply<float>(handle, m, n, k, alpha, a, b, beta, out);
    REFUSE(CUBLAS_STATUS_NOT_SUPPORTED, "types %d, %d and %d, computed as %d", a.type, b.type,
           out.type, compute);
}

CUBLAS cublasGemmEx(void* handle, int a_transposed, int b_transposed, int m, int n, int k,
                    const void* alpha, const void* a, int a_type, int a_stride, const void* b,
                    int b_type, int b_stride, const void* beta, void* out, int out_type,
                    int out_stride, int compute, int) {
    stand_in_counts_product();
    return multiply_typed(handle, m, n, k, alpha, {a, a_type, a_stride, a_transposed != 0},
                          {b, b_type, b_stride, b_transposed != 0}, beta,
                          {out, out_type, out_stride, false}, compute);
}

CUBLAS cublasGemmStridedBatchedEx(void* handle, int a_transposed, int b_transposed, int m, int n,
                                  int k, const void* alpha, const void* a, int a_type, int a_stride,
                                  long long a_step, const void* b, int b_type, int b_stride,
                                  long long b_step, const void* beta, void* out, int out_type,
                                  int out_stride, long long out_step, int count, int compute, int) {
    stand_in_counts_product();
    auto place = [](const void* data, int type, long long numbers) {
        return static_cast<const char*>(data) + numbers * (long long)bytes_of(type);
    };
    for (int i = 0; i < count; i++) {
        Matrix left = {place(a, a_type, i * a_step), a_type, a_stride, a_transposed != 0};
        Matrix right = {place(b, b_type, i * b_step), b_type, b_stride, b_transposed != 0};
        Matrix result = {place(out, out_type, i * out_step), out_type, out_stride, false};
        int status = multiply_typed(handle, m, n, k, alpha, left, right, beta, result, compute);
        if (status) return status;
    }
    return CUBLAS_STATUS_SUCCESS;
}

// Matrices whose addresses are in the device's memory.
template <class T>
static int multiply_each(void* handle, int a_transposed, int b_transposed, int m, int n, int k,
                         const T* alpha, const T* const* a, int a_stride, const T* const* b,
                         int b_stride, const T* beta, T* const* out, int out_stride, int count) {
    int type = sizeof(T) == 8 ? CUDA_R_64F : CUDA_R_32F;
    for (const void* addresses : {(const void*)a, (const void*)b, (const void*)out})
        if (!stand_in_has_allocated(addresses, count * sizeof(void*)))
            REFUSE(CUBLAS_STATUS_INVALID_VALUE, "addresses that are not in the device's memory");
    if (!stand_in_executes()) count = 0;  // nothing has written the addresses
    stand_in_counts_product();
    for (int i = 0; i < count; i++) {
        Matrix left = {a[i], type, a_stride, a_transposed != 0};
        Matrix right = {b[i], type, b_stride, b_transposed != 0};
        int status = multiply<T>(handle, m, n, k, alpha, left, right, beta,
                                 {out[i], type, out_stride, false});
        if (status) return status;
    }
    return CUBLAS_STATUS_SUCCESS;
}

CUBLAS cublasSgemmBatched(void* handle, int a_transposed, int b_transposed, int m, int n, int k,
                          const float* alpha, const float* const* a, int a_stride,
                          const float* const* b, int b_stride, const float* beta, float* const* out,
                          int out_stride, int count) {
    return multiply_each(handle, a_transposed, b_transposed, m, n, k, alpha, a, a_stride, b, b_stride,
                         beta, out, out_stride, count);
}

CUBLAS cublasDgemmBatched(void* handle, int a_transposed, int b_transposed, int m, int n, int k,
                          const double* alpha, const double* const* a, int a_stride,
                          const double* const* b, int b_stride, const double* beta,
                          double* const* out, int out_stride, int count) {
    return multiply_each(handle, a_transposed, b_transposed, m, n, k, alpha, a, a_stride, b, b_stride,
                         beta, out, out_stride, count);
}
