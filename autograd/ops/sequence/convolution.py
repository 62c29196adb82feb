"""The convolutional layers of Table 1 over packed sentences, which end in zeros on both sides."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import has_shape, is_matrix, shape_of
from autograd.operation import Vjp, op
from autograd.ops.large.affine import linear
from autograd.sentences import Sentences, are_sentences
from autograd.tensor import Tensor


@op
def convolution(
    x: Array, weight: Array, bias: Array, *, sentences: Sentences, dilation: int = 1
) -> tuple[Array, Vjp]:
    """y_t = Σ_j x_{t + o_j} W_j + b over k neighbours, which are `dilation` positions apart.

    x: [tokens, d_in]; weight, W: [k, d_in, d_out]; bias: [d_out]. The neighbours are centred on t;
    of an even k, one more is behind it than ahead. Beyond the ends of a sentence x is 0. Returns
    [tokens, d_out].
    """
    xp = array_module(x)
    taps = _taps(xp, sentences, len(weight), dilation)
    y = xp.zeros((len(x), weight.shape[2]), x.dtype)
    y += bias
    for j, (rows, neighbours) in enumerate(taps):
        y[rows] += x[neighbours] @ weight[j]

    def vjp(dy: Array) -> tuple[Array, Array, Array]:
        dx, dweight = xp.zeros_like(x), xp.zeros_like(weight)
        for j, (rows, neighbours) in enumerate(taps):
            dx[neighbours] += dy[rows] @ weight[j].T
            dweight[j] = x[neighbours].T @ dy[rows]
        return dx, dweight, dy.sum(axis=0)

    return y, vjp


@op
def depthwise_convolution(
    x: Array, weight: Array, *, sentences: Sentences, dilation: int = 1
) -> tuple[Array, Vjp]:
    """y_t = Σ_j x_{t + o_j} ⊙ w_j: a `convolution` of each column by itself.

    x: [tokens, d]; weight: [k, d]. Returns [tokens, d].
    """
    xp = array_module(x)
    taps = _taps(xp, sentences, len(weight), dilation)
    y = xp.zeros_like(x)
    for j, (rows, neighbours) in enumerate(taps):
        y[rows] += x[neighbours] * weight[j]

    def vjp(dy: Array) -> tuple[Array, Array]:
        dx, dweight = xp.zeros_like(x), xp.zeros_like(weight)
        for j, (rows, neighbours) in enumerate(taps):
            dx[neighbours] += dy[rows] * weight[j]
            dweight[j] = (x[neighbours] * dy[rows]).sum(axis=0)
        return dx, dweight

    return y, vjp


def separable_convolution(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    bias: Tensor,
    *,
    sentences: Sentences,
    dilation: int = 1,
) -> Tensor:
    """A `depthwise_convolution`, and a linear map of each token (Chollet, "Xception", 2016).

    x: [tokens, d_in]; depthwise: [k, d_in]; pointwise: [d_in, d_out]; bias: [d_out]. Returns
    [tokens, d_out].
    """
    y = depthwise_convolution(x, depthwise, sentences=sentences, dilation=dilation)
    return linear(y, pointwise, bias)


def _taps(xp: Any, sentences: Sentences, k: int, dilation: int) -> list[tuple[Array, Array]]:
    """For each of k neighbours, the rows that have it in their sentence, and its rows."""

    def make() -> list[tuple[Array, Array]]:
        positions = np.arange(sentences.rows) - np.repeat(sentences.offsets[:-1], sentences.lengths)
        lengths = np.repeat(sentences.lengths, sentences.lengths)
        taps = []
        for offset in (np.arange(k) - k // 2) * dilation:
            rows = np.flatnonzero((positions + offset >= 0) & (positions + offset < lengths))
            taps.append((xp.asarray(rows), xp.asarray(rows + offset)))
        return taps

    return sentences.cached(("taps", xp.__name__, k, dilation), make)


@convolution.checked
def _check(
    x: Array, weight: Array, bias: Array, *, sentences: Sentences, dilation: int = 1
) -> None:
    shape = shape_of(weight)
    if len(shape) != 3 or not shape[0]:
        raise ValueError(f"convolution: weight must be [k, d_in, d_out], got shape {shape}")
    _check_input("convolution", x, shape[1], sentences, dilation)
    has_shape("convolution: bias", bias, shape[2:], "[d_out]")


@depthwise_convolution.checked
def _check_depthwise(x: Array, weight: Array, *, sentences: Sentences, dilation: int = 1) -> None:
    shape = shape_of(weight)
    if len(shape) != 2 or not shape[0]:
        raise ValueError(f"depthwise_convolution: weight must be [k, d], got shape {shape}")
    _check_input("depthwise_convolution", x, shape[1], sentences, dilation)


def _check_input(name: str, x: Array, columns: int, sentences: Sentences, dilation: int) -> None:
    is_matrix(f"{name}: x", x, "[tokens, d_in]")
    if x.shape[1] != columns:
        raise ValueError(f"{name}: x has {x.shape[1]} columns, and weight is for {columns}")
    are_sentences(f"{name}: sentences", sentences, len(x))
    if index(dilation) < 1:
        raise ValueError(f"{name}: dilation must be 1 or more, got {dilation}")
