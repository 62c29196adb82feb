"""AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

The gradient of an L2 penalty would be divided by the root of Adam's second moment, like the rest of
the gradient. Here each weight is multiplied by 1 - rate · decay instead, before Adam's step.

    python -m examples.adamw    # trains with Adam and with AdamW on the generated grammar
"""

from __future__ import annotations

from typing import Any

from autograd import Parameter, ParameterBuffer
from autograd.backend import Array
from examples.compare import compare
from train.adam import Adam
from train.settings import TrainSettings


class AdamW(Adam):
    """Adam with decay of matrices, but not of vectors: biases and the gains of norms."""

    name = "adamw"

    def __init__(self, buffer: ParameterBuffer, decay: float = 0.01, **settings: Any) -> None:
        super().__init__(buffer, **settings)
        self.decay = decay

    def step(self, rate: float, scale: Array | float = 1.0) -> None:
        """Update the parameters; with a scale that is not finite, they stay as they are."""
        self._check()  # before any change
        xp = self.owner.xp
        is_finite = xp.isfinite(xp.asarray(scale))  # on the device: nothing waits for it
        kept = xp.where(is_finite, 1 - rate * self.decay, 1).astype(self.buffer.values.dtype)
        for parameter in self.decaying():
            parameter.master *= kept
        super().step(rate, scale)

    def decaying(self) -> list[Parameter]:
        """The matrices, embeddings among them."""
        return [p for p in self.buffer.parameters.values() if p.ndim > 1]


def adamw(buffer: ParameterBuffer, settings: TrainSettings) -> AdamW:
    """The optimizer for the trainer, with the settings of Adam."""
    beta1, beta2, epsilon = settings.beta1, settings.beta2, settings.epsilon
    return AdamW(buffer, decay=0.1, beta1=beta1, beta2=beta2, epsilon=epsilon)


if __name__ == "__main__":
    compare("AdamW", optimizer=adamw)
