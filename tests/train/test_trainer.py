"""Training: the same steps, whatever interrupts them."""

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import yaml

from autograd import DropoutStream, Tape, to_host
from npformer import Batch, Transformer, TransformerConfig, Translator, UserError
from npformer.checkpoint import load_arrays, load_model, parameter_arrays
from train.adam import Adam
from train.average import average_checkpoints
from train.corpus import Corpus
from train.preparation import prepare
from train.run import Run, read_metrics, settings_from_dict
from train.settings import ModelSettings, TrainSettings
from train.step import read_steps, train_step
from train.trainer import LogEntry, Trainer, Validation

SUBJECTS = {"A dog": "Ein Hund", "Two girls": "Zwei Mädchen", "The old man": "Der alte Mann"}
VERBS = {"runs": "rennt", "sleeps": "schläft", "is laughing": "lacht", "sings": "singt"}
PLACES = {"in the garden": "im Garten", "at home": "zu Hause", "here": "hier"}
PAIRS = [
    (f"{s} {v} {p}.", f"{SUBJECTS[s]} {VERBS[v]} {PLACES[p]}.")
    for s in SUBJECTS
    for v in VERBS
    for p in PLACES
]

SETTINGS = TrainSettings(
    model=ModelSettings(preset="tiny", layers=1, d_model=8, d_ff=8, heads=2),
    seed=3,
    max_steps=9,
    batch_tokens=150,
    warmup=4,
    log_every=1,
    validate_every=4,
    checkpoint_every=5,
    keep_checkpoints=2,
)


def make_corpus(directory: Path, vocab_size: int = 300) -> Corpus:
    """A few dozen pairs to learn, and a few to validate with."""
    paths = []
    for name, pairs in (("train", PAIRS), ("valid", PAIRS[::7])):
        for side in (0, 1):
            path = directory / f"{name}.{side}"
            path.write_text("".join(pair[side] + "\n" for pair in pairs), encoding="utf-8")
            paths.append(path)
    return prepare(*paths, directory / "corpus", vocab_size=vocab_size)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def settings(**changes: Any) -> TrainSettings:
    return dataclasses.replace(SETTINGS, **changes)


def start(chosen: TrainSettings, corpus: Corpus, out: Path) -> Trainer:
    trainer = Trainer.start(chosen, corpus, Run(out))
    trainer.train()
    return trainer


def stopped_at(step: int, chosen: TrainSettings, corpus: Corpus, out: Path) -> None:
    """A run that was asked to stop, as Ctrl-C does, after `step`."""
    trainer = Trainer.start(chosen, corpus, Run(out))

    def stop(entry: LogEntry | Validation) -> None:
        trainer.stop_requested |= entry.step == step

    assert trainer.train(stop).step == step


