"""What changes from step to step is read by a replay, and not what it was at the recording.

Each value is changed by itself, so that no other change can hide that it is frozen; and the step of
the value as it was is another one, so that it would be noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from npformer import Batch, Packed
from tests.gpu.trainings import RATES, Training, poison
from train.ranks.shares import Part

STEPS = 5  # as they are, recorded, and replayed: memory is settled by then


class Step(NamedTuple):
    """A step, by all that the host decides of it."""

    sources: Packed
    targets: Packed
    outputs: Packed
    rate: float = 1e-3
    step: int = 7  # of dropout
    seed: int = 5  # of dropout
    adam_step: int = STEPS
    source_row: int = 0
    target_row: int = 0
    more_targets: int = 0  # of the step's other batches, on other ranks
    clip_norm: float = 1.0

    def take(self, training: Training) -> np.ndarray:
        batch = Batch(
            self.sources, self.targets, Packed(self.outputs.tokens, self.targets.sentences)
        )
        part = Part([(self.source_row, self.target_row)], batch.target_tokens + self.more_targets)
        training.optimizer.steps = self.adam_step
        return training.step(
            *([batch], self.rate, self.step),
            seed=self.seed,
            clip_norm=self.clip_norm,
            part=part,
        )


def packed(seed: int) -> Packed:
    return Packed(np.random.default_rng(seed).integers(3, 51, 40, np.int32), [7, 9, 16, 8])


BASE = Step(packed(0), packed(1), packed(2))


def other_ids(x: Packed) -> Packed:
    """Which occur at other places, and other times: sums along sorted ids have other rows."""
    return packed(int(x.tokens.sum()))


def other_lengths(x: Packed) -> Packed:
    """Another number of sentences as well would be another one on the other side."""
    return Packed(x.tokens, [1, 3, 2, 34])


CHANGES: dict[str, Callable[[Step], Step]] = {
    "rate": lambda s: s._replace(rate=2e-3),
    "Adam's step": lambda s: s._replace(adam_step=500),
    "dropout's step": lambda s: s._replace(step=8),
    "dropout's seed": lambda s: s._replace(seed=6),
    "dropout's first source row": lambda s: s._replace(source_row=1000),
    "dropout's first target row": lambda s: s._replace(target_row=1000),
    "target tokens of the step": lambda s: s._replace(more_targets=300),
    "clip norm": lambda s: s._replace(clip_norm=0.01),
    "source ids": lambda s: s._replace(sources=other_ids(s.sources)),
    "target ids that are read": lambda s: s._replace(targets=other_ids(s.targets)),
    "target ids that are predicted": lambda s: s._replace(outputs=other_ids(s.outputs)),
    "lengths of sources": lambda s: s._replace(sources=other_lengths(s.sources)),
    "lengths of targets": lambda s: s._replace(targets=other_lengths(s.targets)),
}


class Recorded(NamedTuple):
    """A training whose step is recorded, one whose steps are launched, and their state."""

    recorded: Training
    launched: Training
    state: dict[str, np.ndarray]

    def restore(self) -> None:
        for training in (self.recorded, self.launched):
            training.restore(self.state, STEPS)


@pytest.fixture(scope="module", params=["bf16", "float32"])
def trained(request: pytest.FixtureRequest) -> Recorded:
    recorded, launched = (Training(request.param, which, **RATES) for which in (True, False))
    for step in range(STEPS):
        for training in (recorded, launched):
            taken(BASE._replace(adam_step=step), training)
    assert recorded.replayed[-1]
    return Recorded(recorded, launched, launched.state())


def taken(step: Step, training: Training) -> dict[str, np.ndarray]:
    poison()
    numbers: dict[str, Any] = {"numbers": step.take(training)}
    return {**numbers, **training.state()}


@pytest.mark.parametrize("what", CHANGES)
def test_a_value_of_the_host_is_not_frozen(trained: Recorded, what: str) -> None:
    changed = CHANGES[what](BASE)
    trained.restore()
    unchanged = taken(BASE, trained.launched)
    taken(BASE, trained.recorded)
    trained.restore()
    expected = taken(changed, trained.launched)
    found = taken(changed, trained.recorded)
    assert trained.recorded.replayed[-1] == (what != "dropout's seed")  # of which a run has one
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)
    assert any((x != unchanged[name]).any() for name, x in expected.items())
