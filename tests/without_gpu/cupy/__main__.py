"""pytest, with CuPy emulated: python -m tests.without_gpu.cupy ARGUMENTS."""

import sys

import pytest

from tests.without_gpu.cupy import install

# Without numba, what CuPy is compared with is NumPy and the references: compiling for the CPU would
# take most of the time.
sys.modules["numba"] = None  # type: ignore[assignment]
install(execute=True)
sys.exit(pytest.main())
