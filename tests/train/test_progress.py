"""The progress of a run: the choice of the best validation."""

import math

import pytest

from train.runs.progress import Validations
from train.wording import counted


@pytest.mark.parametrize(
    ("scores", "lower_is_better", "best"),
    [
        ([3.0, 2.5, 2.75, 2.5], True, (2.5, 2, 2)),
        ([0.0, 20.0, 21.5, 21.0], False, (21.5, 3, 1)),
        ([0.0, 0.0], False, (0.0, 1, 1)),
        ([math.inf, math.nan, 3.0], True, (3.0, 3, 0)),
        ([3.0, None, 4.0, None], True, (3.0, 1, 1)),
        ([None], True, (0.0, 0, 0)),
    ],
)
def test_the_first_best_score_counts(
    scores: list[float | None], lower_is_better: bool, best: tuple[float, int, int]
) -> None:
    validations = Validations()
    kept = [
        step
        for step, score in enumerate(scores, start=1)
        if validations.count(step, score, lower_is_better=lower_is_better)
    ]
    found = (validations.best, validations.best_step, validations.since_best)
    assert found == best
    assert kept[-1:] == ([best[1]] if best[1] else [])
    assert validations.step == len(scores)


def test_one_thing_is_singular() -> None:
    assert [counted(n, "step") for n in (0, 1, 2, 1000)] == [
        "0 steps",
        "1 step",
        "2 steps",
        "1,000 steps",
    ]
