"""projected_cross_entropy: the gradient overwrites the logits in the forward pass."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, backend_of
from autograd.cuda.device import FLOAT32, as_indices, device_of, is_contiguous
from autograd.cuda.linear import product_writer
from autograd.cuda.logits import fits_a_block, logits_of, threads_of
from autograd.cuda.product import Product, stride_of
from autograd.operation import Vjp
from autograd.ops.large.cross_entropy import projected_cross_entropy, smoothed_target
from autograd.tape import running_tape


def _covers(x: Array, weight: Array, **_: Any) -> bool:
    return (
        x.dtype == weight.dtype
        and x.size > 0
        and fits_a_block(len(weight), x.itemsize)
        and is_contiguous(x)
        and is_contiguous(weight)
    )


@projected_cross_entropy.on("cupy", "float32", "bfloat16", covers=_covers)
def fast_projected_cross_entropy(
    x: Array,
    weight: Array,
    *,
    targets: Array,
    smoothing: float = 0.0,
    smoothing_over: str = "vocabulary",
) -> tuple[tuple[Any, Any], Vjp]:
    device, empty = device_of(x), backend_of(x).empty
    tokens, vocabulary = len(x), len(weight)
    targets = as_indices(targets)
    a, b = smoothed_target(smoothing, vocabulary, smoothing_over)
    recorded = running_tape() is not None
    logits = logits_of(x, weight)
    losses = empty((tokens, 2), FLOAT32)
    threads = threads_of(vocabulary, x.itemsize)
    constants = {"VOCABULARY": vocabulary, "THREADS": threads, "REAL_BYTES": x.itemsize}
    device.launch(
        *("cross_entropy", constants, "cross_entropy", (tokens,), threads),
        logits=logits,
        stride=stride_of(logits),
        targets=targets,
        a=a,
        b=b,
        gradient=int(recorded),
        losses=losses,
    )

    def vjp(dloss: Any) -> tuple[Array, Any]:
        if not recorded:
            raise RuntimeError("no tape was running: the gradient of the logits was not kept")
        # The logits have been overwritten by p - q.
        dx = empty(x.shape, x.dtype)
        device.multiply(Product(dx, logits, weight, scale=dloss))
        return dx, product_writer(logits, x, dloss, a_transposed=True)

    loss, nll = losses.sum(axis=0)
    return (loss, nll), vjp
