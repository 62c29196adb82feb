"""Dropout, layer normalisation, and both with the residual connection in one operation."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import is_matrix, shape_of
from autograd.dropout import DropoutSite, is_site
from autograd.operation import Vjp, op

EPSILON = 1e-6  # tensor2tensor's; the paper does not say


@op
def dropout(x: Array, *, site: DropoutSite | None) -> tuple[Array, Vjp]:
    """Drop elements at random, and scale up the others (Srivastava et al., 2014).

    x: [rows, columns]. Without a site, x of any shape is returned unchanged.
    """
    if site is None:
        return x, lambda dy: dy
    scale = site.keep_matrix(array_module(x), *x.shape).astype(x.dtype) * site.scale

    def vjp(dy: Array) -> Array:
        dy *= scale
        return dy

    return x * scale, vjp


@dropout.checked
def _check_dropout(x: Array, *, site: DropoutSite | None) -> None:
    is_site("dropout: site", site)
    if site is not None:
        is_matrix("dropout: x", x, "[rows, columns]")


@op
def layer_norm(
    x: Array, gain: Array, bias: Array, *, epsilon: float = EPSILON
) -> tuple[Array, Vjp]:
    """(x - mean) / √(variance + ε) · gain + bias over the last axis (Ba et al., 2016).

    x: [..., d], usually [tokens, d]; gain and bias: [d].
    """
    xp = array_module(x)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    inverse = 1 / xp.sqrt(variance + epsilon)  # [tokens, 1]
    normed = centred * inverse

    def vjp(dy: Array) -> tuple[Array, Array, Array]:
        tokens = tuple(range(normed.ndim - 1))  # axes
        dgain, dbias = (dy * normed).sum(axis=tokens), dy.sum(axis=tokens)
        # Normalising removes mean and scale, so the gradient has no component along either.
        dnormed = dy * gain
        projection = (dnormed * normed).mean(axis=-1, keepdims=True)
        dx = (dnormed - dnormed.mean(axis=-1, keepdims=True) - normed * projection) * inverse
        return dx, dgain, dbias

    return normed * gain + bias, vjp


@layer_norm.checked
def _check_layer_norm(x: Array, gain: Array, bias: Array, **_: Any) -> None:
    _check_columns("layer_norm", shape_of(x), gain, bias)


def _check_columns(name: str, shape: tuple[int, ...], gain: Array, bias: Array) -> None:
    columns = shape[-1:]
    if columns == () or columns == (0,):
        raise ValueError(f"{name}: the rows of x must have at least one column, got shape {shape}")
    if shape_of(gain) == columns == shape_of(bias):
        return
    for argument, x in (("gain", gain), ("bias", bias)):
        if shape_of(x) not in ((), (1,), columns):
            raise ValueError(f"{name}: {argument} {shape_of(x)} and x {shape} differ in columns")


@op
def add_dropout_norm(
    x: Array,
    residual: Array,
    gain: Array,
    bias: Array,
    *,
    site: DropoutSite | None = None,
    epsilon: float = EPSILON,
) -> tuple[Array, Vjp]:
    """LayerNorm(residual + Dropout(x)), applied to every sub-layer (sections 3.1 and 5.4).

    x and residual: [tokens, d]; gain and bias: [d].
    """
    dropped, dropout_vjp = dropout.reference(x, site=site)
    y, norm_vjp = layer_norm.reference(dropped + residual, gain, bias, epsilon=epsilon)

    def vjp(dy: Array) -> tuple[Array, Array, Array, Array]:
        dsum, dgain, dbias = norm_vjp(dy)
        return dropout_vjp(dsum.copy()), dsum, dgain, dbias

    return y, vjp


@add_dropout_norm.checked
def _check(
    x: Array,
    residual: Array,
    gain: Array,
    bias: Array,
    *,
    site: DropoutSite | None = None,
    **_: Any,
) -> None:
    is_site("add_dropout_norm: site", site)
    if site is not None:
        is_matrix("add_dropout_norm: x", x, "[tokens, d]")
    shape = shape_of(x)
    if shape != shape_of(residual):
        try:
            shape = np.broadcast_shapes(shape, shape_of(residual))
        except ValueError:
            raise ValueError(
                f"add_dropout_norm: x {shape} and residual {shape_of(residual)} do not broadcast"
            ) from None
    _check_columns("add_dropout_norm", shape, gain, bias)
