"""Opening CuPy: one clear error for anything that is missing or too old."""

import functools
import sys

import pytest

from autograd import BackendError, backend, use
from autograd.cuda import memory
from tests.without_gpu.faulty_cupy import FaultyCuPy, Libraries


def test_a_missing_cupy_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backend._by_name, "cupy", raising=False)
    with pytest.raises(BackendError, match=r"'cupy' needs CuPy .*: pip install") as caught:
        use("cupy")
    assert "\n" not in str(caught.value)
    assert backend.current().name == "numpy"


@pytest.fixture
def _no_cupy_yet(monkeypatch):
    monkeypatch.setattr(backend, "_by_name", dict(backend._by_name))
    monkeypatch.setattr(backend, "_by_kind", dict(backend._by_kind))
    backend._by_name.pop("cupy", None)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", Libraries("libs"))
    # An arena made of a stand-in is of no use to other tests.
    monkeypatch.setattr(memory, "arena", functools.cache(memory.Arena))


@pytest.mark.usefixtures("_no_cupy_yet")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("driver", r"no usable GPU \(cudaErrorInsufficientDriver: too old\).*nvidia-smi"),
        ("cublas", r"no cuBLAS .*pip install 'npformer\[cuda13\]'"),
        ("old", r"compute capability 8.0 \(Ampere\) or newer; this one has 7.5"),
        ("memory", r"cannot use the GPU's memory \(Out of memory.*CUDA_VISIBLE_DEVICES"),
        ("cublas's memory", r"cannot start cuBLAS \(CUBLAS_STATUS_ALLOC_FAILED\).* lacks memory"),
        ("compiler", r"cannot build kernels \(CuPy failed to load libnvrtc.*file\): pip install"),
        ("headers", r"cannot build kernels \(cannot open source file 'cuda_fp16.h'\): pip"),
    ],
)
def test_an_unusable_cupy_is_one_clear_error(monkeypatch, fault, message):
    monkeypatch.setitem(sys.modules, "cupy", FaultyCuPy(fault, "75" if fault == "old" else "90"))
    if fault == "cublas":
        monkeypatch.setattr(Libraries, "there", False)
    with pytest.raises(BackendError, match=message) as caught:
        backend.backend("cupy")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_no_cupy_yet")
@pytest.mark.parametrize("capability", ["80", "90", "120"])
def test_gpus_since_ampere_are_supported(monkeypatch, capability):
    monkeypatch.setitem(sys.modules, "cupy", FaultyCuPy(capability=capability))
    assert backend.backend("cupy").name == "cupy"
