"""Cases of operations, and the strategies and random arrays that they are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autograd import DropoutSite, Tape, Tensor, to_host
from autograd.backend import Backend
from autograd.operation import Op


def normal32(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normally distributed float32 numbers, for the compiled loops."""
    return rng.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Case:
    """An operation, float64 arrays at which it is differentiable, and settings."""

    op: Op
    arrays: tuple[np.ndarray, ...]
    settings: dict[str, Any]

    def run(self, *arguments: Any) -> Any:
        return self.op(*arguments, **self.settings)

    def outputs(self, *arguments: Any) -> Any:
        """The values that `run` returns and that have a gradient."""
        values = self.run(*arguments)
        if not self.op.auxiliary:
            return values
        outputs = values[: -self.op.auxiliary]
        return outputs if len(outputs) > 1 else outputs[0]

    def on(self, backend: Backend) -> Case:
        """The same case in arrays of another backend."""

        def move(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(map(move, x))
            return backend.asarray(x) if isinstance(x, np.ndarray) else x

        settings = {k: move(v) for k, v in self.settings.items()}
        return Case(self.op, move(self.arrays), settings)


def values_and_gradients(
    f: Any, arrays: Any, seed: int = 0, kind: type[Tensor] = Tensor
) -> tuple[list, list]:
    """The outputs of `f`, and the gradients of their randomly weighted sum, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    tensors = [kind(a) for a in arrays]
    with Tape() as tape:
        outputs = f(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total: Any = 0.0
        for y in outputs:
            if isinstance(y, Tensor):  # not an auxiliary value
                weight = np.asarray(rng.standard_normal(y.shape), y.dtype)
                total = total + (y * like(y.value, weight)).sum()
    gradients = tape.backward(total, wanted=tensors)
    values = [y.value if isinstance(y, Tensor) else y for y in outputs]
    return list(map(to_host, values)), list(map(to_host, gradients))


def like(array: Any, values: np.ndarray) -> Any:
    """`values` as an array of the backend that `array` belongs to."""
    from autograd.backend import backend_of

    return backend_of(array).asarray(values)


seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 4)
tokens = st.integers(0, 5)
sites = st.none() | st.builds(
    DropoutSite,
    rate=st.sampled_from([0.1, 0.5, 0.9]),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 10**6),
    site=st.integers(0, 300),
    row=st.integers(0, 10**6),
)
shapes = partial(hnp.array_shapes, min_dims=0, max_dims=3, max_side=3)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape))


def off_zero(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = normal(rng, *shape)
    return np.asarray(np.where(x < 0, x - 0.3, x + 0.3))


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(0.3 + abs(normal(rng, *shape)))


def far_apart(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """No two elements within 0.1 of each other, so that small changes keep their order."""
    size = int(np.prod(shape))
    return (rng.permutation(size) * 0.2 + rng.uniform(-0.05, 0.05, size)).reshape(shape)


def spread_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows with a variance well above 0 (if they have two elements or more)."""
    places = rng.permuted(np.tile(np.arange(columns, dtype=float), (rows, 1)), axis=1)
    return places + rng.uniform(-0.3, 0.3, (rows, columns))
