"""A resumed run is the same as an uninterrupted one."""

import dataclasses
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from autograd import DropoutStream
from npformer.checkpoint import load_arrays, load_model
from tests.train.runs import SETTINGS, assert_same_run, refusal, settings, start, stopped_at
from tests.train.small_corpus import make_corpus
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.runs.metrics import read_metrics
from train.runs.run import Run
from train.settings import ModelSettings, TrainSettings
from train.step import train_step
from train.trainer import Trainer


@pytest.mark.parametrize("step", [1, 4, 5, 8])
@pytest.mark.parametrize("changes", [{}, {"accumulate": 3}, {"log_every": 4}, {"log_every": 6}])
def test_a_resumed_run_equals_one_that_was_never_stopped(
    corpus: Corpus, tmp_path: Path, step: int, changes: dict[str, int]
) -> None:
    chosen = settings(**changes)
    whole = start(chosen, corpus, tmp_path / "whole")
    assert whole.position.epoch > 0  # the run passes the end of an epoch
    stopped_at(step, chosen, corpus, tmp_path / "parts")
    Trainer.resume(chosen, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_run_may_stop_after_every_step(corpus: Corpus, tmp_path: Path) -> None:
    chosen = settings(max_steps=7)
    start(chosen, corpus, tmp_path / "whole")
    stopped_at(1, chosen, corpus, tmp_path / "parts")
    for step in range(2, 8):
        trainer = Trainer.resume(chosen, corpus, Run(tmp_path / "parts"))
        trainer.stop_requested = True
        assert trainer.train().step == step
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_an_interrupted_step_of_several_batches_is_repeated(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(accumulate=3, log_every=4)
    start(chosen, corpus, tmp_path / "whole")
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "parts"))

    def stopped(*arguments: Any) -> Any:
        trainer.stop_requested = trainer.position.step == 3  # as by a signal in the first batch
        return train_step(*arguments)

    monkeypatch.setattr("train.loop.train_step", stopped)
    assert trainer.train().step == 3
    monkeypatch.undo()
    Trainer.resume(chosen, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_validation_that_a_kill_prevented_is_done_on_resuming(
    corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(checkpoint_every=4)  # with every validation
    start(chosen, corpus, tmp_path / "whole")
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "parts"))
    with (
        patch.object(Trainer, "validate", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        trainer.train()
    assert trainer.position.step == 4
    Trainer.resume(chosen, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_finished_run_resumes_only_if_max_steps_is_raised(corpus: Corpus, tmp_path: Path) -> None:
    start(SETTINGS, corpus, tmp_path / "whole")
    start(settings(max_steps=5), corpus, tmp_path / "parts")
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_metrics_after_the_checkpoint_are_replaced(corpus: Corpus, tmp_path: Path) -> None:
    start(SETTINGS, corpus, tmp_path / "whole")
    start(settings(max_steps=5), corpus, tmp_path / "parts")
    with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
        later = {"step": 6, "loss": 99.0, "perplexity": 9, "rate": 1, "seconds": 1}
        file.write(f'{json.dumps(later)}\n{{"step": 7, "lo')
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


KILLED = settings(max_steps=40, checkpoint_every=1, keep_checkpoints=3)


MORE = [pytest.param(attempt, marks=pytest.mark.campaign) for attempt in range(2, 50)]


@pytest.mark.parametrize("attempt", [0, 1, *MORE])
def test_a_killed_run_leaves_complete_files_and_resumes(
    corpus: Corpus, tmp_path: Path, attempt: int
) -> None:
    out = tmp_path / "killed"
    chance = random.Random(attempt)
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from train.corpora.corpus import Corpus\n"
        "from train.runs.run import Run\n"
        "from train.settings import settings_from_dict\n"
        "from train.trainer import Trainer\n"
        "settings = settings_from_dict(json.loads(sys.argv[1]))\n"
        "Trainer.start(settings, Corpus.open(sys.argv[2]), Run(Path(sys.argv[3]))).train()\n"
    )
    values = json.dumps(dataclasses.asdict(KILLED))
    process = subprocess.Popen(
        [sys.executable, "-c", script, values, str(corpus.directory), str(out)],
        cwd=Path(__file__).parents[2],
    )
    enough = chance.randrange(3, 25)
    deadline = time.monotonic() + 120
    while len(read_metrics(out)) < enough and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.03))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    load_model(out)
    visible = [p for p in out.rglob("*.safetensors") if not p.name.startswith(".")]
    assert len(visible) >= 3
    for path in visible:
        load_arrays(path)
    saved = load_arrays(Run(out).state)[1]["position"]["step"]
    assert saved >= enough // 2
    resumed = Trainer.resume(KILLED, corpus, Run(out))
    assert resumed.position.step == saved
    resumed.train()
    start(KILLED, corpus, tmp_path / "whole")
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.parametrize("changed", [{}, {"seed": 4}])
def test_the_seed_determines_the_run(
    corpus: Corpus, tmp_path: Path, changed: dict[str, int]
) -> None:
    start(SETTINGS, corpus, tmp_path / "one")
    start(settings(**changed), corpus, tmp_path / "other")
    losses = [
        [e["loss"] for e in read_metrics(tmp_path / name) if "loss" in e]
        for name in ("one", "other")
    ]
    assert len(losses[0]) == SETTINGS.max_steps
    if changed:
        assert all(a != b for a, b in zip(*losses, strict=True))
    else:
        assert_same_run(tmp_path / "one", tmp_path / "other")


