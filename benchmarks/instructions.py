"""A product in each library with all the processor's instructions and with AVX2 alone.

    python -m benchmarks.instructions [--rounds 10]

A library whose times are alike would not heed benchmarks/without_avx512.py. Each multiplies two
square float32 matrices; CTranslate2, which offers no product, translates with the tiny model. Sides
take turns, each in its own process, and the processor's time of one thread counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
from typing import Any

import numpy as np

from benchmarks.contest import Side, Turn, ratio, take_turns
from benchmarks.markdown import head, line
from benchmarks.report import positive
from benchmarks.translation import ctranslate2_side, timed_by_the_processor
from benchmarks.without_avx512 import SETTINGS

SIZE = 1024


def matrix() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32)


def numpy_side(imported: Any) -> Turn:
    x, out = matrix(), np.empty((SIZE, SIZE), np.float32)
    imported()

    def turn() -> None:
        np.matmul(x, x, out=out)

    return turn


def our_side(imported: Any) -> Turn:
    from autograd import ops

    x, bias = matrix(), np.zeros(SIZE, np.float32)
    linear = ops.linear.implementation(x)
    imported()

    def turn() -> None:
        linear(x, x, bias)

    return turn


def torch_side(imported: Any) -> Turn:
    import torch

    x = torch.from_numpy(matrix())
    imported()

    def turn() -> None:
        torch.matmul(x, x)

    return turn


def jax_side(imported: Any) -> Turn:
    import jax

    x, multiply = jax.numpy.asarray(matrix()), jax.jit(lambda x: x @ x)
    imported()

    def turn() -> None:
        multiply(x).block_until_ready()

    return turn


LIBRARIES: dict[str, tuple[Any, ...]] = {
    "numpy": (numpy_side,),
    "npformer": (our_side,),
    "torch": (torch_side,),
    "jax": (jax_side,),
    "ctranslate2": (ctranslate2_side, "tiny", 1, 64, "float32", 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=positive, default=10, help="turns of each side")
    options = parser.parse_args()
    for name in "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS":
        os.environ[name] = "1"

    installed = {
        name: made
        for name, made in LIBRARIES.items()
        if name == "npformer" or importlib.util.find_spec(name)
    }
    sides = {name: Side(timed_by_the_processor, *made) for name, made in installed.items()}
    os.environ.update(SETTINGS)
    for name, made in installed.items():
        sides[f"{name}, AVX2"] = Side(timed_by_the_processor, *made)
    seconds = take_turns(sides, options.rounds, warmup=2)
    table = head(["library", "all instructions, ms", "AVX2 alone, ms", "ratio"])
    for name in installed:
        both = seconds[name], seconds[f"{name}, AVX2"]
        times = [f"{1000 * statistics.median(of):.1f}" for of in both]
        table.append(line([name, *times, f"{ratio(*both)['median']:.2f}"]))
    print("\n".join(table))


if __name__ == "__main__":
    main()