def timeless(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what a clock says."""
    clocks = ("seconds", "seconds_left", "tokens_per_second")
    return [{k: v for k, v in entry.items() if k not in clocks} for entry in metrics]


def assert_same_run(one: Path, other: Path) -> None:
    """Parameters, moments, position and metrics, bit by bit."""
    arrays, about = load_arrays(Run(one).state)
    expected, expected_about = load_arrays(Run(other).state)
    assert arrays.keys() == expected.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)
    positions = [a["position"] for a in (about, expected_about)]
    for position in positions:
        del position["seconds"]
    assert positions[0] == positions[1]
    assert timeless(read_metrics(one)) == timeless(read_metrics(other))
    for name, parameter in parameter_arrays(load_model(one)).items():
        np.testing.assert_array_equal(parameter, expected[f"parameter.{name}"], err_msg=name)


# Going on


@pytest.mark.parametrize("step", [1, 4, 5, 8])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_is_the_run_that_was_never_stopped(
    corpus: Corpus, tmp_path: Path, step: int, accumulate: int
) -> None:
    chosen = settings(accumulate=accumulate)
    whole = start(chosen, corpus, tmp_path / "whole")
    assert whole.position.epoch > 0  # it goes over the end of an epoch
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


def test_a_validation_that_a_kill_prevented_is_made_up_for(corpus: Corpus, tmp_path: Path) -> None:
    chosen = settings(checkpoint_every=4)  # at every validation
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


def test_a_finished_run_resumes_to_more_steps_and_to_no_more(
    corpus: Corpus, tmp_path: Path
) -> None:
    start(SETTINGS, corpus, tmp_path / "whole")
    start(settings(max_steps=5), corpus, tmp_path / "parts")
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_metrics_from_after_the_checkpoint_are_written_anew(corpus: Corpus, tmp_path: Path) -> None:
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
def test_a_killed_run_leaves_nothing_half_and_resumes(
    corpus: Corpus, tmp_path: Path, attempt: int
) -> None:
    out = tmp_path / "killed"
    chance = random.Random(attempt)
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from train.corpus import Corpus\n"
        "from train.run import Run, settings_from_dict\n"
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
def test_a_run_is_a_function_of_its_seed(
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


def test_dropout_is_a_function_of_the_seed_and_the_step(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[DropoutStream] = []

    def watched(*arguments: Any) -> Any:
        streams.extend(a for a in arguments if isinstance(a, DropoutStream))
        return train_step(*arguments)

    monkeypatch.setattr("train.trainer.train_step", watched)
    stopped_at(4, SETTINGS, corpus, tmp_path / "run")
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "run")).train()
    assert streams == [DropoutStream(seed=3, step=step) for step in range(1, 10)]


def refusal(run: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        run()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_new_run_does_not_overwrite_anything(corpus: Corpus, tmp_path: Path) -> None:
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


def test_sizes_beyond_all_memory_are_refused_at_once(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absurd = settings(model=dataclasses.replace(SETTINGS.model, layers=10_001))
    message = refusal(lambda: Trainer.start(absurd, corpus, Run(tmp_path / "a")))
    assert message == "model.layers must be at most 10,000; it is 10001"
    for change in ({"d_model": 2**31 - 2}, {"d_ff": 2**31 - 1}):
        chosen = settings(model=dataclasses.replace(SETTINGS.model, **change))
        [(name, size)] = change.items()
        message = refusal(lambda chosen=chosen: Trainer.start(chosen, corpus, Run(tmp_path / "a")))
        assert f"model.{name} = {size}" in message
        assert "GiB for its parameters, their gradients, Adam's two moments and a che" in message
        assert not (tmp_path / "a").exists()

    start(settings(max_steps=1), corpus, tmp_path / "run")
    run = Run(tmp_path / "run")
    monkeypatch.setattr("train.trainer.Transformer", None)  # nothing is built
    deep = settings(model=dataclasses.replace(SETTINGS.model, layers=10_000))
    message = refusal(lambda: Trainer.resume(deep, corpus, run))
    assert "layers = 1, and cannot be resumed with 10000" in message
    config = run.directory / "config.json"
    config.write_text(config.read_text().replace('"layers": 1,', '"layers": 10000,'))
    message = refusal(lambda: Trainer.resume(deep, corpus, run))
    assert "state.safetensors is of another model: it lacks the parameter 'encoder.1." in message


@pytest.mark.parametrize("lack", [0, 1])
def test_memory_is_counted_for_all_that_training_holds(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lack: int
) -> None:
    """Parameters, gradients, and two moments; three of these once more, as a checkpoint."""
    model = start(settings(max_steps=1), corpus, tmp_path / "a").model
    held = sum(4 * 7 * p.size + 1024 for p in model.parameters().values())
    monkeypatch.setattr("npformer.initialisation._memory", lambda: held - lack)
    if lack:
        message = refusal(lambda: start(settings(max_steps=1), corpus, tmp_path / "b"))
        assert "needs 0.0 GiB for its parameters, their gradients, Adam's two moments" in message
        assert not (tmp_path / "b").exists()
    else:
        start(settings(max_steps=1), corpus, tmp_path / "b")


def test_only_what_was_begun_can_be_resumed(corpus: Corpus, tmp_path: Path) -> None:
    def resume(chosen: TrainSettings = SETTINGS) -> str:
        return refusal(lambda: Trainer.resume(chosen, corpus, Run(tmp_path / "run")))

    assert "holds no run to resume" in resume()
    trainer = Trainer.start(SETTINGS, corpus, Run(tmp_path / "run"))
    assert Trainer.resume(SETTINGS, corpus, trainer.run).position.step == 0
    trainer.run.state.unlink()
    assert "holds no checkpoint to resume from" in resume()
    trainer.train()

    wider = settings(model=ModelSettings(preset="tiny", layers=1, d_model=16, d_ff=8, heads=2))
    assert "d_model = 8, and cannot be resumed with 16" in resume(wider)
    state = trainer.run.state
    whole = state.read_bytes()
    state.write_bytes(whole[:-5])
    assert "cannot be read as safetensors" in resume()
    state.write_bytes((tmp_path / "run" / "model.safetensors").read_bytes())
    assert "is no state of a training run" in resume()


def test_a_run_goes_on_with_its_own_corpus_alone(corpus: Corpus, tmp_path: Path) -> None:
    start(SETTINGS, corpus, tmp_path / "run")
    other = make_corpus(tmp_path, vocab_size=301)
    message = refusal(lambda: Trainer.resume(SETTINGS, other, Run(tmp_path / "run")))
    assert "was trained on another corpus" in message


# What is left behind


def test_the_newest_checkpoints_are_kept(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(settings(checkpoint_every=2, keep_checkpoints=3), corpus, tmp_path / "run")
    names = [p.name for p in trainer.run.checkpoint_paths()]
    assert names == [f"{step:08d}.safetensors" for step in (6, 8, 9)]
    newest, about = load_arrays(trainer.run.checkpoint_paths()[-1])
    assert about["step"] == 9
    for name, parameter in trainer.model.parameters().items():
        np.testing.assert_array_equal(newest[name], parameter.numpy())
    assert not list((tmp_path / "run").rglob(".*"))


def test_an_average_is_the_mean_of_the_newest(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(settings(checkpoint_every=2, keep_checkpoints=9), corpus, tmp_path / "run")
    newest = [load_arrays(p)[0] for p in trainer.run.checkpoint_paths()[-3:]]
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
    lines = [source for source, _ in PAIRS[:4]]
    ours = Translator(trainer.model, corpus.tokenizers).translate(lines, extra_length=5)
    assert Translator.load(tmp_path / "run").translate(lines, extra_length=5) == ours


def test_a_runs_settings_are_saved(corpus: Corpus, tmp_path: Path) -> None:
    trainer = start(SETTINGS, corpus, tmp_path / "run")
    assert (
        settings_from_dict(yaml.safe_load((tmp_path / "run" / "train.yaml").read_text()))
        == SETTINGS
    )
    assert trainer.run.corpus() == corpus.fingerprint


def test_the_log_says_what_was_reported(corpus: Corpus, tmp_path: Path) -> None:
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
    expected = [{k: v for k, v in dataclasses.asdict(e).items() if v is not None} for e in reported]
    assert logged == expected
    for entry in entries:
        assert entry.rate == trainer.rate(entry.step)
        # The smoothed loss is not what the perplexity is of.
        assert entry.perplexity != pytest.approx(math.exp(entry.loss), rel=1e-6)
        assert entry.tokens_per_second > 0


def test_a_log_entry_is_the_mean_over_its_steps(corpus: Corpus, tmp_path: Path) -> None:
    start(settings(max_steps=4), corpus, tmp_path / "each")
    start(settings(max_steps=4, log_every=4), corpus, tmp_path / "all")
    each = [e for e in read_metrics(tmp_path / "each") if "loss" in e]
    (mean,) = (e for e in read_metrics(tmp_path / "all") if "loss" in e)
    assert mean["gradient_norm"] == pytest.approx(np.mean([e["gradient_norm"] for e in each]))
    # Means over tokens: between the extremes, and the same steps.
    assert min(e["loss"] for e in each) < mean["loss"] < max(e["loss"] for e in each)
    assert mean["step"] == 4


# When it ends


def test_training_ends_when_its_minutes_have_passed(corpus: Corpus, tmp_path: Path) -> None:
    out = tmp_path / "run"
    hasty = settings(max_minutes=1e-9)
    assert start(hasty, corpus, out).position.step == 1
    assert Trainer.resume(hasty, corpus, Run(out)).train().step == 1  # they have passed already
    assert Trainer.resume(SETTINGS, corpus, Run(out)).train().step == SETTINGS.max_steps
    start(SETTINGS, corpus, tmp_path / "whole")
    assert_same_run(out, tmp_path / "whole")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_run_that_diverges_says_so_and_keeps_its_last_checkpoint(
    corpus: Corpus, tmp_path: Path
) -> None:
    trainer = start(settings(max_steps=2), corpus, tmp_path / "run")
    trainer.optimizer.first[...] = np.inf  # the third step jumps
    trainer.settings = SETTINGS
    message = refusal(trainer.train)
    assert "training diverged: at step 4 the loss is nan a token" in message
    assert "lower the learning rate" in message
    parameters = parameter_arrays(load_model(tmp_path / "run"))
    assert all(np.isfinite(p).all() for p in parameters.values())


def test_training_learns(corpus: Corpus, tmp_path: Path) -> None:
    chosen = settings(
        max_steps=60, schedule="constant", peak_rate=0.01, warmup=1, validate_every=60
    )
    start(chosen, corpus, tmp_path / "run")
    losses = [e["loss"] for e in read_metrics(tmp_path / "run") if "loss" in e]
    assert np.mean(losses[-5:]) < 0.75 * losses[0]


# Validation


@pytest.mark.parametrize("extra", [{"validate_every": 1}, {"bleu_every": 2, "bleu_beam": 2}])
def test_validation_leaves_training_alone(
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


def test_validation_is_over_every_pair_without_dropout(corpus: Corpus, tmp_path: Path) -> None:
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


# One step


def tiny() -> tuple[Transformer, list[Batch]]:
    model = Transformer(
        TransformerConfig(vocab_size=9, layers=1, d_model=8, d_ff=8, heads=2), 0, np.float64
    )
    pairs = ([[3, 4], [5], [6, 7, 8]], [[3], [4, 5, 6], [7]])
    return model, [Batch.of([s], [t], begin_id=1, end_id=2) for s, t in zip(*pairs, strict=True)]


def test_a_step_is_adams_on_the_mean_loss_a_token() -> None:
    (model, batches), (other, _) = tiny(), tiny()
    dropout = DropoutStream(0, 1)
    result = train_step(model, Adam(model.buffer), batches[:1], 0.1, dropout)
    adam = Adam(other.buffer)
    with Tape() as tape:
        loss = other.loss(batches[0], dropout)
    tape.backward(loss)
    norm = adam.gradient_norm()
    adam.step(0.1)
    np.testing.assert_allclose(model.buffer.values, other.buffer.values, rtol=1e-9, atol=1e-12)
    assert result.loss_sum / result.target_tokens == pytest.approx(float(loss))
    assert result.gradient_norm == pytest.approx(norm)
    assert (result.source_tokens, result.target_tokens) == (3, 2)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_clipping_scales_a_gradient_that_is_too_large(share: float) -> None:
    (model, batches), (other, _) = tiny(), tiny()
    norm = train_step(other, Adam(other.buffer), batches, 0.0).gradient_norm
    adam, plain = Adam(model.buffer), Adam(other.buffer)
    found = train_step(model, adam, batches, 0.1, clip_norm=share * norm)
    assert found.gradient_norm == pytest.approx(norm)  # reported as it was
    train_step(other, plain, batches, 0.1)
    np.testing.assert_allclose(adam.first, min(share, 1.0) * plain.first, rtol=1e-9, atol=1e-15)


def test_what_a_step_counts_is_summed_over_its_batches() -> None:
    model, batches = tiny()
    adam = Adam(model.buffer)
    each = [train_step(model, adam, [b], 0.0) for b in batches]
    whole = train_step(model, adam, batches, 0.0)
    for name in ("loss_sum", "nll_sum", "source_tokens", "target_tokens"):
        assert getattr(whole, name) == pytest.approx(sum(getattr(r, name) for r in each))
    shares = [r.target_tokens / whole.target_tokens for r in each]
    assert whole.gradient_norm <= sum(
        s * r.gradient_norm for s, r in zip(shares, each, strict=True)
    )


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_step_that_diverges_changes_no_parameter_and_says_so_when_it_is_read() -> None:
    model, batches = tiny()
    adam = Adam(model.buffer)
    model.parameters()["embedding"].value[3] = np.nan
    before = to_host(model.buffer.values).copy()
    result = train_step(model, adam, batches, 0.1)
    with pytest.raises(UserError, match="training diverged: at step 1 "):
        read_steps([result], last_step=1)
    np.testing.assert_array_equal(model.buffer.values, before)
    assert not adam.first.any()
    assert not adam.second.any()


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: 0} for name in ("max_steps", "batch_tokens", "accumulate", "log_every")),
        *({name: 0} for name in ("validate_every", "checkpoint_every", "keep_checkpoints")),
        {"bleu_beam": 0},
        {"bleu_beam": 1001},
        {"accumulate": 10_001},
        *({name: -1} for name in ("max_minutes", "clip_norm", "bleu_every", "peak_rate", "seed")),
    ],
)
def test_a_setting_that_cannot_work_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    assert refusal(lambda: TrainSettings(**wrong)).startswith(f"{name} must")


@pytest.mark.parametrize(
    ("values", "name"),
    [({"max_step": 3}, "max_step"), ({"model": {"layer": 3}}, "model.layer")],
)
def test_an_unknown_setting_is_named(values: dict[str, Any], name: str) -> None:
    assert refusal(lambda: settings_from_dict(values)) == f"there is no setting {name}"


def test_settings_change_a_preset() -> None:
    chosen = settings_from_dict({"model": {"preset": "tiny", "dropout": 0.2}})
    config = chosen.transformer_config(50)
    expected = TransformerConfig.preset("tiny", vocab_size=50, dropout=0.2)
    assert config == expected
    separate = chosen.transformer_config(50, source_vocab_size=40)
    assert (separate.source_vocab_size, separate.share_embeddings) == (40, "target")


def test_pairs_that_fit_no_batch_are_refused_before_training(
    corpus: Corpus, tmp_path: Path
) -> None:
    message = refusal(lambda: start(settings(batch_tokens=3), corpus, tmp_path / "run"))
    assert "more than a batch may have (3)" in message
    assert not os.path.exists(tmp_path / "run")