def test_dropout_depends_only_on_the_seed_and_the_step(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[DropoutStream] = []

    def watched(*arguments: Any) -> Any:
        streams.extend(a for a in arguments if isinstance(a, DropoutStream))
        return train_step(*arguments)

    monkeypatch.setattr("train.loop.train_step", watched)
    stopped_at(4, SETTINGS, corpus, tmp_path / "run")
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "run")).train()
    assert streams == [DropoutStream(seed=3, step=step) for step in range(1, 10)]


def test_a_new_run_does_not_overwrite_files(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    start(settings(max_steps=1), corpus, tmp_path / "empty")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a").write_text("mine")
    for name in ("empty", "notes"):
        before = {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        message = refusal(lambda name=name: start(SETTINGS, corpus, tmp_path / name))
        assert "exists and is not empty; give --resume" in message
        after = {p: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        assert after == before


def test_models_too_large_for_memory_are_refused_at_once(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absurd = settings(model=dataclasses.replace(SETTINGS.model, layers=10_001))
    message = refusal(lambda: Trainer.start(absurd, corpus, Run(tmp_path / "a")))
    assert message == "model.layers must be at most 10,000; it is 10001"
    for change in ({"d_model": 2**31 - 2}, {"d_ff": 2**31 - 1}):
        chosen = settings(model=dataclasses.replace(SETTINGS.model, **change))
        [size] = change.values()
        message = refusal(lambda chosen=chosen: Trainer.start(chosen, corpus, Run(tmp_path / "a")))
        assert str(size) in message
        assert "memory for the parameter" in message or "Adam's two moments and a che" in message
        assert "lower model." in message
        assert not (tmp_path / "a").exists()

    start(settings(max_steps=1), corpus, tmp_path / "run")
    run = Run(tmp_path / "run")
    monkeypatch.setattr("train.assembly.Transformer", None)  # nothing is built
    deep = settings(model=dataclasses.replace(SETTINGS.model, layers=10_000))
    message = refusal(lambda: Trainer.resume(deep, corpus, run))
    assert "layers = 1, and cannot be resumed with 10000" in message
    config = run.directory / "config.json"
    config.write_text(config.read_text().replace('"layers": 1,', '"layers": 10000,'))
    message = refusal(lambda: Trainer.resume(deep, corpus, run))
    assert (
        "state.safetensors belongs to another model: it lacks the parameter 'encoder.1." in message
    )


@pytest.mark.parametrize("lack", [0, 1])
def test_the_memory_check_counts_all_arrays_of_training(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: int
) -> None:
    """Parameters, gradients, two moments, and a checkpoint with a copy of three of them."""
    model = start(settings(max_steps=1), corpus, tmp_path / "a").model
    held = sum(4 * 7 * p.size + 1024 for p in model.parameters().values())
    monkeypatch.setattr("npformer.parameters._memory", lambda: held - lack)
    if lack:
        message = refusal(lambda: start(settings(max_steps=1), corpus, tmp_path / "b"))
        assert "needs 0.0 GiB for its parameters, their gradients, Adam's two moments" in message
        assert not (tmp_path / "b").exists()
    else:
        start(settings(max_steps=1), corpus, tmp_path / "b")


def test_only_a_run_with_a_matching_state_can_be_resumed(corpus: Corpus, tmp_path: Path) -> None:
    def resume(chosen: TrainSettings = SETTINGS) -> str:
        return refusal(lambda: Trainer.resume(chosen, corpus, Run(tmp_path / "run")))

    assert "holds no run to resume" in resume()
    trainer = Trainer.start(SETTINGS, corpus, Run(tmp_path / "run"))
    assert Trainer.resume(SETTINGS, corpus, trainer.run).position.step == 0
    trainer.run.state.unlink()
    trainer.run.unlock()
    assert "holds no checkpoint to resume from" in resume()
    trainer.train()

    wider = settings(model=ModelSettings(preset="tiny", layers=1, d_model=16, d_ff=8, heads=2))
    assert "d_model = 8, and cannot be resumed with 16" in resume(wider)
    state = trainer.run.state
    whole = state.read_bytes()
    state.write_bytes(whole[:-5])
    assert "cannot be read as safetensors" in resume()
    state.write_bytes((tmp_path / "run" / "model.safetensors").read_bytes())
    assert "is not a state of a training run" in resume()


def test_a_run_is_not_resumed_with_another_corpus(corpus: Corpus, tmp_path: Path) -> None:
    start(SETTINGS, corpus, tmp_path / "run")
    other = make_corpus(tmp_path, vocab_size=301)
    message = refusal(lambda: Trainer.resume(SETTINGS, other, Run(tmp_path / "run")))
    assert "was trained on another corpus" in message
    settings_file = Run(tmp_path / "run").settings
    settings_file.write_text("".join(settings_file.read_text().splitlines(keepends=True)[1:]))
    message = refusal(lambda: Trainer.resume(SETTINGS, corpus, Run(tmp_path / "run")))
    assert f"{settings_file} has lost its first line, which says what corpus" in message


def test_a_run_resumes_with_its_corpus_prepared_again_from_elsewhere(
    corpus: Corpus, tmp_path: Path
) -> None:
    start(settings(max_steps=5), corpus, tmp_path / "run")
    again = make_corpus(tmp_path)
    assert again.manifest != corpus.manifest  # its text has other paths
    Trainer.resume(settings(max_steps=6), again, Run(tmp_path / "run")).train()


def test_a_run_from_when_the_whole_manifest_identified_a_corpus_is_resumed(
    corpus: Corpus, tmp_path: Path
) -> None:
    run = start(settings(max_steps=5), corpus, tmp_path / "run").run
    run.identity.write(settings(max_steps=5), corpus.manifest["sha256"])
    Trainer.resume(settings(max_steps=6), corpus, Run(tmp_path / "run")).train()
    assert Run(tmp_path / "run").identity.corpus() == corpus.fingerprint


def test_a_corpus_that_is_replaced_does_not_change_the_validations_of_a_run(
    tmp_path: Path,
) -> None:
    corpus = make_corpus(tmp_path)
    trainer = Trainer.start(settings(samples=1), corpus, Run(tmp_path / "run"))
    before = trainer.validate(with_bleu=True)
    paths = [tmp_path / name for name in ("train.0", "train.1", "train.1", "train.0")]
    prepare(*paths, corpus.directory, vocab_size=300, overwrite=True)
    assert trainer.validate(with_bleu=True) == before


def test_a_run_that_has_lost_its_model_directory_is_resumed(corpus: Corpus, tmp_path: Path) -> None:
    start(settings(max_steps=5), corpus, tmp_path / "run")
    start(settings(max_steps=6), corpus, tmp_path / "whole")
    for name in ("config.json", "model.safetensors", "tokenizer.spm"):
        (tmp_path / "run" / name).unlink()
    model = dataclasses.replace(SETTINGS.model, heads=4)  # its arrays have the same shapes
    other = settings(max_steps=6, model=model)
    message = refusal(lambda: Trainer.resume(other, corpus, Run(tmp_path / "run")))
    assert "model.heads is 2 in this run, and cannot become 4" in message
    Trainer.resume(settings(max_steps=6), corpus, Run(tmp_path / "run")).train()
    for name in ("config.json", "model.safetensors", "tokenizer.spm"):
        expected = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "run" / name).read_bytes() == expected


def test_a_run_whose_checkpoints_were_deleted_for_space_is_resumed(
    corpus: Corpus, tmp_path: Path
) -> None:
    stopped_at(5, SETTINGS, corpus, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    trainer = Trainer.resume(SETTINGS, corpus, Run(tmp_path / "run"))
    assert trainer.train().step == SETTINGS.max_steps
    assert trainer.run.checkpoints.paths()
