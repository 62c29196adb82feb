"""likeliest_symbols: the logits by cuBLAS, the best of each row by a kernel."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, INT64, blocks, device_of, is_plain
from autograd.cuda.logits import logits_of
from autograd.cuda.products import stride_of
from autograd.ops.large.likeliest import likeliest_symbols

_MOST_THREADS, _MOST_NUMBERS = 512, 96  # numbers of a row that a thread keeps in registers


def _covers(x: Array, weight: Array, **_: Any) -> bool:
    return (
        x.dtype == weight.dtype
        and len(weight) <= _MOST_THREADS * _MOST_NUMBERS
        and is_plain(x)
        and is_plain(weight)
    )


@likeliest_symbols.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_likeliest_symbols(x: Array, weight: Array, *, count: int) -> tuple[Array, Array]:
    rows, vocabulary = len(x), len(weight)
    device, empty = device_of(x), backend_of(x).empty
    logits = logits_of(x, weight)
    threads = min(_MOST_THREADS, 32 * blocks(vocabulary, 8 * 32))
    constants = {"VOCABULARY": vocabulary, "THREADS": threads, "REAL_BYTES": x.itemsize}
    log_p = empty((rows, count), FLOAT32)
    symbols = empty((rows, count), INT64)
    device.launch(
        *("likeliest", constants, "likeliest_symbols", (rows,), threads),
        logits=logits,
        stride=stride_of(logits),
        count=count,
        log_p=log_p,
        symbols=symbols,
    )
    return log_p, symbols
