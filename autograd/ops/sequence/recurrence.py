"""The recurrent layer of Table 1, the plain network of Elman ("Finding structure in time", 1990).

A step is an operation of its own, so that the tape shows what makes recurrence slow: each step
needs the result of the one before.
"""

from __future__ import annotations

import numpy as np

from autograd.backend import Array, array_module, backend_of
from autograd.checks import is_matrix, shape_of
from autograd.operation import Vjp, op
from autograd.ops.arithmetic import tanh
from autograd.ops.large.affine import linear
from autograd.ops.shape import concatenate, split, take
from autograd.sentences import Sentences, are_sentences
from autograd.tensor import Tensor


@op
def recurrent_step(h: Array, x: Array, weight: Array) -> tuple[Array, Vjp]:
    """tanh(x + hU) for the first n states h, those of sequences that go on.

    h: [n or more, d]; x: [n, d]; weight, U: [d, d]. Returns [n, d].
    """
    xp, n = array_module(h), len(x)
    y = xp.tanh(x + h[:n] @ weight)

    def vjp(dy: Array) -> tuple[Array, Array, Array]:
        dx = dy * (1 - y * y)
        dh = xp.zeros_like(h)
        dh[:n] = dx @ weight.T
        return dh, dx, h[:n].T @ dx

    return y, vjp


@recurrent_step.checked
def _check(h: Array, x: Array, weight: Array) -> None:
    is_matrix("recurrent_step: h", h, "[n or more, d]")
    (rows, d), of_x = shape_of(h), shape_of(x)
    if len(of_x) != 2 or of_x[0] > rows or of_x[1] != d or shape_of(weight) != (d, d):
        raise ValueError(
            f"recurrent_step: h {(rows, d)}, x {of_x} and weight {shape_of(weight)} do not match, "
            "[n or more, d], [n, d] and [d, d]"
        )


def recurrence(
    x: Tensor, weight: Tensor, recurrent_weight: Tensor, bias: Tensor, *, sentences: Sentences
) -> Tensor:
    """h_t = tanh(x_t W + h_{t-1} U + b) with h_0 = 0, in each sentence: a `recurrent_step` a token.

    x: [tokens, d_in]; weight, W: [d_in, d]; recurrent_weight, U: [d, d]; bias: [d]. Returns all
    states, [tokens, d].
    """
    are_sentences("recurrence: sentences", sentences, len(x))
    read = linear(x, weight, bias)
    if sentences.longest < 2:
        return tanh(read)
    # All first tokens come first, those of longer sentences before others, then all second ones:
    # the sentences that go on are the first ones of the last step.
    positions = np.arange(sentences.rows) - np.repeat(sentences.offsets[:-1], sentences.lengths)
    order = np.lexsort((np.repeat(-sentences.lengths, sentences.lengths), positions))
    ends = np.cumsum(np.bincount(positions))
    first, *others = split(_rows(read, order), sections=ends[:-1].tolist())
    states = [tanh(first)]
    for of_step in others:
        states.append(recurrent_step(states[-1], of_step, recurrent_weight))
    return _rows(concatenate(*states), np.argsort(order))


def _rows(x: Tensor, rows: np.ndarray) -> Tensor:
    """x[rows], which is x where they are in order, as those of a single sentence."""
    if (rows == np.arange(len(rows))).all():
        return x
    return take(x, index=backend_of(x.value).asarray(rows))
