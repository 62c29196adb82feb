"""Ranks that differ are refused before the first step, by the name of the rank and its host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.train.runs import SETTINGS, refusal, settings
from tests.train.small_corpus import make_corpus
from train.corpora.corpus import Corpus
from train.ranks import same_run
from train.ranks.ranks import AgreedError, Ranks
from train.ranks.same_run import check_alike, check_same_parameters, check_shared
from train.runs.run import Run
from train.settings import TrainSettings
from train.trainer import Trainer


class Two(Ranks):
    """The first of two ranks. The second one says what `other` makes of the first one's words."""

    size = 2

    def __init__(self, other: Callable[[Any], Any] = lambda value: value) -> None:
        self._other = other

    def name(self, rank: int) -> str:
        return f"rank {rank} on node{rank}"

    def all(self, value: Any) -> list[Any]:
        return [value, self._other(value)]


def test_ranks_that_are_alike_may_begin(corpus: Corpus) -> None:
    check_alike(Two(), SETTINGS, corpus)


@pytest.mark.parametrize(
    ("what", "value"),
    [("Python", "3.10.1"), ("NumPy", "1.26.0"), ("npformer with sources", "0123456789ab")],
)
def test_another_version_is_refused(corpus: Corpus, what: str, value: str) -> None:
    other = Two(lambda own: own | {what: value})
    said = refusal(lambda: check_alike(other, SETTINGS, corpus))
    assert said.startswith(f"rank 1 on node1 has {what} {value}, and rank 0 on node0 has ")


def test_a_library_that_one_rank_lacks_is_named(corpus: Corpus) -> None:
    lacking = Two(lambda own: {k: v for k, v in own.items() if k != "NumPy"})
    said = refusal(lambda: check_alike(lacking, SETTINGS, corpus))
    assert said.startswith("rank 1 on node1 has NumPy none, and rank 0 on node0 has ")
    adding = Two(lambda own: own | {"CuPy": "1.0.0"})
    said = refusal(lambda: check_alike(adding, SETTINGS, corpus))
    assert said.startswith("rank 1 on node1 has CuPy 1.0.0, and rank 0 on node0 has ")


@pytest.mark.parametrize(
    ("name", "other", "words"),
    [
        ("batch_tokens", settings(batch_tokens=200), ("200", "150")),
        ("precision", None, ("bf16", "float32")),
        ("seed", settings(seed=4), ("4", "3")),
        ("tensorboard", settings(tensorboard="events"), ("events", "False")),
        (
            "model.heads",
            settings(model=dataclasses.replace(SETTINGS.model, heads=4)),
            ("4", "2"),
        ),
        (
            "model.dropout",
            settings(model=dataclasses.replace(SETTINGS.model, dropout=0.5)),
            ("0.5", "none"),
        ),
    ],
)
def test_other_settings_are_refused_by_name(
    corpus: Corpus, name: str, other: TrainSettings | None, words: tuple[str, str]
) -> None:
    theirs = {name: "bf16"} if other is None else same_run._settings(other)
    said = refusal(lambda: check_alike(Two(lambda own: own | theirs), SETTINGS, corpus))
    assert said == (
        f"rank 1 on node1 has {name} {words[0]}, and rank 0 on node0 has {words[1]}; "
        "all ranks must have the same"
    )


def test_another_corpus_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    other = make_corpus(tmp_path, vocab_size=290)
    facts: list[Any] = []
    check_alike(Two(lambda own: facts.append(own) or own), SETTINGS, other)
    said = refusal(lambda: check_alike(Two(lambda own: facts[0]), SETTINGS, corpus))
    digits = [found.fingerprint[:12] for found in (other, corpus)]
    assert digits[0] != digits[1]
    assert said.startswith(
        f"rank 1 on node1 has the corpus {digits[0]}, and rank 0 on node0 has {digits[1]};"
    )


def test_differing_ranks_leave_no_run_behind(corpus: Corpus, tmp_path: Path) -> None:
    ranks = Two(lambda own: own | {"NumPy": "1.26.0"})
    said = refusal(lambda: Trainer.start(SETTINGS, corpus, Run(tmp_path / "run"), ranks=ranks))
    assert "NumPy 1.26.0" in said
    assert not (tmp_path / "run").exists()


class TestShared:
    def test_a_directory_that_all_find(self, tmp_path: Path) -> None:
        check_shared(Two(), tmp_path, lambda: "id")

    def test_a_rank_that_does_not_find_it_is_named(self, tmp_path: Path) -> None:
        said = refusal(lambda: check_shared(Two(lambda _: False), tmp_path, lambda: "id"))
        assert said.startswith(f"rank 1 on node1 does not find {tmp_path}, which rank 0 on node0")
        assert said.endswith("in a file system that all hosts share")

    def test_a_file_system_may_take_a_moment(self, tmp_path: Path) -> None:
        found = iter(["id", None, None, "id"])
        check_shared(Two(), tmp_path, lambda: next(found))

    def test_but_not_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(same_run, "_PATIENCE", 0.05)
        found = iter(["id"])
        with pytest.raises(AgreedError, match="does not find"):
            check_shared(Two(), tmp_path, lambda: next(found, None))


def test_parameters_that_differ_in_a_bit_are_refused() -> None:
    values = np.ones(3, np.float32)
    check_same_parameters(Two(), values, 7)
    said = refusal(lambda: check_same_parameters(Two(lambda crc: crc ^ 1), values, 7))
    assert said.startswith("after step 7 rank 1 on node1 has other parameters than rank 0 on node0")


def test_a_signal_that_comes_while_ranks_agree_is_not_lost(corpus: Corpus, tmp_path: Path) -> None:
    class Interrupted(Ranks):
        agreements = 0

        def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
            self.agreements += 1
            if self.agreements == 4:
                trainer.stop_requested = True  # by a signal, after this rank has said False
            return stop, seconds

    trainer = Trainer.start(SETTINGS, corpus, Run(tmp_path / "run"), ranks=Interrupted())
    assert trainer.train().step < SETTINGS.max_steps
