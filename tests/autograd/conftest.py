"""Fixtures for tests of fast implementations: garbage in fresh memory, and the emulator."""

import ctypes
import platform

import pytest

from tests.without_gpu import emulator


@pytest.fixture(scope="module")
def fresh_memory_is_full_of_garbage():
    """Fill fresh memory with -1.7e38 as float32 (with glibc only): nothing may rely on zeros."""
    glibc = platform.libc_ver()[0] == "glibc"
    perturb = -6  # M_PERTURB of <malloc.h>: bytes are filled with the complement of 1
    if glibc:
        ctypes.CDLL(None).mallopt(perturb, 1)
    yield
    if glibc:
        ctypes.CDLL(None).mallopt(perturb, 0)


@pytest.fixture(scope="module")
def emulated_gpu():
    """Run the GPU's operations on strict arrays, with emulated kernels."""
    with emulator.on_strict_arrays():
        yield


@pytest.fixture
def fresh_arrays_hold_nan():
    from tests.autograd.on_device import fresh_arrays, full_of_nan

    with fresh_arrays(full_of_nan):
        yield
