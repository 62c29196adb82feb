"""Kernels are built by the machine's compiler, or by that of a package."""

import sys

import numpy as np
import pytest

from tests.without_gpu import build, emulator

REVERSED = """
extern "C" __global__ void reversed(float* x, int n) {
    __shared__ float all[32];
    all[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = all[n - 1 - threadIdx.x];
}
"""


@pytest.mark.campaign  # it takes five seconds
def test_ziglang_builds_kernels_if_the_machine_has_no_compiler(monkeypatch):
    pytest.importorskip("ziglang", reason="needs ziglang")
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    for module, name in ((build, "identity"), (emulator, "_header"), (emulator, "load_text")):
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)  # without their caches
    assert build.compiler() == [sys.executable, "-m", "ziglang", "c++"]
    kernels, x = emulator.load_text(REVERSED), np.arange(32, dtype=np.float32)
    kernels.launch("reversed", (1,), (32,), [x, 32])
    np.testing.assert_array_equal(x, np.arange(32)[::-1])
