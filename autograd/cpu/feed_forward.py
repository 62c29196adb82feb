"""feed_forward: two linear maps, of which the first has the ReLU in its loops.

Other activations have a loop of their own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.cpu.activations import fast_gelu, fast_swish
from autograd.cpu.linear import covers_linear, fast_linear
from autograd.cpu.norm import fast_dropout
from autograd.dropout import DropoutSite
from autograd.operation import Vjp
from autograd.ops.large.feed_forward import feed_forward

_ACTIVATIONS = {"gelu": fast_gelu, "swish": fast_swish}


def _covers(x: np.ndarray, w1: Any, b1: Any, w2: Any, b2: Any = None, **_: Any) -> bool:
    return covers_linear(x, w1, b1) and covers_linear(x, w2, b2)


@feed_forward.on("numpy", covers=_covers)
def fast_feed_forward(
    x: np.ndarray,
    w1: np.ndarray,
    b1: np.ndarray,
    w2: np.ndarray,
    b2: np.ndarray | None = None,
    *,
    activation: str = "relu",
    site: DropoutSite | None = None,
) -> tuple[np.ndarray, Vjp]:
    h, inner_vjp = fast_linear(x, w1, b1, relu=activation == "relu")
    activation_vjp: Vjp | None = None
    if activation != "relu":
        h, activation_vjp = _ACTIVATIONS[activation](h)
    h, dropout_vjp = fast_dropout(h, site=site)
    y, outer_vjp = fast_linear(h, w2, b2)

    def vjp(dy: np.ndarray) -> Any:
        dh, *of_outer = outer_vjp(dy)
        dh = dropout_vjp(dh)
        if activation_vjp is not None:
            dh = activation_vjp(dh)
        return *inner_vjp(dh), *of_outer

    return y, vjp
