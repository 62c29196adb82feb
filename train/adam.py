"""The optimizer Adam (section 5.3), on flat arrays of all parameters and all gradients."""

from __future__ import annotations

from typing import Any

from autograd import ParameterBuffer, ops
from autograd.backend import Array, backend_of
from train.optimizer import RecordableOptimizer
from train.settings import TrainSettings


class Adam(RecordableOptimizer):
    """Adam (Kingma and Ba, 2015), with the paper's β₁ = 0.9, β₂ = 0.98 and ε = 1e-9.

    Attributes:
        first, second: the moments, flat like the parameters
        steps: the number of steps taken

    These and the parameters are all that a checkpoint needs.
    """

    name = "adam"

    def __init__(
        self,
        buffer: ParameterBuffer,
        beta1: float = 0.9,
        beta2: float = 0.98,
        epsilon: float = 1e-9,
    ) -> None:
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self._attach(buffer)
        xp = self.owner.xp
        self.first: Array = xp.zeros_like(buffer.values)
        self.second: Array = xp.zeros_like(buffer.values)
        self.steps = 0

    def _attach(self, buffer: ParameterBuffer) -> None:
        self.buffer = buffer
        self.grads: Array = buffer.allocate_gradients()
        self.owner = backend_of(buffer.values)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the gradients, together with the buffer."""
        return {k: v for k, v in vars(self).items() if k not in ("grads", "owner")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._attach(self.buffer)

    def __copy__(self) -> Adam:
        raise TypeError("an Adam is copied with its parameters: use copy.deepcopy")

    def gradient_norm(self) -> Array:
        """The Euclidean norm of all gradients together, a scalar on their backend."""
        self._check()
        return self.owner.xp.sqrt(ops.squared_norm(self.grads))

    def count_step(self, rate: float) -> tuple[float, ...]:
        self._check()
        self.steps += 1
        return rate, self.steps

    def apply(self, numbers: Array, scale: Array | float) -> None:
        ops.adam_step(
            self.buffer.values,
            self.grads,
            self.first,
            self.second,
            rate=numbers[0],
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            step=numbers[1],
            scale=scale,
            rounded=self.buffer.rounded,
        )

    def state(self) -> dict[str, Array]:
        """Both moments."""
        return {"first": self.first, "second": self.second}

    def _check(self) -> None:
        if self.buffer.grads is not self.grads:
            raise RuntimeError(
                "the parameters were moved to another backend or precision after this Adam was "
                "made; make a new one"
            )


def adam(buffer: ParameterBuffer, settings: TrainSettings) -> Adam:
    """Adam with the settings' β₁, β₂ and ε."""
    return Adam(buffer, settings.beta1, settings.beta2, settings.epsilon)
