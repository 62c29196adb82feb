"""The k likeliest next tokens, for decoding, and the k largest of any numbers."""

from __future__ import annotations

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import has_shape, is_matrix, shape_of
from autograd.operation import function


@function
def top_k(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    k: int,
    ids: Array | None = None,
    packed: Array | None = None,
) -> tuple[Array, Array]:
    """The k likeliest tokens under softmax(x Wᵀ + b): their log-probabilities and token ids.

    x: [rows, d]; weight: [vocabulary, d]; bias: [vocabulary], -inf for a token that has no
    probability, or [groups, vocabulary], one for as many rows each; k is at most the size of the
    vocabulary. ids: [vocabulary], int64, the ids of the tokens, if they are some of a larger
    vocabulary. packed: what `Backend.pack_for_top_k` has made of the weight, if it has. Both
    results are [rows, k], the likeliest first.
    """
    logits = x @ weight.T  # [rows, vocabulary]
    if bias is not None:
        add_bias(logits, bias)
    return likeliest(logits, k, ids)


def likeliest(logits: Array, k: int, ids: Array | None = None) -> tuple[Array, Array]:
    """The k likeliest tokens under softmax(logits), as `top_k`; logits: [rows, vocabulary]."""
    xp = array_module(logits)
    highest = logits.max(axis=-1, keepdims=True)
    log_sum_exp = highest + xp.log(xp.exp(logits - highest).sum(axis=-1, keepdims=True))
    best = xp.argpartition(logits, logits.shape[1] - k, axis=-1)[:, -k:]
    log_p = xp.take_along_axis(logits, best, axis=-1) - log_sum_exp
    order = xp.argsort(-log_p, axis=-1)
    tokens = xp.take_along_axis(best, order, axis=-1)
    return xp.take_along_axis(log_p, order, axis=-1), tokens if ids is None else ids[tokens]


def add_bias(logits: Array, bias: Array) -> None:
    """Add bias: [vocabulary] or [groups, vocabulary] to logits: [rows, vocabulary], in place."""
    (rows, vocabulary), bias = logits.shape, bias.astype(logits.dtype).reshape(-1, bias.shape[-1])
    grouped = logits.reshape(len(bias), rows // len(bias), vocabulary)  # a view
    grouped += bias[:, None]


@function
def largest(x: Array, *, k: int) -> tuple[Array, Array]:
    """The k largest numbers of each row of x [rows, n], and where they are, largest first.

    Of fewer than k numbers, all. Which of several equal ones are among them is not defined.
    """
    xp, k = array_module(x), min(k, x.shape[1])
    where = xp.sort(xp.argpartition(-x, k - 1, axis=1)[:, :k], axis=1)
    values = xp.take_along_axis(x, where, axis=1)
    order = xp.argsort(-values, axis=1, kind="stable")
    return xp.take_along_axis(values, order, axis=1), xp.take_along_axis(where, order, axis=1)


@largest.checked
def _check_largest(x: Array, *, k: int) -> None:
    is_matrix("largest: x", x, "[rows, n]")
    if k < 1:
        raise ValueError(f"largest: k must be at least 1, got {k}")


@top_k.checked
def _check(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    k: int,
    ids: Array | None = None,
    packed: Array | None = None,
) -> None:
    is_matrix("top_k: x", x, "[rows, d]")
    is_matrix("top_k: weight", weight, "[vocabulary, d]")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"top_k: x {x.shape} and weight {weight.shape} differ in their columns, "
            "[rows, d] and [vocabulary, d]"
        )
    if bias is not None:
        of_bias = shape_of(bias)
        if len(of_bias) not in (1, 2) or of_bias[-1] != weight.shape[0]:
            raise ValueError(
                f"top_k: bias {of_bias} and weight {weight.shape} do not match, [vocabulary] or "
                "[groups, vocabulary] and [vocabulary, d]"
            )
        if len(of_bias) == 2 and (not of_bias[0] or x.shape[0] % of_bias[0]):
            raise ValueError(f"top_k: the groups of bias {of_bias} do not divide x {x.shape}")
    if ids is not None:
        has_shape("top_k: ids", ids, weight.shape[:1], "[vocabulary]")
        if ids.dtype != np.int64:
            raise TypeError(f"top_k: ids must be int64, got {ids.dtype}")
    if not 1 <= k <= weight.shape[0]:
        raise ValueError(
            f"top_k: k must be 1 to the size of the vocabulary, {weight.shape[0]}, got {k}"
        )
