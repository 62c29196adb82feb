"""What a run saves besides its newest state: the best model, averages, samples, checkpoints."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from npformer.beam_search import SearchSettings
from npformer.checkpoint import load_arrays, load_model, parameter_arrays
from npformer.errors import UserError
from npformer.translator import Translator
from tests.train.runs import assert_same_run, refusal, settings, start, stopped_at
from tests.without_gpu.strict_arrays import StrictArray
from train import loop as loop_module
from train import validation
from train.cli.commands.training import _ending
from train.corpora.corpus import Corpus
from train.moving_average import MovingAverage
from train.runs import run as run_module
from train.runs.best import BestModel
from train.runs.metrics import read_metrics
from train.runs.run import Run
from train.runs.samples import samples_path
from train.settings import TrainSettings
from train.trainer import Trainer

# Validations happen at steps with and without a checkpoint, and with and without scores.
EVERYTHING: dict[str, Any] = {
    "max_steps": 9,
    "ema": 0.9,
    "best_by": "loss",
    "samples": 2,
    "validate_every": 2,
    "checkpoint_every": 4,
    "keep_checkpoints": 1,
    "keep_every": 8,
    "peak_rate": 1.0,  # so high that step 4 is the best
    "schedule": "constant",
}


@pytest.fixture(scope="module", autouse=True)
def short_translations() -> Iterator[None]:
    """Validations translate to at most five tokens more than the source, not fifty: a model that
    has learned nothing rarely stops by itself."""
    with patch.object(validation, "SearchSettings", partial(SearchSettings, extra_length=5)):
        yield


class KilledError(BaseException):
    """Stands for a signal that cannot be handled."""


def resume(chosen: TrainSettings, corpus: Corpus, out: Path, **more: Any) -> Trainer:
    trainer = Trainer.resume(chosen, corpus, Run(out), **more)
    trainer.train()
    return trainer


def losses(run: Path) -> dict[int, float]:
    """The loss of each validation, by step."""
    return {e["step"]: e["valid_loss"] for e in read_metrics(run) if "valid_loss" in e}


def samples(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in samples_path(run).read_text().split("\n")[:-1]]


@pytest.fixture(scope="module")
def whole(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all of these, which was never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    start(settings(**EVERYTHING), corpus, out)
    return out


# Exact resumption


@pytest.mark.parametrize("step", [1, 2, 4, 6, 8])
def test_a_resumed_run_has_the_same_best_model_average_and_samples(
    step: int, whole: Path, corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(**EVERYTHING)
    stopped_at(step, chosen, corpus, tmp_path / "run")
    resume(chosen, corpus, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def kill(patch: pytest.MonkeyPatch, owner: Any, name: str, call: int, before: bool = False) -> None:
    """Kill the run before or after a call of a function."""
    function, calls = getattr(owner, name), []

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        is_it = len(calls) == call + 1
        if is_it and before:
            raise KilledError
        result = function(*args, **kwargs)
        if is_it:
            raise KilledError
        return result

    patch.setattr(owner, name, killed)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (loop_module, "append_samples", 1),  # of step 4, which has a checkpoint
        (loop_module, "append_samples", 2),  # of step 6, which has none
        (BestModel, "keep", 0),
        (BestModel, "keep", 1),
        (run_module, "append_metrics", 2),
        (run_module, "append_metrics", 5),
        (run_module, "save_state", 0),
        (run_module, "save_state", 1),
        (BestModel, "publish", 1),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_before_or_after_a_validation_does_not_change_the_run(
    owner: Any,
    name: str,
    call: int,
    before: bool,
    whole: Path,
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = settings(**EVERYTHING)
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    with monkeypatch.context() as patch:
        kill(patch, owner, name, call, before)
        with pytest.raises(KilledError):
            trainer.train()
    resume(chosen, corpus, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize("step", [2, 4])
def test_a_kill_after_a_postponed_validation_does_not_change_the_run(
    step: int, whole: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(**EVERYTHING)
    stopped_at(step, chosen, corpus, tmp_path / "run")
    with monkeypatch.context() as patch:
        kill(patch, run_module, "append_metrics", 0)
        with pytest.raises(KilledError):
            resume(chosen, corpus, tmp_path / "run")
    assert step in losses(tmp_path / "run")
    resume(chosen, corpus, tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


# The moving average


def test_the_average_is_saved_and_validated(whole: Path, corpus: Corpus, tmp_path: Path) -> None:
    arrays, _ = load_arrays(Run(whole).state)
    saved = load_arrays(whole / "model.safetensors")[0]
    trainer = Trainer.resume(settings(**EVERYTHING), corpus, Run(whole))
    trainer.run.unlock()
    assert isinstance(trainer.optimizer, MovingAverage)
    with trainer.optimizer.in_place():
        average = {name: a.copy() for name, a in parameter_arrays(trainer.model).items()}
    for name, array in saved.items():
        np.testing.assert_array_equal(array, average[name])
        assert name.endswith("bias") or not np.array_equal(array, arrays[f"parameter.{name}"])
    [checkpoint] = [p for p in Run(whole).checkpoints.paths() if p.stem == "00000009"]
    np.testing.assert_equal(load_arrays(checkpoint)[0], saved)


@pytest.mark.parametrize("device", [{}, {"backend": "strict", "precision": "bf16"}])
def test_averaging_does_not_change_training(
    device: dict[str, str], corpus: Corpus, tmp_path: Path
) -> None:
    start(settings(ema=0.9, **device), corpus, tmp_path / "with")
    start(settings(**device), corpus, tmp_path / "without")
    one, other = (load_arrays(Run(tmp_path / n).state)[0] for n in ("with", "without"))
    assert one.keys() - other.keys() == {"adam.average"}
    for name, array in other.items():
        np.testing.assert_array_equal(one[name], array)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_an_average_on_another_backend_resumes_exactly(
    precision: str, corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(**EVERYTHING, backend="strict", precision=precision)
    trainer = start(chosen, corpus, tmp_path / "whole")
    assert isinstance(trainer.optimizer.average, StrictArray)  # type: ignore[attr-defined]
    stopped_at(5, chosen, corpus, tmp_path / "run")
    resume(chosen, corpus, tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_another_decay_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    start(settings(ema=0.9, max_steps=2), corpus, tmp_path / "run")
    with pytest.raises(Exception, match=r"ema is 0\.9 in this run, and cannot become 0\.5"):
        Trainer.resume(settings(ema=0.5), corpus, Run(tmp_path / "run"))


def test_fine_tuning_starts_the_average_with_the_model(
    whole: Path, corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(ema=0.9, init_from=str(whole))
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    trainer.run.unlock()
    saved = load_arrays(tmp_path / "run" / "model.safetensors")[0]
    np.testing.assert_equal(saved, load_arrays(whole / "model.safetensors")[0])


# The best model


def test_the_best_model_has_the_lowest_loss(whole: Path, corpus: Corpus) -> None:
    found = losses(whole)
    best = min(found, key=found.__getitem__)
    assert load_arrays(whole / "best" / "model.safetensors")[1]["step"] == best
    trainer = Trainer.resume(settings(**EVERYTHING), corpus, Run(whole))
    trainer.run.unlock()
    model = load_model(whole / "best")
    with trainer.optimizer.in_place():  # type: ignore[attr-defined]
        trainer.model.buffer.values[...] = model.buffer.values
    trainer.optimizer.average[...] = model.buffer.values  # type: ignore[attr-defined]
    assert trainer.validate(False).valid_loss == pytest.approx(found[best], rel=1e-6)
    assert Translator.load(whole / "best").translate(["A dog runs."])


@pytest.mark.parametrize("by", ["bleu", "chrf"])
def test_the_best_score_is_the_highest(by: str, corpus: Corpus, tmp_path: Path) -> None:
    chosen = settings(best_by=by, bleu_every=2, validate_every=3, max_steps=4)
    trainer = start(chosen, corpus, tmp_path / "run")
    scored = [e for e in read_metrics(tmp_path / "run") if "bleu" in e]
    assert [e["step"] for e in scored] == [2, 4]
    assert all(("chrf" in e) == (by == "chrf") for e in scored)
    best = max(scored, key=lambda e: e[by])
    assert trainer.progress.validations.best == best[by]
    assert trainer.progress.validations.best_step == best["step"]
    assert trainer.progress.validations.step == 4


def test_a_file_in_the_place_of_the_best_model_is_reported_and_nothing_is_lost(
    corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(best_by="loss", validate_every=2, checkpoint_every=2, max_steps=4)
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    (tmp_path / "run" / "best").write_text("mine")
    assert f"cannot create {tmp_path / 'run' / 'best'}" in refusal(trainer.train)
    (tmp_path / "run" / "best").unlink()
    assert resume(chosen, corpus, tmp_path / "run").position.step == 4
    assert load_model(tmp_path / "run" / "best")


def test_training_ends_after_the_patience_is_exhausted(corpus: Corpus, tmp_path: Path) -> None:
    """With a learning rate of zero no validation is better than the first."""
    chosen = settings(
        best_by="loss", patience=2, validate_every=1, schedule="constant", peak_rate=0.0
    )
    trainer = start(chosen, corpus, tmp_path / "run")
    assert (trainer.position.step, trainer.progress.validations.best_step) == (3, 1)
    assert Run(tmp_path / "run").checkpoints.has(3)
    assert resume(chosen, corpus, tmp_path / "run").position.step == 3
    more = dataclasses.replace(chosen, patience=4)
    assert resume(more, corpus, tmp_path / "run").position.step == 5


def test_another_measure_restarts_the_search_and_is_reported(
    corpus: Corpus, tmp_path: Path
) -> None:
    start(settings(best_by="loss", validate_every=2, max_steps=4), corpus, tmp_path / "run")
    told: list[str] = []
    chosen = settings(best_by="bleu", validate_every=2, bleu_every=2, max_steps=6)
    trainer = resume(chosen, corpus, tmp_path / "run", tell=told.append)
    assert "best_by is bleu from now on; it was loss" in told
    assert (
        f"the best validation so far is forgotten; {tmp_path / 'run' / 'best'} keeps its model, "
        "the best by loss, until a new one is the best by bleu"
    ) in told
    [best] = [line for line in told if line.startswith("best ")]
    assert best.startswith("best validation loss: ")
    assert trainer.progress.validations.best_step == 6


@pytest.mark.parametrize(
    ("before", "changes", "forgotten"),
    [
        ({"best_by": "loss"}, {"model.smoothing": 0.3}, True),
        ({"best_by": "loss"}, {"model.smoothing_over": "others"}, True),
        ({"best_by": "loss"}, {"bleu_beam": 2, "model.dropout": 0.5}, False),
        ({"best_by": "bleu"}, {"bleu_tokenize": "none"}, True),
        ({"best_by": "bleu"}, {"bleu_beam": 2}, True),
        ({"best_by": "bleu"}, {"model.smoothing": 0.3}, False),
        ({"best_by": "chrf"}, {"bleu_beam": 2}, True),
        ({"best_by": "chrf"}, {"bleu_tokenize": "none"}, False),
        ({"best_by": "none"}, {"best_by": "loss"}, False),  # there is nothing to forget
    ],
)
def test_a_best_score_that_later_ones_do_not_compare_with_is_forgotten(
    before: dict[str, Any],
    changes: dict[str, Any],
    forgotten: bool,
    corpus: Corpus,
    tmp_path: Path,
) -> None:
    """With more smoothing, say, every loss is higher, and patience would soon end the run."""
    chosen = settings(validate_every=2, bleu_every=2, max_steps=2, **before)
    start(chosen, corpus, tmp_path / "run")
    of_model = {name[6:]: value for name, value in changes.items() if name[:6] == "model."}
    model = dataclasses.replace(chosen.model, **of_model)
    others = {name: value for name, value in changes.items() if name[:6] != "model."}
    told: list[str] = []
    other = dataclasses.replace(chosen, model=model, **others)
    trainer = resume(other, corpus, tmp_path / "run", tell=told.append)
    assert any("is forgotten" in line for line in told) == forgotten
    had_one = before["best_by"] != "none"
    assert bool(trainer.progress.validations.best_step) == (had_one and not forgotten)


# Samples


def test_samples_are_translations_of_fixed_sentences(whole: Path, corpus: Corpus) -> None:
    found = samples(whole)
    sources, references = corpus.valid_text()
    assert [entry["step"] for entry in found] == [2, 2, 4, 4, 6, 6, 8, 8]
    half = len(sources) // 2
    assert {(e["source"], e["reference"]) for e in found} == {
        (sources[0], references[0]),
        (sources[half], references[half]),
    }


# Checkpoints


def test_checkpoints_at_multiples_of_keep_every_are_kept(corpus: Corpus, tmp_path: Path) -> None:
    chosen = settings(checkpoint_every=1, keep_checkpoints=2, keep_every=3)
    start(chosen, corpus, tmp_path / "run")
    kept = [int(path.stem) for path in Run(tmp_path / "run").checkpoints.paths()]
    assert kept == [3, 6, 8, 9]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"checkpoint_every": 4}, "keep_every must be a multiple of checkpoint_every, which is 4"),
        ({"checkpoint_every": 0, "checkpoint_minutes": 5.0}, "not by minutes alone; give checkp"),
    ],
)
def test_a_keep_every_for_which_there_are_no_checkpoints_is_refused(
    changes: dict[str, Any], problem: str, corpus: Corpus, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    useless = settings(keep_every=6, **changes)
    assert problem in refusal(lambda: Trainer.start(useless, corpus, Run(out)))
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:  # an older run has such settings
        patch.setattr(TrainSettings, "check_keep_every", lambda settings: None)
        start(dataclasses.replace(useless, max_steps=2), corpus, out)
    assert problem in refusal(lambda: Trainer.resume(useless, corpus, Run(out)))
    resume(settings(keep_every=6, checkpoint_every=3, max_steps=3), corpus, out)


def test_checkpoints_are_saved_every_few_minutes(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock takes five seconds: one a step, and two a validation."""
    clock = [0.0]

    def ticking() -> float:
        clock[0] += 5
        return clock[0]

    monkeypatch.setattr("train.loop.time", SimpleNamespace(monotonic=ticking))
    chosen = settings(checkpoint_every=0, checkpoint_minutes=0.5, keep_checkpoints=9, log_every=99)
    trainer = start(chosen, corpus, tmp_path / "run")
    kept = [int(path.stem) for path in Run(tmp_path / "run").checkpoints.paths()]
    assert kept == [6, 9]  # the first after half a minute, and the end
    assert trainer.progress.checkpoints.seconds == trainer.position.seconds


