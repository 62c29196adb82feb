"""The contract of an operation (see autograd/operation.py), as a check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.tape import unbroadcast


def check_contract(
    implementation: Callable[..., Any],
    *arrays: np.ndarray,
    auxiliary: int = 0,
    seed: int = 0,
    **settings: Any,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Raise AssertionError where `implementation` breaks the contract at these inputs.

    The last `auxiliary` of its values have no gradient.
    Returns its outputs and, for random gradients of those, the gradients of its arguments.
    """
    rng = np.random.default_rng(seed)
    before = [np.array(x) for x in arrays]
    settings_before = {k: np.array(v) for k, v in settings.items() if isinstance(v, np.ndarray)}

    value, vjp = implementation(*arrays, **settings)
    outputs = list(value) if isinstance(value, tuple) else [value]
    count = len(outputs) - auxiliary
    after_forward = [np.array(y) for y in outputs]
    # Random numbers, laid out as a transposition upstream may leave them.
    dy = [np.asarray(rng.standard_normal(y.shape[::-1]), y.dtype).T for y in outputs[:count]]
    dy = [d if d.flags.writeable else d.copy() for d in dy]
    results = vjp(
        tuple(dy) if isinstance(value, tuple) and not (auxiliary and count == 1) else dy[0]
    )

    results = (results,) if len(arrays) == 1 else results
    assert isinstance(results, tuple | list), "several arguments need a tuple of gradients"
    assert len(results) == len(arrays), (
        f"{len(results)} gradients for {len(arrays)} positional arguments"
    )
    gradients = []
    for x, g in zip(arrays, results, strict=True):
        if callable(g):
            out = np.full(x.shape, np.nan, x.dtype)
            g(out, False)
            g = out
        gradients.append(np.asarray(g))  # as the tape does, so that a scalar is an array

    for i, (x, old) in enumerate(zip(arrays, before, strict=True)):
        np.testing.assert_array_equal(x, old, err_msg=f"argument {i} was overwritten")
    for name, old in settings_before.items():
        np.testing.assert_array_equal(settings[name], old, err_msg=f"{name} was overwritten")
    for i, (y, old) in enumerate(zip(outputs, after_forward, strict=True)):
        np.testing.assert_array_equal(y, old, err_msg=f"output {i} was overwritten by the gradient")

    dtype = arrays[0].dtype
    for i, y in enumerate(outputs):
        expected = settings.get("dtype", dtype)
        assert y.dtype == expected, f"output {i} is {y.dtype}, of inputs that are {dtype}"
    for i, (x, g) in enumerate(zip(arrays, gradients, strict=True)):
        assert g.dtype == dtype, f"the gradient of argument {i} is {g.dtype}, not {dtype}"
        assert g.flags.writeable, f"the gradient of argument {i} is not writable"
        assert unbroadcast(g, x.shape).shape == x.shape
        others = {
            **{f"argument {j}": a for j, a in enumerate(arrays)},
            **{f"output {j}": np.asarray(y) for j, y in enumerate(outputs)},
            **{f"the gradient of argument {j}": h for j, h in enumerate(gradients) if j != i},
        }
        for name, other in others.items():
            assert not np.shares_memory(g, other), (
                f"the gradient of argument {i} shares memory with {name}"
            )
    return (
        after_forward,
        [unbroadcast(g, x.shape) for x, g in zip(arrays, gradients, strict=True)],
    )
