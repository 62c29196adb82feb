"""top_k: logits by cuBLAS, and a kernel that selects the best of each row."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, INT64, contiguous, device_of, is_contiguous
from autograd.cuda.logits import fits_a_block, logits_of, threads_of
from autograd.cuda.products import stride_of
from autograd.ops.large.top_k import top_k


def _covers(x: Array, weight: Array, bias: Array | None = None, **_: Any) -> bool:
    return (
        x.dtype == weight.dtype
        and fits_a_block(len(weight), x.itemsize)
        and is_contiguous(x)
        and is_contiguous(weight)
    )


@top_k.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_top_k(
    x: Array, weight: Array, bias: Array | None = None, *, k: int
) -> tuple[Array, Array]:
    rows, vocabulary = len(x), len(weight)
    device, empty = device_of(x), backend_of(x).empty
    logits = logits_of(x, weight)
    threads = threads_of(vocabulary, x.itemsize)
    constants = {"VOCABULARY": vocabulary, "THREADS": threads, "REAL_BYTES": x.itemsize}
    constants["BIASED"] = int(bias is not None)
    log_p = empty((rows, k), FLOAT32)
    ids = empty((rows, k), INT64)
    device.launch(
        *("top_k", constants, "top_k", (rows,), threads),
        logits=logits,
        bias=None if bias is None else contiguous(bias.astype(FLOAT32, copy=False)),
        stride=stride_of(logits),
        k=k,
        log_p=log_p,
        ids=ids,
    )
    return log_p, ids
