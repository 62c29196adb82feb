"""pytest, with CuPy emulated: python -m tests.without_gpu.cupy ARGUMENTS."""

import sys

import pytest

from tests.without_gpu.cupy import install

# Without numba, CuPy is compared with NumPy's references: compiling for the CPU would take most of
# the time.
sys.modules["numba"] = None  # type: ignore[assignment]
install(execute=True)
sys.exit(pytest.main())
