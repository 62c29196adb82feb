"""The progress of a run, as its state keeps it: plain numbers, checked when they are read."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from npformer.errors import UserError

_Part = TypeVar("_Part")


@dataclass
class Position:
    """Where a run is: steps taken, batches taken of a window of an epoch, seconds spent."""

    step: int = 0
    epoch: int = 0
    window: int = 0
    batch: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, values: Any, path: Path) -> Position:
        """The position in a state; `path` is the state's file, for messages.

        In older states all batches of an epoch are in its first window.
        """
        if isinstance(values, dict):
            values = {"window": 0, **values}
        if not isinstance(values, dict) or values.keys() != {f.name for f in fields(cls)}:
            raise UserError(f"{path} is not a state of a training run: it holds no position")
        return _checked(cls, values, path, "its position")


@dataclass
class SinceLog:
    """Sums over the steps since the last log entry.

    Attributes:
        steps, target_tokens, loss, nll, norm: of the steps that changed the parameters; losses
            are summed over tokens, in nats, and norms over steps
        skipped: steps whose loss or gradient was not finite
        seconds: spent on all of them
    """

    steps: int = 0
    target_tokens: int = 0
    loss: float = 0.0
    nll: float = 0.0
    norm: float = 0.0
    skipped: int = 0
    seconds: float = 0.0


@dataclass
class Skips:
    """Steps whose loss or gradient was not finite: in all, and the last ones in a row."""

    total: int = 0
    in_a_row: int = 0


@dataclass
class Validations:
    """The validations so far.

    Attributes:
        step: of the last one
        best, best_step: the best score by the setting `best_by`, and its step (0: none yet)
        since_best: validations with a score since then
    """

    step: int = 0
    best: float = 0.0
    best_step: int = 0
    since_best: int = 0

    def count(self, step: int, score: float | None, *, lower_is_better: bool) -> bool:
        """Count a validation, with its score if it has one; returns whether it is the best."""
        self.step = step
        if score is None:
            return False
        better = score < self.best if lower_is_better else score > self.best
        if math.isfinite(score) and (better or not self.best_step):
            self.best, self.best_step, self.since_best = score, step, 0
            return True
        self.since_best += 1
        return False


@dataclass
class Checkpoints:
    """The checkpoints so far; seconds: of the position at the last one, where minutes count."""

    seconds: float = 0.0


@dataclass
class Progress:
    """All of a run but its arrays and settings.

    A state from before a part was introduced has the part's defaults.
    """

    position: Position = field(default_factory=Position)
    since_log: SinceLog = field(default_factory=SinceLog)
    skips: Skips = field(default_factory=Skips)
    validations: Validations = field(default_factory=Validations)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    @classmethod
    def of(cls, about: dict[str, Any], path: Path) -> Progress:
        """The progress in what a state says about itself; `path` is its file, for messages.

        Raises UserError unless every part has its numbers, and each is of its kind.
        """
        progress = cls(Position.of(about.get("position"), path))
        parts = about.get("progress", {})
        if not isinstance(parts, dict):
            raise _damaged(path, f"its progress is {reprlib.repr(parts)}")
        for name, values in parts.items():
            kind = _PARTS.get(name)
            if kind is None:
                raise UserError(
                    f"{path} has progress that this npformer does not know ({name:.60}); resume "
                    "with the npformer that wrote it"
                )
            if not isinstance(values, dict) or values.keys() != {f.name for f in fields(kind)}:
                raise _damaged(path, f"{name} is {reprlib.repr(values)} in its progress")
            setattr(progress, name, _checked(kind, values, path, f"{name} of its progress"))
        return progress

    def count(self, numbers: list[float], target_tokens: int) -> None:
        """Count a step by its loss, negative log-likelihood and gradient norm.

        Numbers are added one by one, so that sums do not depend on when steps are read.
        """
        since, skips = self.since_log, self.skips
        if not all(map(math.isfinite, numbers)):
            since.skipped += 1
            skips.total += 1
            skips.in_a_row += 1
            return
        loss, nll, norm = numbers
        since.steps += 1
        since.target_tokens += target_tokens
        since.loss += loss
        since.nll += nll
        since.norm += norm
        skips.in_a_row = 0

    def to_dict(self) -> dict[str, Any]:
        """As `of` reads it."""
        parts = dataclasses.asdict(self)
        return {"position": parts.pop("position"), "progress": parts}


_PARTS: dict[str, type[Any]] = {
    "since_log": SinceLog,
    "skips": Skips,
    "validations": Validations,
    "checkpoints": Checkpoints,
}


def _checked(kind: type[_Part], values: dict[str, Any], path: Path, where: str) -> _Part:
    """An instance of a dataclass of whole numbers and floats, none of them negative."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        allowed = (int, float) if hints[name] is float else (int,)
        if type(value) not in allowed or not 0 <= value < math.inf:
            raise _damaged(path, f"{name} is {reprlib.repr(value)} in {where}")
    return kind(**values)


def _damaged(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path} is damaged: {problem}; resume from a copy of it, or start the run again with "
        "another --out"
    )