@pytest.mark.parametrize(
    ("signalled", "said"),
    [("run.save", "done at step 4"), ("optimizer.step", "stopped at step 4; continue with ")],
)
def test_a_signal_at_the_end_leaves_a_finished_run_unless_its_last_validation_is_missing(
    signalled: str, said: str, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer.start(settings(max_steps=4), corpus, Run(tmp_path / "run"))
    owner, name = (getattr(trainer, signalled.split(".")[0]), signalled.split(".")[1])
    function = getattr(owner, name)

    def signalling(*args: Any, **kwargs: Any) -> None:
        function(*args, **kwargs)
        trainer.stop_requested |= trainer.optimizer.steps == 4

    monkeypatch.setattr(owner, name, signalling)
    assert trainer.train().step == 4
    assert _ending(trainer, 4).startswith(said)


def test_a_best_model_that_was_removed_is_not_said_to_be_there(
    corpus: Corpus, tmp_path: Path
) -> None:
    trainer = start(settings(max_steps=4, best_by="loss"), corpus, tmp_path / "run")
    assert f"; {tmp_path / 'run' / 'best'} has the best model, with loss " in _ending(trainer, 4)
    shutil.rmtree(tmp_path / "run" / "best")
    assert f"at step 4, is no longer in {tmp_path / 'run' / 'best'}" in _ending(trainer, 4)


@pytest.mark.parametrize("byte", [3, -9])
def test_a_damaged_best_model_that_waits_is_refused_with_what_to_do(
    byte: int, corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(max_steps=4, best_by="loss")
    run = start(chosen, corpus, tmp_path / "run").run
    waiting = load_arrays(run.best.directory / "model.safetensors")[0]
    run.best.keep(waiting, 4, run.identity.id)
    content = bytearray(run.best.waiting.read_bytes())
    content[byte] ^= 1
    run.best.waiting.write_bytes(content)
    with pytest.raises(UserError, match="delete it, and --resume goes on without") as caught:
        Trainer.resume(chosen, corpus, Run(run.directory))
    assert "\n" not in str(caught.value)
    run.best.waiting.unlink()
    resume(chosen, corpus, run.directory)
