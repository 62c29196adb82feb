"""The worked examples of docs/gradients.md, a function each, small enough for paper and pencil.

Each computes with the operations of autograd, in float64, and returns its numbers by name, in the
order of printing. Where `dy` is the gradient of an output, `dx` is what an input x gets of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd import DropoutSite, Sentences, Tape, Tensor, ops

Numbers = dict[str, np.ndarray]


def _gradients(f: Callable[..., Any], dy: Any, **inputs: Any) -> Numbers:
    """Inputs, y = f(inputs), the given gradient dy of y, and the inputs' gradients."""
    leaves = {name: Tensor(np.array(values, np.float64)) for name, values in inputs.items()}
    given = np.array(dy, np.float64)
    with Tape() as tape:
        y = f(*leaves.values())
        loss = (y * given).sum()  # whose gradient with respect to y is dy
    gradients = tape.backward(loss, wanted=list(leaves.values()))
    return {
        **{name: leaf.numpy() for name, leaf in leaves.items()},
        "y": y.numpy(),
        "dy": given,
        **{f"d{name}": g for name, g in zip(leaves, gradients, strict=True)},
    }


def _insert(numbers: Numbers, before: str, **more: Any) -> Numbers:
    """The numbers with more of them, printed before one of the others."""
    place = list(numbers).index(before)
    items = list(numbers.items())
    return dict([*items[:place], *more.items(), *items[place:]])


def matrix_product() -> Numbers:
    x = [[1, 2], [3, 4]]
    w = [[1, -1], [0, 2]]
    b = [1, 0]
    return _gradients(ops.linear, [[1, 0], [2, -1]], x=x, w=w, b=b)


def softmax() -> Numbers:
    """The logarithms of 1, 2 and 7, whose softmax is 0.1, 0.2 and 0.7."""
    return _gradients(ops.softmax, [[1, 0, 0]], x=np.log([[1, 2, 7]]))


def layer_norm() -> Numbers:
    """A row of mean 2 and variance 1, and one of mean 2 and variance 4."""
    x = [[1, 3, 1, 3], [0, 0, 4, 4]]
    return _gradients(
        lambda x, gain, bias: ops.layer_norm(x, gain, bias, epsilon=0.0),
        [[1, 0, 0, 0], [0, 2, 0, -1]],
        x=x,
        gain=[2, 1, 1, 2],
        bias=[0, 0, 1, 1],
    )


def attention() -> Numbers:
    """Two queries, two keys, d_k = 4, d_v = 2, and the weights p that they come to."""
    q = [[1, 0, 0, 1], [0, 0, 2, 0]]
    k = [[1, 1, 0, 1], [0, 0, 1, 0]]
    numbers = _gradients(ops.scaled_dot_product, [[1, 0], [0, 1]], q=q, k=k, v=[[1, 2], [3, 0]])
    return _insert(numbers, "y", p=ops.softmax(numbers["q"] @ numbers["k"].T / 2))


def cross_entropy() -> Numbers:
    """One token, three words to choose from, of which the second is right; ε = 0.3."""

    def loss(x: Tensor, e: Tensor) -> Any:
        targets = np.array([1])
        return ops.projected_cross_entropy(x, e, targets=targets, smoothing=0.3)[0]

    e = np.stack([np.log([1, 2, 7]), [1, 0, -1]], axis=1)
    numbers = _gradients(loss, 1, x=[[1, 0]], e=e)
    return _insert(numbers, "y", p=ops.softmax(numbers["x"] @ e.T))


def embedding() -> Numbers:
    """Three tokens, of which the first and the last have the same id; d = 4."""
    e = [[1, 0, 0, 1], [0, 1, 1, 0], [2, 0, 1, 0]]
    dy = [[1, 0, 0, 2], [0, 1, 0, 0], [3, 0, 1, 0]]
    return _gradients(lambda e: ops.embedding(e, ids=np.array([2, 0, 2]), scale=2.0), dy, e=e)


def dropout() -> Numbers:
    """A rate of 0.5: what is kept counts twice."""
    site = DropoutSite(rate=0.5, seed=3, step=1, site=0)
    keep = site.keep_matrix(np, 2, 3).astype(np.float64)
    x = [[1, 2, 3], [4, 5, 6]]
    numbers = _gradients(lambda x: ops.dropout(x, site=site), [[1, 1, 1], [2, 2, 2]], x=x)
    return _insert(numbers, "y", keep=keep)


def convolution() -> Numbers:
    """Sentences of two tokens and of one, of width 1, and a kernel of 3."""
    return _gradients(
        lambda x, w, b: ops.convolution(x, w, b, sentences=Sentences([2, 1])),
        [[1], [2], [3]],
        x=[[1], [2], [3]],
        w=[[[1]], [[10]], [[100]]],
        b=[5],
    )


def recurrent_step() -> Numbers:
    """One sequence, d = 2; the hyperbolic tangent of ln(3) / 2 is 1/2."""
    half = np.log(3) / 2
    return _gradients(ops.recurrent_step, [[4, 1]], h=[[1, 0]], x=[[half, -1]], u=[[0, 1], [1, 0]])


def adam() -> Numbers:
    """Two parameters, three steps at the rate 0.1, a row a step: one gradient stays, one turns."""
    beta1, beta2, rate = 0.9, 0.98, 0.1
    grads = np.array([[2.0, 1.0], [2.0, -1.0], [2.0, 1.0]])
    values, first, second = np.zeros(2), np.zeros(2), np.zeros(2)
    rows: dict[str, list[np.ndarray]] = {"first": [], "second": [], "values": []}
    settings = {"rate": rate, "beta1": beta1, "beta2": beta2, "epsilon": 1e-9}
    for step, g in enumerate(grads, 1):
        ops.adam_step(values, g, first, second, step=step, **settings)
        for name, now in (("first", first), ("second", second), ("values", values)):
            rows[name].append(now.copy())
    steps = np.arange(1, 4)[:, None]
    m, v = np.stack(rows["first"]), np.stack(rows["second"])
    return {
        "g": grads,
        "m": m,
        "v": v,
        "m_corrected": m / (1 - beta1**steps),
        "v_corrected": v / (1 - beta2**steps),
        "values": np.stack(rows["values"]),
    }


EXAMPLES: dict[str, Callable[[], Numbers]] = {
    example.__name__: example
    for example in (
        *(matrix_product, softmax, layer_norm, attention),
        *(cross_entropy, embedding, dropout, convolution, recurrent_step, adam),
    )
}


def table(numbers: Numbers) -> str:
    """Each array below the other, four digits behind the point where they are needed."""
    width = max(map(len, numbers))
    return "\n".join(
        f"{name:{width}} = "
        + np.array2string(
            np.round(values, 4) + 0.0,  # no -0
            prefix=" " * (width + 3),
            precision=4,
            suppress_small=True,
        )
        for name, values in numbers.items()
    )
