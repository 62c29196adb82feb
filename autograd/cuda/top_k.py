"""top_k: logits by cuBLAS, and a kernel that selects the best of each row; and largest."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, INT64, blocks, contiguous, device_of, is_contiguous
from autograd.cuda.logits import fits_a_block, logits_of, threads_of
from autograd.cuda.product import stride_of
from autograd.ops.large.top_k import largest, top_k


def _covers(x: Array, weight: Array, bias: Array | None = None, **_: Any) -> bool:
    return (
        x.dtype == weight.dtype
        and fits_a_block(len(weight), x.itemsize)
        and is_contiguous(x)
        and is_contiguous(weight)
    )


@top_k.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_top_k(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    k: int,
    ids: Array | None = None,
    packed: None = None,
) -> tuple[Array, Array]:
    return _selected(logits_of(x, weight), k, bias, ids, normalised=True)


_MOST_CHOSEN = 256  # of a row; with more, the kernel would choose one after the other


def _covers_largest(x: Array, *, k: int) -> bool:
    return 0 < min(k, x.shape[1]) <= _MOST_CHOSEN and fits_a_block(x.shape[1], x.itemsize)


@largest.on("cupy", covers=_covers_largest)
def fast_largest(x: Array, *, k: int) -> tuple[Array, Array]:
    rows, n = x.shape
    if n % 8 or not is_contiguous(x):
        padded = backend_of(x).empty((rows, 8 * blocks(n, 8)), x.dtype)[:, :n]
        padded[...] = x
        x = padded
    return _selected(x, min(k, n))


def _selected(
    logits: Array,
    k: int,
    bias: Array | None = None,
    names: Array | None = None,
    normalised: bool = False,
) -> tuple[Array, Array]:
    """The k best of each row, and where they are; `normalised` to log-probabilities.

    names: [vocabulary], what is returned in place of where they are.
    """
    (rows, vocabulary), empty = logits.shape, backend_of(logits).empty
    threads = threads_of(vocabulary, logits.itemsize)
    constants = {"VOCABULARY": vocabulary, "THREADS": threads, "REAL_BYTES": logits.itemsize}
    constants |= {"BIASED": int(bias is not None), "NORMALISED": int(normalised)}
    constants |= {"NAMED": int(names is not None)}
    values, ids = empty((rows, k), FLOAT32), empty((rows, k), INT64)
    device_of(logits).launch(
        *("top_k", constants, "top_k", (rows,), threads),
        logits=logits,
        bias=None if bias is None else contiguous(bias.astype(FLOAT32, copy=False)),
        rows_per_bias=rows if bias is None or bias.ndim == 1 else rows // len(bias),
        names=None if names is None else contiguous(names),
        stride=stride_of(logits),
        k=k,
        log_p=values,
        ids=ids,
    )
    return values, ids
