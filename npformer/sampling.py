"""Drawing the next token at random, by its probability."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module
from autograd.dropout import philox

_LOW = 0xFFFFFFFF
_LOWEST = np.finfo(np.float64).min


def drawn(log_p: Array, uniform: Array, *, temperature: float = 1.0, top_p: float = 1.0) -> Array:
    """[rows]: the index of a token drawn for each row.

    log_p: [rows, n], log-probabilities, largest first. uniform: [rows], random numbers in [0, 1).
    Probabilities are taken to the power of 1 / temperature. Then only the likeliest tokens count
    that together have at least the share `top_p` of what there is (nucleus sampling; Holtzman et
    al., 2020).
    """
    xp = array_module(log_p)
    likeliest = xp.maximum(log_p[:, :1].astype(np.float64), _LOWEST)  # -inf - -inf would be NaN
    p = xp.exp((log_p - likeliest) / temperature)
    sums = xp.cumsum(p, axis=1)
    is_kept = sums - p < top_p * sums[:, -1:]
    goal = uniform[:, None] * xp.where(is_kept, p, 0.0).sum(axis=1, keepdims=True)
    # Rounding may bring the goal to the last sum; no token after the last that is kept is drawn.
    return xp.minimum((sums <= goal).sum(axis=1), is_kept.sum(axis=1) - 1)


def uniforms(xp: Any, seed: int, streams: Array, samples: Array, steps: Array) -> Array:
    """Random numbers in [0, 1) with 53 bits, that depend on nothing but the arguments.

    streams, samples, steps: integer arrays that broadcast, which text is translated, which of its
    translations this is, and its tokens so far. They are counters of Philox, whose key is the seed.
    """
    numbers = streams, samples, steps
    streams, samples, steps = (xp.asarray(x).astype(np.uint64) for x in numbers)
    counter = streams & _LOW, streams >> 32, samples, steps
    high, low, *_ = philox(counter, (seed & _LOW, (seed >> 32) & _LOW))
    return ((high >> 5) * 2.0**26 + (low >> 6)) * 2.0**-53
