"""The emulator refuses arrays that a kernel would misread, and copies when a GPU may."""

from __future__ import annotations

import numpy as np
import pytest

from tests.without_gpu.emulator import KernelError, compiler, has_whole_rows, load_text

x = np.zeros((4, 6), np.int32)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (x, True),
        (x[:, :3], True),  # the launcher passes the stride of rows
        (x[:, 0], False),
        (x[:, ::2], False),
        (x.T, False),
        (x[0][:, None], True),  # strides (4, 0)
        (x[:, :1], False),  # (24, 4): a row of one element, but not the next row beside it
        (x[:1, ::2], False),
        (x[:1, :1], True),
        (x[:0, ::2], True),
    ],
    ids=lambda x: f"{x.shape} by {x.strides}" if isinstance(x, np.ndarray) else "",
)
def test_the_stride_of_an_axis_of_length_1_is_ignored(array: np.ndarray, expected: bool) -> None:
    assert has_whole_rows(array) is expected


COPIES = """
extern "C" __global__ void copies(const float4* x, float4* waited, float4* unwaited, unsigned n) {
    DYNAMIC_SHARED(float4, copy);
    begin_copy16(copy + threadIdx.x, x + threadIdx.x, threadIdx.x < n);
    unwaited[threadIdx.x] = copy[threadIdx.x];
    wait_for_copies();
    waited[threadIdx.x] = copy[threadIdx.x];
}
"""


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler (or pip install ziglang)")
def test_an_asynchronous_copy_is_there_after_waiting_and_may_be_missing_before() -> None:
    x = np.arange(64 * 4, dtype=np.float32).reshape(64, 4)
    waited, unwaited = np.empty_like(x), np.empty_like(x)
    expected = np.where(np.arange(64)[:, None] < 50, x, 0)
    load_text(COPIES).launch("copies", (1,), (64,), [x[:50].copy(), waited, unwaited, 50], 64 * 16)
    assert np.array_equal(waited, expected)
    there = (unwaited == expected).all(axis=1)
    assert there.any()
    assert np.isnan(unwaited[~there]).all()
    assert not there.all()


ACCESSES = """
extern "C" __global__ void unforgiven(float* x, unsigned kind, unsigned by) {
    DYNAMIC_SHARED(float, room);
    unsigned loaded[4] = {};
    if (kind == 0) *reinterpret_cast<float4*>(x + by) = make_float4(1, 2, 3, 4);
    if (kind == 1) loaded[0] = reinterpret_cast<uint4*>(room + by)->x;
    if (kind == 2) begin_copy16(room, x + by, true);
    if (kind == 3) begin_copy16(room + by, x, false);
    if (kind == 4) load_matrices<true>(loaded, room + by);
    if (kind == 5) loaded[by + 2] = 1;
    wait_for_copies();
    x[threadIdx.x] = loaded[threadIdx.x % 4];
}
"""


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler (or pip install ziglang)")
@pytest.mark.parametrize(
    ("kind", "error"),
    enumerate([*["not aligned"] * 2, *["multiple of 16"] * 3, "beyond its array"]),
)
def test_an_access_that_a_gpu_would_not_forgive_is_an_error(kind: int, error: str) -> None:
    x, kernels = np.zeros(64, np.float32), load_text(ACCESSES)
    kernels.launch("unforgiven", (1,), (32,), [x, kind, 0], 1024)
    with pytest.raises(KernelError, match=error):
        kernels.launch("unforgiven", (1,), (32,), [x, kind, 2], 1024)
    kernels.launch("unforgiven", (1,), (32,), [x, kind, 0], 1024)  # as if nothing had been
