"""int8_top_k: as top_k, with logits that are products in 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu.int8 import in_8_bits, int8_product
from autograd.cpu.loops import block_of, contiguous, parallel_loop
from autograd.cpu.products import NOTHING
from autograd.cpu.top_k import (
    PANEL,
    add_bias,
    grouped,
    keep_best,
    likeliest_of_panels,
    nothing_known,
)
from autograd.int8 import PANEL as COLUMNS
from autograd.int8 import Int8Matrix
from autograd.ops.large.int8 import int8_top_k


@parallel_loop
def _panels(panel, vocabulary, x, w, bias, reached, best, ids, tops, sums):
    """The candidates of one panel of the vocabulary for each row, as in top_k.

    x: the rows' integers and scales; w: the packed weight, its scales and sums (`int8_product`).
    The bias is added afterwards, for it may be another for each row.
    """
    first, last = block_of(panel, vocabulary, PANEL)
    rows, width = len(reached), last - first
    logits = np.empty((rows, width), np.float32)
    columns = (first // COLUMNS, (last + COLUMNS - 1) // COLUMNS)
    no_bias = np.empty(0, np.float32)
    int8_product((logits, 0, width), (0, rows), columns, x, w, no_bias, NOTHING)
    add_bias(logits, bias, first)
    keep_best(logits, panel, first, reached, best, ids, tops, sums)


def _covers(x: np.ndarray, weight: Int8Matrix, bias: np.ndarray | None = None, **_: Any) -> bool:
    return x.ndim == 2 and (bias is None or bias.dtype == x.dtype)


@int8_top_k.on("numpy", covers=_covers)
def fast_int8_top_k(
    x: np.ndarray,
    weight: Int8Matrix,
    bias: np.ndarray | None = None,
    *,
    k: int,
    ids: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    rows, reached = in_8_bits(contiguous(x), weight), nothing_known(len(x))
    added = grouped(bias, weight.d_out)

    def look(panels: int, *candidates: np.ndarray) -> None:
        _panels(panels, weight.d_out, rows, weight.arrays, added, reached, *candidates)

    return likeliest_of_panels(len(x), weight.d_out, k, ids, look)
