"""What training asks of an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autograd import ParameterBuffer
from autograd.backend import Array, Backend
from train.settings import TrainSettings


class Optimizer(Protocol):
    """Learns the parameters of a `ParameterBuffer` from their gradients.

    Attributes:
        name: what its arrays are called after in a checkpoint
        owner: the backend on which parameters and gradients lie
        steps: how many steps were taken
    """

    name: str
    owner: Backend
    steps: int

    def gradient_norm(self) -> Array:
        """The Euclidean norm of all gradients together: a number that lies where they do."""

    def step(self, rate: float, scale: Array | float = 1.0) -> None:
        """Update the parameters from their gradients, which count `scale` times.

        With a scale that is not finite, nothing changes.
        """

    def state(self) -> dict[str, Array]:
        """The arrays, flat as the parameters are, that must be kept to go on; not copies."""


MakeOptimizer = Callable[[ParameterBuffer, TrainSettings], Optimizer]
