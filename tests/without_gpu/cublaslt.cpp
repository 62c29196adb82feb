// Stands for cuBLASLt where there is no GPU: the calls that autograd/cuda/cublaslt.py makes, with
// the library's ABI, on the host's memory. Names, values and the order of arguments are those of
// cublasLt.h, matrices are column-major, loops are plain, and sums are float.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

enum cublasStatus_t : int32_t {
    CUBLAS_STATUS_SUCCESS = 0,
    CUBLAS_STATUS_NOT_INITIALIZED = 1,
    CUBLAS_STATUS_INVALID_VALUE = 7,
    CUBLAS_STATUS_EXECUTION_FAILED = 13,
    CUBLAS_STATUS_NOT_SUPPORTED = 15,
};
enum cudaDataType : int32_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
enum cublasComputeType_t : int32_t { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_32F_FAST_TF32 = 77 };
enum cublasOperation_t : int32_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cublasLtPointerMode_t : int32_t {
    CUBLASLT_POINTER_MODE_HOST = 0,
    CUBLASLT_POINTER_MODE_DEVICE = 1,
};
enum cublasLtEpilogue_t : int32_t {
    CUBLASLT_EPILOGUE_DEFAULT = 1,
    CUBLASLT_EPILOGUE_RELU = 2,
    CUBLASLT_EPILOGUE_BIAS = 4,
    CUBLASLT_EPILOGUE_RELU_BIAS = 6,
    CUBLASLT_EPILOGUE_RELU_AUX_BIAS = 134,
    CUBLASLT_EPILOGUE_DRELU = 136,
    CUBLASLT_EPILOGUE_BGRADA = 256,
};
enum cublasLtReductionScheme_t : int32_t {
    CUBLASLT_REDUCTION_SCHEME_NONE = 0,
    CUBLASLT_REDUCTION_SCHEME_INPLACE = 1,
    CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2,
    CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE = 4,
    CUBLASLT_REDUCTION_SCHEME_MASK = 7,
};
enum cublasLtMatmulDescAttributes_t : int32_t {
    CUBLASLT_MATMUL_DESC_POINTER_MODE = 2,
    CUBLASLT_MATMUL_DESC_TRANSA = 3,
    CUBLASLT_MATMUL_DESC_TRANSB = 4,
    CUBLASLT_MATMUL_DESC_EPILOGUE = 7,
    CUBLASLT_MATMUL_DESC_BIAS_POINTER = 8,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER = 11,
    CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD = 12,
};
enum cublasLtMatmulPreferenceAttributes_t : int32_t {
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES = 1,
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 3,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 8,
};
enum cublasLtMatmulAlgoConfigAttributes_t : int32_t {
    CUBLASLT_ALGO_CONFIG_ID = 0,
    CUBLASLT_ALGO_CONFIG_TILE_ID = 1,
    CUBLASLT_ALGO_CONFIG_SPLITK_NUM = 2,
    CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME = 3,
    CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING = 4,
    CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION = 5,
    CUBLASLT_ALGO_CONFIG_STAGES_ID = 6,
    CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID = 7,
    CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID = 8,
};

struct Operation {
    int32_t compute, scale;
    int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
    int32_t a_transposed = CUBLAS_OP_N, b_transposed = CUBLAS_OP_N;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    void* bias = nullptr;
    void* aux = nullptr;
    int64_t aux_stride = 0;  // of the mask, in bits

    bool is_biased() const { return epilogue & CUBLASLT_EPILOGUE_BIAS; }
    bool has_mask() const {
        return epilogue == CUBLASLT_EPILOGUE_RELU_AUX_BIAS || epilogue == CUBLASLT_EPILOGUE_DRELU;
    }
    bool adds_up() const { return epilogue == CUBLASLT_EPILOGUE_BGRADA; }
};

struct Layout {
    int32_t type;
    uint64_t rows, columns;
    int64_t stride;  // numbers from column to column

    uint64_t bytes() const { return type == CUDA_R_16BF ? 2 : 4; }
    uint64_t bytes_a_column() const { return uint64_t(stride) * bytes(); }
};

struct Preference {
    uint64_t workspace_bytes = 0;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
    uint32_t alignment[4] = {256, 256, 256, 256};
};

// The algorithms there are, the likeliest first. Those that cut the sums into parts keep these in
// the workspace; the first two round them to the type of D, as the library's do. Matrices, columns
// and a bias must begin at multiples of so many bytes.
struct Way {
    uint32_t parts, reduction, alignment, bias_alignment;
};
const Way WAYS[] = {
    {2, CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, 16, 1},
    {2, CUBLASLT_REDUCTION_SCHEME_INPLACE, 16, 1},
    {1, CUBLASLT_REDUCTION_SCHEME_NONE, 256, 1},
    {1, CUBLASLT_REDUCTION_SCHEME_NONE, 1, 32},
    {2, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, 16, 1},
    {1, CUBLASLT_REDUCTION_SCHEME_NONE, 1, 1},
};
const uint32_t COUNT = sizeof(WAYS) / sizeof(WAYS[0]);

