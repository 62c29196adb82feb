// Stands for cuBLASLt on the stand-in for a GPU: ../cublaslt.cpp, which is held to account by
// tests/autograd/test_cublaslt.py, but where everything has to be in the device's memory.

#define cublasLtMatmul cublasLtMatmul_on_any_memory
#include "../cublaslt.cpp"
#undef cublasLtMatmul

#include "machine.h"

#include <string.h>

#define REFUSE(...) \
    return cublasStatus_t(stand_in_refuses(CUBLAS_STATUS_INVALID_VALUE, "cuBLASLt: " __VA_ARGS__))

static size_t bytes_of(const Layout* layout) {
    return ((layout->columns - 1) * layout->stride + layout->rows) * layout->bytes();
}

static bool is_on_device(const void* matrix, const Layout* layout) {
    return stand_in_has_allocated(matrix, bytes_of(layout));
}

// A product that is recorded: copies of all that the library reads when it is asked for.
struct Recorded {
    cublasLtHandle_t handle;
    Operation operation;
    Layout a, b, c, d;
    const void *a_numbers, *b_numbers, *c_numbers;
    void *out, *workspace;
    float scales[2];  // on the host
    const void* scale_places[2];
    cublasLtMatmulAlgo_t algo;
    size_t workspace_bytes;
};

static int replay(void* recorded) {
    auto r = static_cast<Recorded*>(recorded);
    if (!stand_in_executes()) return 0;
    bool on_device = r->operation.pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    const void* alpha = on_device ? r->scale_places[0] : &r->scales[0];
    const void* beta = on_device ? r->scale_places[1] : &r->scales[1];
    return cublasLtMatmul_on_any_memory(r->handle, &r->operation, alpha, r->a_numbers, &r->a,
                                        r->b_numbers, &r->b, beta, r->c_numbers, &r->c, r->out, &r->d,
                                        &r->algo, r->workspace, r->workspace_bytes, nullptr);
}

extern "C" cublasStatus_t cublasLtMatmul(
    cublasLtHandle_t handle, cublasLtMatmulDesc_t operation, const void* alpha, const void* a,
    cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
    const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
    cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
    size_t workspace_bytes, cudaStream_t stream) {
    Problem problem{operation, a_layout, b_layout, c_layout, d_layout};
    if (cublasStatus_t status = problem.status()) return status;
    if (!is_on_device(a, a_layout) || !is_on_device(b, b_layout) || !is_on_device(c, c_layout) ||
        !is_on_device(d, d_layout))
        REFUSE("a matrix is not in the device's memory");
    Layout bias = {d_layout->type, d_layout->rows, 1, d_layout->stride};
    if ((operation->is_biased() || operation->adds_up()) && !is_on_device(operation->bias, &bias))
        REFUSE("the bias is not in the device's memory");
    size_t mask_bytes = operation->aux_stride / 8 * d_layout->columns;
    if (operation->has_mask() && !stand_in_has_allocated(operation->aux, mask_bytes))
        REFUSE("the mask is not in the device's memory");
    if (workspace_bytes && !stand_in_has_allocated(workspace, workspace_bytes))
        REFUSE("the workspace is not in the device's memory");
    bool on_device = operation->pointer_mode == CUBLASLT_POINTER_MODE_DEVICE;
    for (const void* scale : {alpha, beta})
        if (stand_in_has_allocated(scale, sizeof(float)) != on_device)
            REFUSE("a scale is not where the pointer mode says");
    stand_in_counts_product();
    Touched touched[6] = {{a, bytes_of(a_layout), false},
                          {b, bytes_of(b_layout), false},
                          {c, bytes_of(c_layout), false},
                          {d, bytes_of(d_layout), true}};
    size_t count = 4;
    if (operation->adds_up()) touched[count++] = {operation->bias, bytes_of(&bias), true};
    if (operation->has_mask()) touched[count++] = {operation->aux, mask_bytes, true};
    if (stand_in_records()) {
        auto r = new Recorded{handle, *operation, *a_layout, *b_layout, *c_layout, *d_layout, a, b, c, d,
                              workspace, {}, {alpha, beta}, *algo, workspace_bytes};
        if (!on_device) {
            memcpy(&r->scales[0], alpha, sizeof(float));
            memcpy(&r->scales[1], beta, sizeof(float));
        }
        return cublasStatus_t(stand_in_keeps("a product", stream, touched, count, replay, r));
    }
    switch (stand_in_turn("a product", stream, touched, count)) {
        case FAULT: return CUBLAS_STATUS_EXECUTION_FAILED;
        case SKIP: return CUBLAS_STATUS_SUCCESS;
        case RUN: break;
    }
    if (!stand_in_executes()) return CUBLAS_STATUS_SUCCESS;
    return cublasLtMatmul_on_any_memory(handle, operation, alpha, a, a_layout, b, b_layout, beta, c,
                                        c_layout, d, d_layout, algo, workspace, workspace_bytes,
                                        stream);
}
