"""The interface of optimizers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from autograd import ParameterBuffer
from autograd.backend import Array, Backend
from train.settings import TrainSettings


class Optimizer(Protocol):
    """Updates the parameters of a `ParameterBuffer` from their gradients.

    Attributes:
        name: the prefix of its arrays' names in a checkpoint
        owner: the backend of parameters and gradients
        steps: the number of steps taken
    """

    name: str
    owner: Backend
    steps: int

    def gradient_norm(self) -> Array:
        """The Euclidean norm of all gradients together, a scalar on their backend."""

    def step(self, rate: float, scale: Array | float = 1.0) -> None:
        """Update the parameters from their gradients times `scale`.

        If the scale is not finite, parameters and state stay as they are.
        """

    def state(self) -> dict[str, Array]:
        """The arrays to save and restore, flat like the parameters; not copies.

        They keep their dtypes, which are floating-point, integer or boolean ones of NumPy's own. An
        array of bfloat16 is given as a view of its bits, `x.view(np.uint16)`.
        """


class RecordableOptimizer(ABC):
    """An optimizer whose step can be recorded, as all that changes is read from an array.

    Where `step` itself is another function, it is called, and nothing is recorded.
    """

    owner: Backend

    @abstractmethod
    def count_step(self, rate: float) -> Sequence[float]:
        """Count a step on the host; returns the numbers that it depends on, always as many."""

    @abstractmethod
    def apply(self, numbers: Array, scale: Array | float) -> None:
        """The step, with these numbers in float64: [n] on the backend; otherwise as `step`."""

    def step(self, rate: float, scale: Array | float = 1.0) -> None:
        """Update the parameters from their gradients times `scale`.

        If the scale is not finite, parameters and state stay as they are.
        """
        self.apply(self.owner.asarray(np.array(self.count_step(rate), np.float64)), scale)

    def is_recordable(self) -> bool:
        """Whether `step` does what `count_step` and `apply` do together."""
        return getattr(self.step, "__func__", None) is RecordableOptimizer.step


MakeOptimizer = Callable[[ParameterBuffer, TrainSettings], Optimizer]
