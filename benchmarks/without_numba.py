"""A plugin of pytest that leaves numba out: what is fast on the CPU runs its reference.

As a plugin, given by `-p`, it is imported in every process of pytest-xdist.
"""

import sys

sys.modules["numba"] = None  # type: ignore[assignment]
