"""A model that stays where guessing tokens by their frequency is, and what its user is told."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from npformer.packed import Packed
from tests.train.runs import settings, start
from train import guessing
from train.corpora.corpus import Corpus
from train.guessing import Beginning, guessing_loss
from train.runs.log_entry import LogEntry

TARGETS = Packed.of([[5, 5, 6], [], [5, 7]])
GUESSING = -sum(p * math.log(p) for p in (3 / 8, 1 / 8, 1 / 8, 3 / 8))  # 5, 6, 7, and the ends


def entry(step: int, loss: float) -> LogEntry:
    return LogEntry(step, loss, math.exp(loss), 0.0, 1.0, 1.0, 1.0, 1.0, 0)


@pytest.mark.parametrize("at_a_time", [1, 2, 100])
def test_guessing_costs_the_entropy_of_the_tokens(at_a_time: int) -> None:
    with patch.object(guessing, "_AT_A_TIME", at_a_time):
        assert guessing_loss(TARGETS) == pytest.approx(GUESSING)
    assert guessing_loss(Packed.of([[]])) == 0


def test_a_model_has_time_to_begin_and_its_user_is_told_once() -> None:
    beginning = Beginning(TARGETS, warmup=400)
    assert beginning.advice(entry(799, GUESSING)) is None
    assert beginning.advice(replace(entry(800, GUESSING), perplexity=math.nan)) is None  # skipped
    advice = beginning.advice(entry(801, GUESSING))
    assert advice is not None
    assert advice.startswith("step 801: the model has not begun to learn")
    assert beginning.advice(entry(802, GUESSING)) is None
    assert Beginning(TARGETS, warmup=1).advice(entry(499, GUESSING)) is None


def test_a_model_that_has_begun_may_get_worse_again() -> None:
    beginning = Beginning(TARGETS, warmup=1)
    assert beginning.advice(entry(500, GUESSING - 0.4)) is None
    assert beginning.advice(entry(600, GUESSING)) is None


@pytest.mark.parametrize(("rate", "told"), [(1e-6, True), (0.3, False)])
def test_training_tells_what_to_change(
    rate: float, told: bool, corpus: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = settings(max_steps=200, warmup=10, rate_factor=rate, log_every=50)
    with patch.object(guessing, "_SOON", 200), caplog.at_level(logging.WARNING, "npformer"):
        start(chosen, corpus, tmp_path / "run")
    found = [record.getMessage() for record in caplog.records]
    assert ["longer warmup, a lower rate, or norm: pre" in line for line in found] == [True] * told
