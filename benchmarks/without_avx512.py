"""Measuring with AVX2 alone on a processor that has AVX-512.

    parser.add_argument("--without-avx512", action=WithoutAVX512)

Libraries choose their instructions when they are loaded, each by a setting of its own. The flag
gives all of them to the processes that are started after it, so to all sides of a contest.

That they heed it is what benchmarks/instructions.py measures. The C library, which copies memory
with AVX-512 where it can, is left alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any

from train.machine import machine

SETTINGS = {
    # numba, and our loops (autograd/cpu/processor.py): all that an AVX2 processor has, not only
    # what numba would use.
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx,+avx2,+fma,+f16c,+bmi,"
    "+bmi2,+lzcnt,+movbe,+xsave,+fxsr",
    # NumPy's own loops, and its OpenBLAS. Names that a NumPy does not know have no effect.
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
    # CTranslate2, whose products are MKL's, and PyTorch, whose products are MKL's and oneDNN's. The
    # code that PyTorch writes is compiled for all that the processor has, if nothing else is said.
    "CT2_FORCE_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "TORCHINDUCTOR_CPP_MARCH": "haswell",
    # JAX. Its YNNPACK, which takes most products, knows no setting; without it they are oneDNN's.
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type=",
}


class WithoutAVX512(argparse.Action):
    """A flag that keeps the processes that are started from now on from using AVX-512."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        about = "as on a processor that has AVX2 alone; bfloat16 is left out in PyTorch"
        super().__init__(option_strings, dest, nargs=0, default=False, help=about)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if machine().get("vectors") != "AVX-512":
            parser.error(f"{option_string}: this processor has no AVX-512; leave the flag out")
        os.environ.update(SETTINGS)
        setattr(namespace, self.dest, True)


def limits(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a result says of its machine in place of what the processor could do."""
    limited = SETTINGS.items() <= environment.items()
    return {"vectors": "AVX2", "without": "AVX-512"} if limited else {}
