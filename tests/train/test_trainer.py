"""Training: the files of a run, its end, and validation."""

import dataclasses
import math
import os
from collections.abc import Container
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import yaml

from autograd.cuda import products
from npformer import Batch, Translator
from npformer.checkpoint import load_arrays
from tests.train.runs import SETTINGS, assert_same_run, refusal, settings, start, timeless
from tests.train.small_corpus import PAIRS, write
from train.average import average_checkpoints
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.runs.log_entry import LogEntry
from train.runs.metrics import read_metrics
from train.runs.progress import Skips
from train.runs.run import Run
from train.settings import settings_from_dict
from train.step import train_step
from train.trainer import Trainer
from train.validation import Validation

# The files of a run


def test_the_newest_checkpoints_are_kept(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(settings(checkpoint_every=2, keep_checkpoints=3), corpus, tmp_path / "run")
    names = [p.name for p in trainer.run.checkpoints.paths()]
    assert names == [f"{step:08d}.safetensors" for step in (6, 8, 9)]
    newest, metadata = load_arrays(trainer.run.checkpoints.paths()[-1])
    assert metadata["step"] == 9
    for name, parameter in trainer.model.parameters().items():
        np.testing.assert_array_equal(newest[name], parameter.numpy())
    assert not list((tmp_path / "run").rglob(".*"))


def test_an_average_is_the_mean_of_the_newest_checkpoints(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(settings(checkpoint_every=2, keep_checkpoints=9), corpus, tmp_path / "run")
    newest = [load_arrays(p)[0] for p in trainer.run.checkpoints.paths()[-3:]]
    average = average_checkpoints(tmp_path / "run", 3)
    assert average.keys() == newest[0].keys()
    for name, values in average.items():
        expected = np.mean([c[name].astype(np.float64) for c in newest], axis=0)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-9, err_msg=name)
    for name, values in average_checkpoints(tmp_path / "run", 1).items():
        np.testing.assert_array_equal(values, newest[-1][name])
    message = refusal(lambda: average_checkpoints(tmp_path / "run", 6))
    assert "holds 5 checkpoints, and --last asks for 6" in message


def test_a_run_is_a_model_directory(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(SETTINGS, corpus, tmp_path / "run")
    longest = max(len(corpus.tokenizers.source.encode(source)) for source, _ in PAIRS)
    assert Translator.load(tmp_path / "run").longest_source == longest
    lines = [source for source, _ in PAIRS[:4]]
    ours = Translator(trainer.model, corpus.tokenizers).translate(lines, extra_length=5)
    assert Translator.load(tmp_path / "run").translate(lines, extra_length=5) == ours


def test_a_runs_settings_are_saved(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(SETTINGS, corpus, tmp_path / "run")
    assert (
        settings_from_dict(yaml.safe_load((tmp_path / "run" / "train.yaml").read_text()))
        == SETTINGS
    )
    assert trainer.run.identity.corpus() == corpus.fingerprint


def test_the_log_holds_the_reported_entries(corpus: Corpus, tmp_path: Path) -> None:
    reported: list[LogEntry | Validation] = []
    trainer = Trainer.start(settings(log_every=3, bleu_every=6), corpus, Run(tmp_path / "run"))
    trainer.train(reported.append)
    entries = [e for e in reported if isinstance(e, LogEntry)]
    validations = [e for e in reported if isinstance(e, Validation)]
    assert [e.step for e in entries] == [3, 6, 9]
    assert [(e.step, e.bleu is not None) for e in validations] == [
        (4, False),
        (6, True),
        (8, False),
    ]
    assert "BLEU" not in str(validations[0])
    assert "tok:13a" in str(validations[1].signature)
    logged = read_metrics(tmp_path / "run")
    expected = [
        {k: v for k, v in dataclasses.asdict(e).items() if v is not None and k != "samples"}
        for e in reported
    ]
    assert logged == expected
    for entry in entries:
        assert entry.rate == trainer.rate(entry.step)
        # The perplexity is that of the likelihood, not of the smoothed loss.
        assert entry.perplexity != pytest.approx(math.exp(entry.loss), rel=1e-6)
        assert entry.tokens_per_second > 0


def test_a_log_entry_is_the_mean_over_its_steps(corpus: Corpus, tmp_path: Path) -> None:
    start(settings(max_steps=4), corpus, tmp_path / "each")
    start(settings(max_steps=4, log_every=4), corpus, tmp_path / "all")
    each = [e for e in read_metrics(tmp_path / "each") if "loss" in e]
    (mean,) = (e for e in read_metrics(tmp_path / "all") if "loss" in e)
    assert mean["gradient_norm"] == pytest.approx(np.mean([e["gradient_norm"] for e in each]))
    # A mean over the tokens of the same steps.
    assert min(e["loss"] for e in each) < mean["loss"] < max(e["loss"] for e in each)
    assert mean["step"] == 4


def test_a_gpus_choices_are_kept_in_the_run_while_it_trains(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str | None] = []

    def watched(*arguments: Any) -> Any:
        kept.append(products._of_run)
        return train_step(*arguments)

    monkeypatch.setattr("train.loop.train_step", watched)
    start(settings(max_steps=2), corpus, tmp_path / "run")
    assert kept == [str(tmp_path / "run" / "training" / "products")] * 2
    assert products._of_run is None


# The end of training


def test_training_ends_after_max_minutes(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "run"
    hasty = settings(max_minutes=1e-9)
    assert start(hasty, corpus, out).position.step == 1
    assert Trainer.resume(hasty, corpus, Run(out)).train().step == 1  # the time is up already
    assert Trainer.resume(SETTINGS, corpus, Run(out)).train().step == SETTINGS.max_steps
    start(SETTINGS, corpus, tmp_path / "whole")
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_parameters_that_are_not_finite_are_not_saved(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(settings(max_steps=2), corpus, tmp_path / "run")
    trainer.optimizer.first[...] = np.inf  # the third step jumps
    trainer.settings = settings(max_steps=3)
    before = {path: path.read_bytes() for path in trainer.run.directory.rglob("*.safetensors")}
    message = refusal(trainer.train)
    assert "training diverged: after step 3 parameter." in message
    assert "resume from the checkpoint before (--resume) with a lower learning rate" in message
    after = {path: path.read_bytes() for path in trainer.run.directory.rglob("*.safetensors")}
    assert after == before
    assert Trainer.resume(SETTINGS, corpus, trainer.run).train().step == SETTINGS.max_steps


class Skipping:
    """A step that is taken with a loss that is not finite, at some steps."""

    def __init__(self, trainer: Trainer, steps: Container[int]) -> None:
        self.trainer, self.steps, self.taken = trainer, steps, trainer.optimizer.gradient_norm
        trainer.optimizer.gradient_norm = self.gradient_norm  # type: ignore[method-assign]

    def gradient_norm(self) -> Any:
        norm = self.taken()
        return norm * np.float32(np.nan) if self.trainer.position.step + 1 in self.steps else norm


def test_a_step_that_is_not_finite_is_skipped_and_counted(corpus: Corpus, tmp_path: Path) -> None:
    trainer = Trainer.start(settings(log_every=3, max_steps=9), corpus, Run(tmp_path / "run"))
    parameters = []
    skipping = Skipping(trainer, {2, 7, 8, 9})
    step = trainer.optimizer.step

    def watched(rate: float, scale: Any) -> None:
        step(rate, scale)
        parameters.append(trainer.model.buffer.values.copy())

    with patch.object(trainer.optimizer, "step", watched):
        trainer.train()
    same = [n for n in range(2, 10) if (parameters[n - 1] == parameters[n - 2]).all()]
    assert same == sorted(skipping.steps) == [2, 7, 8, 9]
    entries = [entry for entry in read_metrics(tmp_path / "run") if "loss" in entry]
    assert [entry["skipped"] for entry in entries] == [1, 0, 3]
    assert [math.isfinite(entry["loss"]) for entry in entries] == [True, True, False]
    assert trainer.progress.skips == Skips(total=4, in_a_row=3)
    assert load_arrays(trainer.run.state)[1]["position"]["step"] == 9


def test_a_run_that_is_stopped_while_it_skips_resumes_from_before(
    corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(log_every=2)
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    Skipping(trainer, {6})
    trainer.train(lambda entry: setattr(trainer, "stop_requested", entry.step == 6))
    assert (trainer.position.step, trainer.saved_step) == (6, 5)
    assert load_arrays(trainer.run.state)[1]["position"]["step"] == 5
    Trainer.resume(chosen, corpus, trainer.run).train()
    start(chosen, corpus, tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_several_steps_in_a_row_that_are_not_finite_end_the_run(
    corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(checkpoint_every=2, max_skipped=4)
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    Skipping(trainer, range(4, 99))
    message = refusal(trainer.train)
    assert "training diverged, with 4 steps skipped in a row, up to step 7; in" in message
    assert "Resume from step 2 (--resume) with a lower learning rate or a clip_norm" in message
    # Not step 4, after which the parameters may be the fault.
    assert load_arrays(trainer.run.state)[1]["position"]["step"] == 2
    Trainer.resume(chosen, corpus, trainer.run).train()
    start(chosen, corpus, tmp_path / "whole")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_training_lowers_the_loss(corpus: Corpus, tmp_path: Path) -> None:
    chosen = settings(
        max_steps=60, schedule="constant", peak_rate=0.01, warmup=1, validate_every=60
    )
    start(chosen, corpus, tmp_path / "run")
    losses = [e["loss"] for e in read_metrics(tmp_path / "run") if "loss" in e]
    assert np.mean(losses[-5:]) < 0.75 * losses[0]


# Validation


@pytest.mark.parametrize("extra", [{"validate_every": 1}, {"bleu_every": 2, "bleu_beam": 2}])
def test_validation_does_not_change_training(
    corpus: Corpus, tmp_path: Path, extra: dict[str, int]
) -> None:
    start(settings(validate_every=1000), corpus, tmp_path / "without")
    start(settings(**extra), corpus, tmp_path / "with")
    states = [load_arrays(Run(tmp_path / name).state)[0] for name in ("without", "with")]
    for name in states[0]:
        np.testing.assert_array_equal(states[0][name], states[1][name], err_msg=name)
    steps = [
        [e for e in timeless(read_metrics(tmp_path / name)) if "loss" in e]
        for name in ("without", "with")
    ]
    assert steps[0] == steps[1]


def test_validation_covers_every_pair_without_dropout(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(settings(max_steps=2), corpus, tmp_path / "run")
    found = trainer.validate(with_bleu=False)
    assert found == dataclasses.replace(trainer.validate(with_bleu=False))
    ids = corpus.tokenizers.target
    whole = Batch.of(
        [corpus.valid.source(i) for i in range(len(corpus.valid))],
        [corpus.valid.target(i) for i in range(len(corpus.valid))],
        begin_id=ids.begin_id,
        end_id=ids.end_id,
    )
    loss, nll = trainer.model.losses(whole)
    assert found.valid_loss == pytest.approx(float(loss) / whole.target_tokens, rel=1e-5)
    assert found.valid_perplexity == pytest.approx(
        math.exp(float(nll) / whole.target_tokens), rel=1e-4
    )
    assert found.bleu is None
    assert 0 <= trainer.validate(with_bleu=True).bleu <= 100


def test_pairs_too_long_for_a_batch_are_refused_before_training(
    corpus: Corpus, tmp_path: Path
) -> None:
    message = refusal(lambda: start(settings(batch_tokens=3), corpus, tmp_path / "run"))
    assert message.startswith("training pair 19 of the corpus has ")
    assert "raise batch_tokens, which is 3, or" in message
    assert not os.path.exists(tmp_path / "run")


def test_the_split_of_a_pair_that_is_too_long_is_named(tmp_path: Path) -> None:
    texts = [write(tmp_path / f"{i}", ["a b c", "a b c d " * (1 + 9 * (i > 1))]) for i in range(4)]
    corpus = prepare(*texts, tmp_path / "corpus", vocab_size=266)
    message = refusal(lambda: start(settings(batch_tokens=50), corpus, tmp_path / "run"))
    assert message.startswith("validation pair 2 of the corpus has ")
