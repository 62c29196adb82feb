"""The time that reading a model's weights takes by itself: what one sentence at a time is held to.

A step of a search for one sentence reads all weights of the decoder once. `read_side` reads as many
bytes as often, by the same threads, and does nothing with them but add them up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.int8 import Int8Matrix
from benchmarks.contest import Turn
from npformer import Transformer

_COLUMNS = 256  # of the array that is read
_ROWS = 256  # of a task


def bytes_of_a_step(model: Transformer) -> int:
    """The bytes of the weights that each step of a search reads.

    Those are the decoder's and the projection's to the vocabulary. Cross-attention computes keys
    and values of the source once, before the first step. An embedding that is no projection too is
    not read as a whole.
    """
    return sum(
        _bytes(parameter.value)
        for name, parameter in model.parameters().items()
        if (name.startswith("decoder.") and ".cross_attention.kv." not in name)
        or parameter is model.projection
    )


def _bytes(weight: Any) -> int:
    if isinstance(weight, Int8Matrix):
        return weight.packed.nbytes + weight.scales.nbytes + weight.sums.nbytes
    return weight.nbytes


def read_side(imported: Any, size: int, times: int) -> Turn:
    """Reads `size` bytes `times` times, by all threads of the loops, which write nothing."""
    from autograd.cpu.loops import blocks, parallel_loop
    from autograd.cpu.registers import load, sum_of, zeros

    @parallel_loop
    def read(task, x, sums):
        a = b = c = d = zeros()
        for i in range(task * _ROWS, min((task + 1) * _ROWS, len(x))):
            for j in range(0, x.shape[1], 64):
                a += load(x, i, j)
                b += load(x, i, j + 16)
                c += load(x, i, j + 32)
                d += load(x, i, j + 48)
        sums[task] = sum_of(a + b) + sum_of(c + d)

    x = np.ones((blocks(size, 4 * _COLUMNS), _COLUMNS), np.float32)
    sums = np.empty(blocks(len(x), _ROWS), np.float32)
    imported()

    def turn() -> None:
        for _ in range(times):
            read(len(sums), x, sums)
        assert sums.sum() == x.size

    return turn
