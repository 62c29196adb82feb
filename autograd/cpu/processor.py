"""What the processor can do that compiled loops are made for."""

from __future__ import annotations

import os
from functools import cache

import llvmlite.binding


@cache
def features() -> dict[str, bool]:
    """The features that numba compiles for: the processor's, or those of NUMBA_CPU_FEATURES."""
    forced = os.environ.get("NUMBA_CPU_FEATURES")
    if forced is None:
        return dict(llvmlite.binding.get_host_cpu_features())
    return {name[1:]: name[0] == "+" for name in forced.split(",") if name}


def has(feature: str) -> bool:
    """Whether loops may use a feature of the processor, by LLVM's name for it ("avx512f")."""
    return features().get(feature, False)