// An algorithm knows which kind of problem it is for.
struct cublasLtMatmulAlgo_t {
    uint32_t number;
    int32_t compute, pointer_mode, a_transposed, b_transposed;
    uint32_t epilogue;
    int32_t type, out_type;
    uint64_t unused[4];
};
static_assert(sizeof(cublasLtMatmulAlgo_t) == 64, "");

struct cublasLtMatmulHeuristicResult_t {
    cublasLtMatmulAlgo_t algo;
    size_t workspaceSize;
    cublasStatus_t state;
    float wavesCount;
    int reserved[4];
};
static_assert(sizeof(cublasLtMatmulHeuristicResult_t) == 96, "");

typedef void* cublasLtHandle_t;
typedef Operation* cublasLtMatmulDesc_t;
typedef Layout* cublasLtMatrixLayout_t;
typedef Preference* cublasLtMatmulPreference_t;
typedef void* cudaStream_t;

// Numbers

static float float_of(uint32_t bits) {
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

static uint32_t bits_of(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    return bits;
}

static uint16_t to_bfloat16(float number) {
    uint32_t bits = bits_of(number);
    if (number != number) return uint16_t(bits >> 16 | 0x40);  // NaN, and not infinity
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest, ties to even
}

static float rounded_to(int32_t type, float number) {
    return type == CUDA_R_16BF ? float_of(uint32_t(to_bfloat16(number)) << 16) : number;
}

static float to_tf32(float number) { return float_of((bits_of(number) + 0x1000) & ~0x1fffu); }

static float get(const void* matrix, const Layout& layout, uint64_t row, uint64_t column) {
    uint64_t i = row + column * layout.stride;
    if (layout.type == CUDA_R_32F) return static_cast<const float*>(matrix)[i];
    return float_of(uint32_t(static_cast<const uint16_t*>(matrix)[i]) << 16);
}

static void put(void* matrix, const Layout& layout, uint64_t row, uint64_t column, float number) {
    uint64_t i = row + column * layout.stride;
    if (layout.type == CUDA_R_32F)
        static_cast<float*>(matrix)[i] = number;
    else
        static_cast<uint16_t*>(matrix)[i] = to_bfloat16(number);
}

// Problems

static bool is_aligned(const void* x, uint32_t bytes) {
    return reinterpret_cast<uintptr_t>(x) % bytes == 0;
}

struct Problem {
    const Operation* operation;
    const Layout *a, *b, *c, *d;

    uint64_t depth() const { return operation->a_transposed ? a->rows : a->columns; }

    // Whether this makes sense, and whether the library can do it.
    cublasStatus_t status() const {
        if (!operation || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
        for (const Layout* x : {a, b, c, d})
            if (!x->rows || !x->columns || x->stride < int64_t(x->rows))
                return CUBLAS_STATUS_INVALID_VALUE;
        bool fits = (operation->a_transposed ? a->columns : a->rows) == d->rows &&
                    (operation->b_transposed ? b->rows : b->columns) == d->columns &&
                    (operation->b_transposed ? b->columns : b->rows) == depth() &&
                    c->rows == d->rows && c->columns == d->columns;
        if (!fits) return CUBLAS_STATUS_INVALID_VALUE;
        bool narrow = a->type == CUDA_R_16BF, single = a->type == CUDA_R_32F;
        bool typed = a->type == b->type && c->type == d->type &&
                     (d->type == CUDA_R_32F ? narrow || single : d->type == CUDA_R_16BF && narrow);
        bool computed = operation->compute == CUBLAS_COMPUTE_32F ||
                        (operation->compute == CUBLAS_COMPUTE_32F_FAST_TF32 && single);
        const uint32_t known = CUBLASLT_EPILOGUE_RELU_BIAS, epilogue = operation->epilogue;
        bool finished = epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
                        (epilogue && !(epilogue & ~known)) || operation->has_mask() ||
                        (operation->adds_up() && !operation->a_transposed);
        if (operation->has_mask() &&
            (operation->aux_stride % 128 || operation->aux_stride < int64_t(d->rows)))
            return CUBLAS_STATUS_INVALID_VALUE;
        bool scaled = operation->scale == CUDA_R_32F && operation->pointer_mode >= 0 &&
                      operation->pointer_mode <= CUBLASLT_POINTER_MODE_DEVICE;
        bool supported = typed && computed && finished && scaled;
        return supported ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    }

    cublasLtMatmulAlgo_t algorithm(uint32_t number) const {
        return {number,
                operation->compute,
                operation->pointer_mode,
                operation->a_transposed,
                operation->b_transposed,
                operation->epilogue,
                a->type,
                d->type,
                {}};
    }

    size_t workspace_bytes(const Way& way) const {
        return way.parts == 1 ? 0 : way.parts * d->rows * d->columns * sizeof(float);
    }

    bool suits(const Way& way) const {
        for (const Layout* x : {a, b, c, d})
            if (x->bytes_a_column() % way.alignment) return false;
        return !(operation->is_biased() || operation->adds_up()) ||
               is_aligned(operation->bias, way.bias_alignment);
    }

    // Whether an algorithm is one, and is for this problem.
    cublasStatus_t status_of(const cublasLtMatmulAlgo_t* algo) const {
        if (!algo || algo->number >= COUNT) return CUBLAS_STATUS_INVALID_VALUE;
        cublasLtMatmulAlgo_t mine = algorithm(algo->number);
        if (memcmp(algo, &mine, sizeof(mine))) return CUBLAS_STATUS_INVALID_VALUE;
        return suits(WAYS[algo->number]) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
    }

    // A number of the product of A and B.
    float product(const void* a_numbers, const void* b_numbers, uint64_t row, uint64_t column,
                  const Way& way) const {
        float total = 0;
        for (uint32_t part = 0; part < way.parts; part++) {
            float sum = 0;
            uint64_t begin = depth() * part / way.parts, end = depth() * (part + 1) / way.parts;
            for (uint64_t k = begin; k < end; k++) {
                float x = operation->a_transposed ? get(a_numbers, *a, k, row)
                                                  : get(a_numbers, *a, row, k);
                float y = operation->b_transposed ? get(b_numbers, *b, column, k)
                                                  : get(b_numbers, *b, k, column);
                bool rounds = operation->compute == CUBLAS_COMPUTE_32F_FAST_TF32;
                sum += rounds ? to_tf32(x) * to_tf32(y) : x * y;
            }
            bool exact = way.reduction == CUBLASLT_REDUCTION_SCHEME_NONE ||
                         way.reduction == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
            total += exact ? sum : rounded_to(d->type, sum);
        }
        return total;
    }
};

// Attributes

template <class T>
static cublasStatus_t set(T& attribute, const void* value, size_t bytes) {
    if (!value || bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&attribute, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

template <class T>
static cublasStatus_t create(T** place, T object) {
    if (!place) return CUBLAS_STATUS_INVALID_VALUE;
    *place = new T(object);
    return CUBLAS_STATUS_SUCCESS;
}

template <class T>
static cublasStatus_t destroy(T* object) {
    delete object;
    return CUBLAS_STATUS_SUCCESS;
}

// The library

extern "C" {

size_t cublasLtGetVersion(void) { return 130000; }

const char* cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
        case CUBLAS_STATUS_NOT_INITIALIZED: return "CUBLAS_STATUS_NOT_INITIALIZED";
        case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
        case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
        case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unrecognized status";
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
    switch (status) {
        case CUBLAS_STATUS_SUCCESS: return "success";
        case CUBLAS_STATUS_NOT_INITIALIZED: return "the handle is null";
        case CUBLAS_STATUS_INVALID_VALUE: return "an argument makes no sense";
        case CUBLAS_STATUS_EXECUTION_FAILED: return "the product could not be started";
        case CUBLAS_STATUS_NOT_SUPPORTED: return "this cannot be done";
    }
    return "unrecognized status";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
    static int context;
    if (!handle) return CUBLAS_STATUS_INVALID_VALUE;
    *handle = reinterpret_cast<cublasLtHandle_t>(&context);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* place, cublasComputeType_t compute,
                                        cudaDataType scale) {
    Operation operation;
    operation.compute = compute;
    operation.scale = scale;
    return create(place, operation);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t x) { return destroy(x); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t x,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
    if (!x) return CUBLAS_STATUS_INVALID_VALUE;
    switch (attribute) {
        case CUBLASLT_MATMUL_DESC_POINTER_MODE: return set(x->pointer_mode, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSA: return set(x->a_transposed, value, bytes);
        case CUBLASLT_MATMUL_DESC_TRANSB: return set(x->b_transposed, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE: return set(x->epilogue, value, bytes);
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return set(x->bias, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: return set(x->aux, value, bytes);
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: return set(x->aux_stride, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* place, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t stride) {
    return create(place, Layout{type, rows, columns, stride});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t x) { return destroy(x); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* place) {
    return create(place, Preference());
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t x) { return destroy(x); }

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t x,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, size_t bytes) {
    if (!x) return CUBLAS_STATUS_INVALID_VALUE;
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return set(x->workspace_bytes, value, bytes);
    if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
        return set(x->reductions, value, bytes);
    int matrix = attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;
    if (matrix < 0 || attribute > CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES)
        return CUBLAS_STATUS_INVALID_VALUE;
    return set(x->alignment[matrix], value, bytes);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int count,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int* found) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!preference || !results || !found || count <= 0) return CUBLAS_STATUS_INVALID_VALUE;
    Problem problem{operation, a, b, c, d};
    if (cublasStatus_t status = problem.status()) return status;
    *found = 0;
    for (uint32_t i = 0; i < COUNT && *found < count; i++) {
        const Way& way = WAYS[i];
        bool allowed = problem.workspace_bytes(way) <= preference->workspace_bytes &&
                       (way.reduction & ~preference->reductions) == 0;
        for (uint32_t alignment : preference->alignment) allowed &= way.alignment <= alignment;
        if (allowed && problem.suits(way))
            results[(*found)++] = {problem.algorithm(i), problem.workspace_bytes(way),
                                   CUBLAS_STATUS_SUCCESS, 1, {}};
    }
    return *found ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t* algo,
                                       cublasLtMatmulHeuristicResult_t* result) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    Problem problem{operation, a, b, c, d};
    if (cublasStatus_t status = problem.status()) return status;
    if (cublasStatus_t status = problem.status_of(algo)) return status;
    if (!result) return CUBLAS_STATUS_INVALID_VALUE;
    result->workspaceSize = problem.workspace_bytes(WAYS[algo->number]);
    result->state = CUBLAS_STATUS_SUCCESS;
    result->wavesCount = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void* value, size_t bytes, size_t* written) {
    bool narrow = attribute == CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID ||
                  attribute == CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID;
    const size_t size = narrow ? sizeof(uint16_t) : sizeof(uint32_t);
    if (!algo || !value || bytes != size) return CUBLAS_STATUS_INVALID_VALUE;
    if (attribute < CUBLASLT_ALGO_CONFIG_ID || attribute > CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID)
        return CUBLAS_STATUS_INVALID_VALUE;
    uint32_t found = 0;  // tile, swizzling and the like: these algorithms have only one
    if (attribute == CUBLASLT_ALGO_CONFIG_ID) {
        found = algo->number;
    } else {
        if (algo->number >= COUNT) return CUBLAS_STATUS_INVALID_VALUE;
        const Way& way = WAYS[algo->number];
        if (attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM) found = way.parts;
        if (attribute == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME) found = way.reduction;
    }
    memcpy(value, &found, size);  // little-endian: the lower half of a narrow one
    if (written) *written = size;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                              const void* alpha, const void* a, cublasLtMatrixLayout_t a_layout,
                              const void* b, cublasLtMatrixLayout_t b_layout, const void* beta,
                              const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo,
                              void* workspace, size_t workspace_bytes, cudaStream_t) {
    if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!alpha || !beta || !a || !b || !c || !d) return CUBLAS_STATUS_INVALID_VALUE;
    Problem problem{operation, a_layout, b_layout, c_layout, d_layout};
    if (cublasStatus_t status = problem.status()) return status;
    if (cublasStatus_t status = problem.status_of(algo)) return status;

    const Way& way = WAYS[algo->number];
    size_t needed = problem.workspace_bytes(way);
    if (needed > workspace_bytes || (needed && !workspace)) return CUBLAS_STATUS_INVALID_VALUE;
    for (const void* x : {a, b, c, static_cast<const void*>(d)})
        if (!is_aligned(x, way.alignment)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if ((operation->is_biased() || operation->adds_up()) && !operation->bias)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (operation->has_mask() && !operation->aux) return CUBLAS_STATUS_INVALID_VALUE;

    float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
    for (uint64_t column = 0; column < d_layout->columns; column++)
        for (uint64_t row = 0; row < d_layout->rows; row++) {
            float y = scale * problem.product(a, b, row, column, way);
            if (keep != 0) y += keep * get(c, *c_layout, row, column);
            if (operation->is_biased()) y += get(operation->bias, *d_layout, row, 0);
            if (operation->epilogue & CUBLASLT_EPILOGUE_RELU) y = y > 0 ? y : 0;
            if (operation->has_mask()) {
                uint64_t place = column * operation->aux_stride + row;
                uint8_t& byte = static_cast<uint8_t*>(operation->aux)[place / 8];
                uint8_t bit = 1 << place % 8;
                if (operation->epilogue == CUBLASLT_EPILOGUE_DRELU)
                    y = byte & bit ? y : 0;
                else
                    byte = y > 0 ? byte | bit : byte & ~bit;
            }
            put(d, *d_layout, row, column, y);
        }
    if (operation->adds_up())
        for (uint64_t row = 0; row < d_layout->rows; row++) {
            float total = 0;
            for (uint64_t k = 0; k < problem.depth(); k++) total += get(a, *a_layout, row, k);
            put(operation->bias, *d_layout, row, 0, total);
        }
    return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
