"""What the tests of compiled loops have in common."""

import ctypes
import platform

import pytest


@pytest.fixture(scope="module")
def fresh_memory_is_full_of_garbage():
    """-1.7e38 as float32, where the C library is glibc: nothing may rely on zeros."""
    glibc = platform.libc_ver()[0] == "glibc"
    perturb = -6  # M_PERTURB of <malloc.h>: bytes are filled with the complement of 1
    if glibc:
        ctypes.CDLL(None).mallopt(perturb, 1)
    yield
    if glibc:
        ctypes.CDLL(None).mallopt(perturb, 0)
