"""Check gradients against central differences, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.backend import Array, array_module, backend_of, to_host
from autograd.tape import Tape
from autograd.tensor import Parameter, Tensor


def check_gradients(
    f: Callable[..., Any],
    *inputs: Any,
    step: float = 1e-5,
    tolerance: float = 1e-7,
    seed: int = 0,
) -> None:
    """Raise AssertionError unless the gradients of `f` agree with central differences.

        check_gradients(lambda x, w: (x @ w) ** 2, np.random.randn(3, 4), np.random.randn(4, 2))

    `f` takes a Tensor for each input and returns a Tensor, or a tuple of Tensors, of any shape;
    TypeError if it returns anything else. An input is a float64 array, or a Parameter, which `f`
    may also use in other ways than by its argument. The outputs are reduced to one number L by
    random weights. The change of L along a random direction, first of all inputs together, then of
    each input alone, is compared with gradient · direction. The two may differ by `tolerance` ·
    Σ |gradient · direction| plus the rounding error of the difference, Σ |terms of L| · machine
    epsilon / `step`. Keep the inputs away from kinks, such as the 0 of a ReLU: a difference across
    a kink is not a derivative.
    """
    # A seed of two numbers, so that the directions differ from inputs drawn by default_rng(0).
    rng = np.random.default_rng((seed, 1))
    given = [x if isinstance(x, Parameter) else _copy(x) for x in inputs]
    for i, x in enumerate(given):
        if x.dtype != np.float64:
            raise TypeError(f"input {i} must be float64 for central differences, got {x.dtype}")
    leaves = [x if isinstance(x, Parameter) else Tensor(x) for x in given]
    before = [leaf.numpy().copy() for leaf in leaves]

    with Tape() as tape:
        outputs = _outputs(f(*leaves))
        weights = [rng.standard_normal(y.shape) for y in outputs]
        weighted = _weighted(outputs, weights)
    gradients = [to_host(g) for g in tape.backward(weighted, wanted=leaves)]

    for i, (leaf, old) in enumerate(zip(leaves, before, strict=True)):
        if not np.array_equal(leaf.numpy(), old, equal_nan=True):
            raise AssertionError(f"input {i} was overwritten")

    def value() -> tuple[float, float]:
        """The weighted output for the current values of the leaves, and Σ |terms| of its sum."""
        got = _outputs(f(*leaves))
        terms = [to_host(y.value) * w for y, w in zip(got, weights, strict=True)]
        return float(sum(t.sum() for t in terms)), float(sum(np.abs(t).sum() for t in terms))

    directions = [rng.standard_normal(leaf.shape) for leaf in leaves]
    everything = list(range(len(leaves)))
    for chosen in [everything, *([i] for i in everything)] if len(leaves) > 1 else [everything]:
        ends = []
        for sign in (+1, -1):
            for i in chosen:
                _set(leaves[i], before[i] + sign * step * directions[i])
            try:
                ends.append(value())
            finally:
                for i in chosen:
                    _set(leaves[i], before[i])
        (upper, size), (lower, _) = ends
        expected = (upper - lower) / (2 * step)
        terms = [gradients[i] * directions[i] for i in chosen]
        computed = float(sum(t.sum() for t in terms))
        magnitude = float(sum(np.abs(t).sum() for t in terms))
        allowed = tolerance * magnitude + size * np.finfo(np.float64).eps / step
        if not abs(computed - expected) <= allowed:
            which = "all inputs together" if chosen is everything else f"input {chosen[0]}"
            raise AssertionError(
                f"wrong gradient for {which}: along a random direction the function changes by "
                f"{expected:.10g}, the gradient says {computed:.10g} "
                f"(difference {abs(computed - expected):.3g}, allowed {allowed:.3g})"
            )


def _outputs(returned: Any) -> tuple[Tensor, ...]:
    """What a function returned, as a tuple of Tensors."""
    outputs = returned if isinstance(returned, tuple) else (returned,)
    for y in outputs:
        if not isinstance(y, Tensor):
            raise TypeError(
                f"f must return a Tensor, or a tuple of them; it returned a {type(y).__name__}"
                + (" in a tuple" if outputs is returned else "")
            )
    if not outputs:
        raise TypeError("f must return a Tensor, or a tuple of them; it returned an empty tuple")
    return outputs


def _weighted(outputs: tuple[Tensor, ...], weights: list[np.ndarray]) -> Tensor:
    """Σ output · weight over all outputs, as one Tensor."""
    total: Any = 0.0
    for y, w in zip(outputs, weights, strict=True):
        total = total + (y * backend_of(y.value).asarray(w)).sum()
    result: Tensor = total
    return result


def _copy(x: Any) -> Array:
    return array_module(x).array(x, copy=True)


def _set(leaf: Tensor, values: np.ndarray) -> None:
    leaf.value[...] = backend_of(leaf.value).asarray(values)
