"""Learning rate schedules: the paper's (section 5.3) and the usual alternatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from npformer.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the step, which counts from 1.

    Attributes:
        kind: "paper", factor · d_model^-0.5 · min(step^-0.5, step · warmup^-1.5); or, after a
            linear warm-up to `peak`: "inverse_sqrt", which decays as step^-0.5; "cosine", which
            decays to `final` at `steps` along half a cosine wave; "constant", which stays there
        warmup: steps of the warm-up
        peak: the highest rate, for all kinds but "paper"
        factor: multiplies the rate of "paper"
        d_model: the model's, for "paper"
        steps: the last step of "cosine"
        final: the last rate of "cosine"
    """

    kind: Literal["paper", "inverse_sqrt", "cosine", "constant"] = "paper"
    warmup: int = 4000
    peak: float = 1e-3
    factor: float = 1.0
    d_model: int = 512
    steps: int = 100_000
    final: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("paper", "inverse_sqrt", "cosine", "constant"):
            raise UserError(
                f"schedule must be paper, inverse_sqrt, cosine or constant; it is {self.kind!r}"
            )
        for name, least in (("warmup", "1 step"), ("d_model", "1"), ("steps", "1 step")):
            number = getattr(self, name)
            if not 1 <= number < math.inf:
                raise UserError(f"{name} must be at least {least}; it is {number}")
        for name in ("peak", "factor", "final"):
            number = getattr(self, name)
            if not 0 <= number < math.inf:
                raise UserError(f"{name} must be a number that is not negative; it is {number}")
        if self.kind == "cosine" and self.steps <= self.warmup:
            raise UserError(
                f"a cosine schedule needs more steps ({self.steps}) than warmup ({self.warmup})"
            )

    def __call__(self, step: int) -> float:
        """The learning rate of a step, which is at least 1."""
        if self.kind == "paper":
            return self.factor * self.d_model**-0.5 * min(step**-0.5, step * self.warmup**-1.5)
        if step < self.warmup:
            return self.peak * step / self.warmup
        if self.kind == "inverse_sqrt":
            return self.peak * math.sqrt(self.warmup / step)
        if self.kind == "cosine":
            progress = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
            wave = (1 + math.cos(math.pi * progress)) / 2
            return self.final + (self.peak - self.final) * wave
        return self.peak
