"""For tests of the GPU's operations: the device that they run on, and their comparison.

float32 must agree within 1e-5 of the norm, bfloat16 within 1e-2. The fixtures of a module choose
its device: those in conftest.py choose the emulator, whose shared memory is filled with NaN, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from autograd import Tape, watching
from autograd.backend import backend
from autograd.operation import Op
from autograd.writers import WithSum
from tests.without_gpu import emulator

ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 on NumPy needs ml_dtypes")

EMULATED = [
    pytest.mark.skipif(
        emulator.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
    ),
    pytest.mark.usefixtures("emulated_gpu", "fresh_arrays_hold_nan"),
]

FLOAT32, BFLOAT16 = np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {FLOAT32: 1e-5, BFLOAT16: 1e-2}

dtypes = st.sampled_from([FLOAT32, BFLOAT16])

BACKEND = "strict"  # emulated kernels here; tests/gpu sets CuPy


@contextmanager
def fresh_arrays(empty: Any) -> Iterator[None]:
    """Let the backend's fresh arrays come from `empty` inside a `with`."""
    device = backend(BACKEND)
    before = device.empty
    object.__setattr__(device, "empty", empty)
    try:
        yield
    finally:
        object.__setattr__(device, "empty", before)


def moved(x: np.ndarray) -> Any:
    """An array on the device."""
    return backend(BACKEND).from_host(x)


def full_of_nan(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """For `fresh_arrays`: numbers that are never written stay NaN."""
    wrong = min(1 << 30, np.iinfo(dtype).max) if dtype.kind in "iu" else np.nan
    return moved(np.full(shape, wrong, dtype))


def strided(x: np.ndarray) -> Any:
    """An array on the device whose numbers are not adjacent."""
    return moved(np.stack([x, x[::-1] + x.dtype.type(1)], axis=-1))[..., 0]


def misaligned(x: np.ndarray) -> Any:
    """A contiguous array on the device, whose address is not aligned."""
    return moved(np.concatenate([x.reshape(-1)[:1], x.reshape(-1)]))[1:].reshape(x.shape)


class Random:
    """Normally distributed numbers in a dtype."""

    def __init__(self, seed: int, dtype: np.dtype) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype

    def __call__(self, *shape: int, dtype: Any = None) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(dtype or self.dtype)

    def integers(self, low: int, high: int, count: int) -> np.ndarray:
        return self.rng.integers(low, high, count).astype(np.int32)


def on_the_device(settings: dict[str, Any]) -> dict[str, Any]:
    return {k: moved(v) if isinstance(v, np.ndarray) else v for k, v in settings.items()}


def check(
    operation: Op,
    arrays: tuple,
    seed: int,
    scale: float = 0.0,
    runs: str = "fast",
    **settings: Any,
) -> None:
    """Run forward and backward, and compare with the reference in float64.

    `runs` says which implementation has to be chosen, the "fast" one or the "reference".
    A gradient's error is measured by its norm and, where it nearly cancels, `scale` times that of
    the gradient that comes in.
    """
    rng = np.random.default_rng(seed)
    tolerance = TOLERANCE[arrays[0].dtype]
    expected, reference_vjp = operation.reference(
        *(x.astype(np.float64) for x in arrays), **settings
    )
    with watching(operation) as calls, Tape():
        value, vjp = operation._run(tuple(map(moved, arrays)), on_the_device(settings))
    assert [call[2] for call in calls[operation]] == [runs]
    several = isinstance(value, tuple)
    outputs, wanted = (value, expected) if several else ((value,), (expected,))
    with_gradient = len(outputs) - operation.auxiliary
    several = with_gradient > 1
    for y, y64 in zip(outputs, wanted, strict=True):
        assert y.dtype == (FLOAT32 if y.ndim == 0 else arrays[0].dtype)
        assert_close(y.get(), y64, tolerance)

    dy = [rng.standard_normal(y.shape).astype(y.dtype) for y in outputs[:with_gradient]]
    size = scale * np.sqrt(sum(np.sum(d.astype(np.float64) ** 2) for d in dy))
    dy64 = [d.astype(np.float64) for d in dy]
    given = tuple(moved(np.asarray(d)) for d in dy)
    results = vjp(given if several else given[0])
    references = reference_vjp(tuple(dy64) if several else dy64[0])
    if len(arrays) == 1:
        results, references = (results,), (references,)
    for x, g, g64 in zip(arrays, results, references, strict=True):
        if isinstance(g, WithSum):
            g, write_sum = g
            total = moved(np.full(g.shape[1:], np.nan, np.float32))
            write_sum(total, False)
            assert_close(total.get(), g64.sum(axis=0), tolerance, size)
        if callable(g):
            out = moved(np.full(x.shape, np.nan, np.float32))
            g(out, False)
            assert_close(out.get(), g64, tolerance, size)
            g(out, True)
            assert_close(out.get(), 2 * g64, tolerance, size)
            out = moved(np.full(x.shape, np.nan, x.dtype))  # where a value is not a Parameter
            g(out, False)
            assert_close(out.get(), g64, tolerance, size)
        else:
            assert g.dtype == x.dtype
            assert_close(g.get(), g64, tolerance, size)


def assert_close(found: np.ndarray, expected: Any, tolerance: float, size: float = 0.0) -> None:
    found, expected = found.astype(np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected)
    assert error <= tolerance * (np.linalg.norm(expected) + size)
