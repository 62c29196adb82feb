"""Short runs of a small model, and comparisons of them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import UserError
from npformer.checkpoint import WEIGHTS, load_arrays, load_model, parameter_arrays
from train.corpora.corpus import Corpus
from train.runs.metrics import read_metrics
from train.runs.run import Run
from train.runs.samples import samples_path
from train.settings import ModelSettings, TrainSettings
from train.trainer import Trainer

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


def settings(**changes: Any) -> TrainSettings:
    return dataclasses.replace(SETTINGS, **changes)


def start(chosen: TrainSettings, corpus: Corpus, out: Path) -> Trainer:
    trainer = Trainer.start(chosen, corpus, Run(out))
    trainer.train()
    return trainer


def stopped_at(step: int, chosen: TrainSettings, corpus: Corpus, out: Path) -> None:
    """A run that was stopped after `step`, as by Ctrl-C in its middle."""
    trainer = Trainer.start(chosen, corpus, Run(out))
    taken = trainer.optimizer.step

    def stopping(rate: float, scale: Any) -> None:
        taken(rate, scale)
        trainer.stop_requested |= trainer.optimizer.steps == step

    trainer.optimizer.step = stopping  # type: ignore[method-assign]
    assert trainer.train().step == step


def timeless(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without their times."""
    clocks = ("seconds", "seconds_left", "tokens_per_second")
    return [{k: v for k, v in entry.items() if k not in clocks} for entry in metrics]


def assert_same_run(one: Path, other: Path) -> None:
    """Assert that all that two runs have made is equal bit by bit, but for times."""
    arrays, about = load_arrays(Run(one).state)
    expected, expected_about = load_arrays(Run(other).state)
    assert arrays.keys() == expected.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)
    positions = [a["position"] for a in (about, expected_about)]
    for position in positions:
        del position["seconds"]
    assert positions[0] == positions[1]
    for progress in (about["progress"], expected_about["progress"]):
        del progress["since_log"]["seconds"]
    assert about["progress"] == expected_about["progress"]
    assert timeless(read_metrics(one)) == timeless(read_metrics(other))
    kept, expected_kept = (
        {path.name: load_arrays(path)[0] for path in Run(name).checkpoints.paths()}
        for name in (one, other)
    )
    assert kept.keys() == expected_kept.keys()
    for name in kept:
        for key in kept[name]:
            np.testing.assert_array_equal(kept[name][key], expected_kept[name][key], err_msg=key)
    for name in ("best/model.safetensors", "translations.jsonl"):
        files = [folder / name for folder in (one, other)]
        assert files[0].is_file() == files[1].is_file(), name
    if samples_path(one).is_file():
        assert samples_path(one).read_bytes() == samples_path(other).read_bytes()
    if (one / "best").is_dir():
        best, expected_best = (load_arrays(folder / "best" / WEIGHTS) for folder in (one, other))
        assert best[1]["step"] == expected_best[1]["step"]
        for key in expected_best[0]:
            np.testing.assert_array_equal(best[0][key], expected_best[0][key], err_msg=key)
    for name in ("README.md", "best/README.md"):
        cards = [folder / name for folder in (one, other)]
        assert cards[0].is_file() == cards[1].is_file(), name
        if cards[0].is_file():
            assert cards[0].read_text() == cards[1].read_text(), name
    assert not any(Run(folder).best.waiting.exists() for folder in (one, other))
    model = parameter_arrays(load_model(other))
    for name, parameter in parameter_arrays(load_model(one)).items():
        np.testing.assert_array_equal(parameter, model[name], err_msg=name)
        if "adam.average" not in expected:
            np.testing.assert_array_equal(parameter, expected[f"parameter.{name}"], err_msg=name)


def refusal(run: Callable[[], Any]) -> str:
    """The one-line message of the UserError that `run` raises."""
    with pytest.raises(UserError) as error:
        run()
    assert "\n" not in str(error.value)
    return str(error.value)
