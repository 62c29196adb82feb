"""Changed settings of a resumed run are refused, reported or accepted, depending on the setting."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from npformer import Transformer
from npformer.checkpoint import load_arrays, save_arrays
from tests.train.runs import SETTINGS, refusal, settings, start, stopped_at
from train.adam import Adam
from train.corpora.corpus import Corpus
from train.runs.metrics import read_metrics
from train.runs.progress import Progress, Validations
from train.runs.restored import restored
from train.runs.run import Run
from train.settings import TrainSettings
from train.trainer import Trainer


@pytest.fixture(scope="module")
def stopped(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after four of nine steps, in the middle of an epoch."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    stopped_at(4, SETTINGS, corpus, out)
    return out


def resumed(corpus: Corpus, run: Path, chosen: TrainSettings) -> tuple[Trainer, list[str]]:
    """A resumed run, and its messages."""
    told: list[str] = []
    return Trainer.resume(chosen, corpus, Run(run), tell=told.append), told


def test_every_setting_says_whether_it_may_change() -> None:
    kinds = {f.name: f.metadata.get("may_change") for f in dataclasses.fields(TrainSettings)}
    assert kinds.pop("model") is None  # its fields have their own kinds
    assert set(kinds.values()) == {True, False}


def test_a_resumed_run_reports_what_was_restored(corpus: Corpus, stopped: Path) -> None:
    trainer, told = resumed(corpus, stopped, SETTINGS)
    assert told == [
        "step 4: adam and its moments are those of the state",
        f"data: epoch {trainer.position.epoch}, after batch {trainer.position.batch}",
        "random streams: seed 3, dropout of step 5",
        f"schedule: paper, learning rate {trainer.rate(5):.3g} next",
    ]


def test_the_best_validation_is_reported(corpus: Corpus, tmp_path: Path) -> None:
    start(settings(validate_every=3), corpus, tmp_path / "run")
    told: list[str] = []
    chosen = settings(validate_every=3)
    Trainer.resume(chosen, corpus, Run(tmp_path / "run"), tell=told.append)
    assert "best validation loss: " in told[-1]


@pytest.mark.parametrize(
    ("since", "ago"),
    [(0, "the last validation"), (1, "1 validation ago"), (2, "2 validations ago")],
)
def test_the_best_score_is_named_as_it_is_written(since: int, ago: str) -> None:
    chosen = settings(best_by="chrf", bleu_every=4)
    progress = Progress(validations=Validations(9, 31.5, 4, since))
    optimizer = Adam(Transformer(chosen.transformer_config(50)).buffer)
    lines = restored(chosen, progress, optimizer, chosen.learning_rate(8), 1, [])
    assert lines[-1] == f"best chrF: 31.500, of step 4, {ago}"


def test_a_validation_whose_loss_is_not_a_number_is_not_reported_as_the_best(
    corpus: Corpus, tmp_path: Path
) -> None:
    run = start(settings(validate_every=3), corpus, tmp_path / "run").run
    entries = read_metrics(run.directory)
    next(entry for entry in entries if "valid_loss" in entry)["valid_loss"] = float("nan")
    run.metrics.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    told: list[str] = []
    Trainer.resume(settings(validate_every=3), corpus, run, tell=told.append)
    assert re.fullmatch(r"best validation loss: \d\.\d{3}, of step [69]", told[-1])


def test_the_backend_that_was_used_without_a_choice_may_be_named(
    corpus: Corpus, stopped: Path
) -> None:
    _, told = resumed(corpus, stopped, settings(backend="numpy"))
    assert told[4:] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_norm": 1.5}, "clip_norm is 1.5 from now on; it was 0.0"),
        ({"keep_checkpoints": 7}, "keep_checkpoints is 7 from now on; it was 2"),
        ({"max_minutes": 5.0}, "max_minutes is 5.0 from now on; it was 0.0"),
        ({"max_steps": 20}, "max_steps is 20 from now on; it was 9"),  # the rate stays the same
        ({"accumulate": 2}, "accumulate is 2 from now on; it was 1"),
        ({"beta2": 0.99}, "beta2 is 0.99 from now on; it was 0.98"),
        ({"bleu_tokenize": "none"}, "bleu_tokenize is none from now on; it was 13a"),
        (
            {"model": dataclasses.replace(SETTINGS.model, dropout=0.4)},
            "model.dropout is 0.4 from now on; it was 0.3",
        ),
        (
            {"model": dataclasses.replace(SETTINGS.model, smoothing=0.0)},
            "model.smoothing is 0.0 from now on; it was 0.1",
        ),
    ],
)
def test_changed_settings_are_reported(
    corpus: Corpus, stopped: Path, changes: dict[str, Any], message: str
) -> None:
    _, told = resumed(corpus, stopped, settings(**changes))
    assert told[4:] == [message]


def test_another_learning_rate_is_reported_before_it_is_used(
    corpus: Corpus, tmp_path: Path
) -> None:
    cosine = settings(schedule="cosine", warmup=2, peak_rate=1e-3)
    start(cosine, corpus, tmp_path / "run")
    told: list[str] = []
    longer = dataclasses.replace(cosine, max_steps=18)
    trainer = Trainer.resume(longer, corpus, Run(tmp_path / "run"), tell=told.append)
    assert told[-2:] == [
        "max_steps is 18 from now on; it was 9",
        f"the learning rate of step 10 is {trainer.rate(10):.3g}; with the settings before it "
        "would have been 0",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "seed is 3 in this run, and cannot become 4; start a new run with another"),
        (
            {"model": dataclasses.replace(SETTINGS.model, d_ff=16)},
            "has a model with d_ff = 8, and cannot be resumed with 16",
        ),
        (
            {"model": dataclasses.replace(SETTINGS.model, norm="pre")},
            "has a model with norm = 'post', and cannot be resumed with 'pre'",
        ),
    ],
)
def test_settings_that_would_make_another_run_are_refused(
    corpus: Corpus, stopped: Path, changes: dict[str, Any], message: str
) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*.*")}
    assert message in refusal(lambda: Trainer.resume(settings(**changes), corpus, Run(stopped)))
    assert {path: path.read_bytes() for path in stopped.rglob("*.*")} == before


def test_with_another_batch_size_a_run_resumes_at_the_same_share_of_the_epoch(
    corpus: Corpus, tmp_path: Path
) -> None:
    larger = settings(batch_tokens=100)
    stopped_at(2, larger, corpus, tmp_path / "run")
    taken = Trainer.start(larger, corpus, Run(tmp_path / "a")).batches.plan(0)[:2]
    told: list[str] = []
    trainer = Trainer.resume(
        settings(batch_tokens=60), corpus, Run(tmp_path / "run"), tell=told.append
    )
    batch, plan = trainer.position.batch, trainer.batches.plan(0)
    assert sum(map(len, plan[: batch - 1])) < sum(map(len, taken)) <= sum(map(len, plan[:batch]))
    assert told[-2:] == [
        "batch_tokens is 60 from now on; it was 100",
        f"epoch 0: the 2 batches that were taken count as {batch} of the new size",
    ]
    trainer.stop_requested = True
    trainer.train()
    told.clear()
    Trainer.resume(settings(batch_tokens=60), corpus, Run(tmp_path / "run"), tell=told.append)
    assert not any("batches that were taken" in line for line in told)  # reported only once


def test_a_state_without_settings_is_compared_with_train_yaml(
    corpus: Corpus, tmp_path: Path
) -> None:
    run = start(settings(max_steps=2), corpus, tmp_path / "run").run
    arrays, about = load_arrays(run.state)
    for name in ("settings", "run", "progress"):
        del about[name]
    save_arrays(run.state, arrays, about)
    for path in run.checkpoints.paths():
        path.unlink()
    text = run.settings.read_text().splitlines()
    assert text[1].startswith("# run ")
    run.settings.write_text("\n".join([text[0], *text[2:]]) + "\n")
    assert "seed is 3" in refusal(lambda: Trainer.resume(settings(seed=4), corpus, run))
    told: list[str] = []
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "run"), tell=told.append).train()
    assert told[-1] == "max_steps is 9 from now on; it was 2"
    start(SETTINGS, corpus, tmp_path / "whole")
    assert yaml.safe_load(run.settings.read_text()) == yaml.safe_load(
        (tmp_path / "whole" / "train.yaml").read_text()
    )
