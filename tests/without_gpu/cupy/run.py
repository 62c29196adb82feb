"""A module, run as `python -m` runs it, with CuPy emulated.

python -m tests.without_gpu.cupy.run MODULE ARGUMENTS
"""

import runpy
import sys

from tests.without_gpu.cupy import install

sys.modules["numba"] = None  # type: ignore[assignment]  # nothing has to be fast on the CPU
install(execute=True)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
