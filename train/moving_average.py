"""An exponential moving average of the parameters, kept beside the optimizer's moments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from autograd import ParameterBuffer
from autograd.backend import Array
from train.optimizer import Optimizer, RecordableOptimizer

_CHUNK = 1 << 22  # elements at a time: a temporary array of 16 MB, not one of the model's size


class MovingAverage(RecordableOptimizer):
    """An optimizer that also averages the parameters over its steps.

    After step t, average ← d · average + (1 - d) · parameters; d is at most (1 + t) / (10 + t),
    so that the initial parameters soon count for nothing. The average is saved and restored with
    the optimizer's arrays. A step that changes nothing leaves it as it is.

    Attributes:
        average: flat like the parameters, on their backend
    """

    def __init__(self, optimizer: Optimizer, buffer: ParameterBuffer, decay: float) -> None:
        self.optimizer, self.decay = optimizer, decay
        self.name, self.owner = optimizer.name, optimizer.owner
        self._buffer = buffer
        self.average: Array = buffer.values.copy()

    def start_anew(self) -> None:
        """Begin with the parameters as they are now."""
        self.average[...] = self._buffer.values

    @property
    def steps(self) -> int:
        return self.optimizer.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self.optimizer.steps = steps

    def gradient_norm(self) -> Array:
        return self.optimizer.gradient_norm()

    def step(self, rate: float, scale: Array | float = 1.0) -> None:
        """Update the parameters, and then their average."""
        self.optimizer.step(rate, scale)
        self._follow(self.owner.asarray(np.float64(self._weight())), scale)

    def is_recordable(self) -> bool:
        inner, own = self.optimizer, getattr(self.step, "__func__", None)
        return (
            own is MovingAverage.step
            and isinstance(inner, RecordableOptimizer)
            and inner.is_recordable()
        )

    def count_step(self, rate: float) -> tuple[float, ...]:
        assert isinstance(self.optimizer, RecordableOptimizer)
        return *self.optimizer.count_step(rate), self._weight()

    def apply(self, numbers: Array, scale: Array | float) -> None:
        assert isinstance(self.optimizer, RecordableOptimizer)
        self.optimizer.apply(numbers[:-1], scale)
        self._follow(numbers[-1], scale)

    def _weight(self) -> float:
        """That of the parameters after the last step."""
        return 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))

    def _follow(self, new: Array, scale: Array | float) -> None:
        xp = self.owner.xp
        weight = xp.where(xp.isfinite(xp.asarray(scale)), new, 0.0).astype(self.average.dtype)
        for average, values in self._chunks():
            average += weight * (values - average)

    def state(self) -> dict[str, Array]:
        """The optimizer's arrays, and the average."""
        return {**self.optimizer.state(), "average": self.average}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model's parameters are the average; afterwards they are restored."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for average, values in self._chunks():
            kept = values.copy()
            values[...] = average
            average[...] = kept
        if self._buffer.rounded is not None:
            self._buffer.rounded[...] = self._buffer.values

    def _chunks(self) -> Iterator[tuple[Array, Array]]:
        """Views into the average and the parameters, a part after the other."""
        values = self._buffer.values
        for begin in range(0, values.size, _CHUNK):
            yield self.average[begin : begin + _CHUNK], values[begin : begin + _CHUNK]


@contextmanager
def averaged(optimizer: Optimizer) -> Iterator[None]:
    """Within the block the model's parameters are their moving average, if one is kept."""
    if isinstance(optimizer, MovingAverage):
        with optimizer.in_place():
            yield
    else:
        yield


def published_values(buffer: ParameterBuffer, optimizer: Optimizer) -> Array:
    """The parameters that a run publishes, flat: their moving average, if one is kept."""
    return optimizer.average if isinstance(optimizer, MovingAverage) else buffer.values
