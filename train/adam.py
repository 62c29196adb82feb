"""Adam, over the flat arrays that hold all parameters and all gradients (section 5.3)."""

from __future__ import annotations

from typing import Any

from autograd import ParameterBuffer, ops
from autograd.backend import Array, backend_of
from train.settings import TrainSettings


class Adam:
    """Kingma and Ba, 2015, with the paper's β₁ = 0.9, β₂ = 0.98 and ε = 1e-9.

    `first` and `second` are the flat moments, `steps` the number of steps taken: with the
    parameters, all that has to be kept to go on.
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
        xp = self.owner.module
        self.first: Array = xp.zeros_like(buffer.values)
        self.second: Array = xp.zeros_like(buffer.values)
        self.steps = 0

    def _attach(self, buffer: ParameterBuffer) -> None:
        self.buffer = buffer
        self.grads: Array = buffer.allocate_gradients()
        self.owner = backend_of(buffer.values)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has, in memory or pickled, together with its buffer; no gradients."""
        return {k: v for k, v in vars(self).items() if k not in ("grads", "owner")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._attach(self.buffer)

    def __copy__(self) -> Adam:
        raise TypeError("an Adam is copied with its parameters: use copy.deepcopy")

    def gradient_norm(self) -> Array:
        """The Euclidean norm of all gradients together: a number that lies where they do."""
        self._check()
        return self.owner.module.sqrt(ops.squared_norm(self.grads))

    def step(self, rate: float, scale: Array | float = 1.0) -> None:
        """Update the parameters from their gradients, which count `scale` times.

        With a scale that is not finite, the parameters and moments stay as they are.
        """
        self._check()
        self.steps += 1
        ops.adam_step(
            self.buffer.values,
            self.grads,
            self.first,
            self.second,
            rate=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            step=self.steps,
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
    """Adam as the settings have it."""
    return Adam(buffer, settings.beta1, settings.beta2, settings.epsilon)
