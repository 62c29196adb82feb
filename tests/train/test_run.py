"""A run's directory: resumed only if it is intact, and loadable at every moment."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Tokenizer, TokenizerPair, Transformer, TransformerConfig, Translator, UserError
from npformer.checkpoint import load_arrays, save_arrays
from train.adam import Adam
from train.runs.progress import Position, Progress
from train.runs.run import Run
from train.runs.snapshot import Snapshot
from train.settings import TrainSettings

BOTH = Tokenizer.train(["a b", "b a b"], 263)
PAIR = TokenizerPair(BOTH, BOTH)
CONFIG = TransformerConfig(vocab_size=BOTH.vocab_size, layers=1, d_model=8, d_ff=6, heads=2)
PROGRESS = Progress(Position(step=7, epoch=1, batch=2, seconds=3.5))
KEPT = TrainSettings(keep_checkpoints=2)


def new(config: TransformerConfig = CONFIG) -> tuple[Transformer, Adam]:
    model = Transformer(config, seed=5)
    return model, Adam(model.buffer, 0.9, 0.98, 1e-9)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that has been saved at step 7."""
    run = Run(tmp_path / "run")
    model, optimizer = new()
    run.create(TrainSettings(), model, PAIR, "corpus")
    optimizer.first[...] = 0.25
    run.save(Snapshot(model, optimizer, PROGRESS), PAIR, KEPT)
    return run


def resume(run: Run, config: TransformerConfig = CONFIG) -> Position:
    model, optimizer = new(config)
    run.check_model(config)
    return run.resume(model, PAIR, optimizer, KEPT).position


def test_a_run_resumes_at_the_saved_position(run: Run) -> None:
    model, optimizer = new()
    assert run.resume(model, PAIR, optimizer, KEPT) == PROGRESS
    assert optimizer.steps == 7
    assert (optimizer.first == 0.25).all()
    assert [path.stem for path in run.checkpoints.paths()] == ["00000007"]


Change = Callable[[dict[str, np.ndarray], dict[str, Any]], Any]


def position(**changes: Any) -> Change:
    return lambda arrays, metadata: metadata["position"].update(changes)


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Change:
    def apply(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        arrays[name] = change(arrays[name])

    return apply


def with_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array.reshape(-1)[0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays, metadata: metadata.clear(), "holds no position"),
        (lambda arrays, metadata: metadata.update(position=None), "holds no position"),
        (lambda arrays, metadata: metadata.update(position=[7, 1, 2, 3.5]), "holds no position"),
        (lambda arrays, metadata: metadata["position"].pop("batch"), "holds no position"),
        (position(more=1), "holds no position"),
        *(
            (position(**{name: value}), f"{name} is .* in its position")
            for name in ("step", "epoch", "batch")
            for value in (True, None, 7.0, "7", [7], {}, -1)
        ),
        (position(step="x" * 1_000_000), "step is .* in its position"),
        *(
            (position(seconds=value), "seconds is .* in its position")
            for value in (False, None, "3", [], -0.5)
        ),
        (position(step=1 << 70), "too large"),
        (lambda arrays, metadata: arrays.pop("adam.first"), "adam.first does not fit"),
        (lambda arrays, metadata: arrays.pop("adam.second"), "adam.second does not fit"),
        (
            lambda arrays, metadata: arrays.pop("parameter.embedding"),
            "lacks the parameter 'embedding",
        ),
        (lambda arrays, metadata: arrays.clear(), "lacks the parameter"),
        (lambda arrays, metadata: arrays.update(x=np.zeros(1, np.float32)), "also has"),
        (array("adam.first", lambda a: a[:-1]), "adam.first does not fit"),
        (array("adam.second", lambda a: a.reshape(1, -1)), "adam.second does not fit"),
        (array("adam.second", lambda a: a.astype(np.float64)), "holds float64"),
        (array("adam.first", lambda a: a.astype(np.int32)), "holds int32"),
        (array("parameter.embedding", lambda a: a.astype(bool)), "holds bool"),
        (array("parameter.embedding", lambda a: a.T), "has shape"),
        (lambda arrays, metadata: metadata["order"].reverse(), "moments in another order"),
        (lambda arrays, metadata: metadata.update(order=None), "moments in another order"),
        (array("adam.first", with_first(np.nan)), "not finite"),
        (array("adam.second", with_first(np.inf)), "not finite"),
        (array("parameter.embedding", with_first(-np.inf)), "not finite"),
    ],
)
def test_an_invalid_state_is_refused(run: Run, change: Change, message: str) -> None:
    arrays, metadata = load_arrays(run.state)
    change(arrays, metadata)
    save_arrays(run.state, arrays, metadata)
    before = {path: path.read_bytes() for path in run.directory.rglob("*.*")}
    with pytest.raises(UserError, match=message) as error:
        resume(run)
    assert "\n" not in str(error.value)
    assert str(run.state) in str(error.value)
    assert len(str(error.value)) < 500
    assert {path: path.read_bytes() for path in run.directory.rglob("*.*")} == before


@pytest.mark.parametrize(("number", "replaced"), [("3.5", "NaN"), ("123456.7", "Infinity")])
def test_a_state_with_what_is_no_number_is_refused(run: Run, number: str, replaced: str) -> None:
    arrays, about = load_arrays(run.state)
    about["position"]["seconds"] = float(number)
    save_arrays(run.state, arrays, about)
    content = run.state.read_bytes()
    assert content.count(number.encode()) == 1
    run.state.write_bytes(content.replace(number.encode(), replaced.encode()))
    with pytest.raises(UserError, match=f"{replaced} is not allowed"):
        resume(run)


def test_a_state_without_the_order_of_parameters_is_resumed(run: Run) -> None:
    arrays, metadata = load_arrays(run.state)
    del metadata["order"]
    save_arrays(run.state, arrays, metadata)
    resume(run)


@pytest.mark.parametrize("name", ["tokenizer.spm", "model.safetensors", "config.json"])
def test_a_damaged_file_of_the_model_is_rewritten_or_reported(run: Run, name: str) -> None:
    path = run.directory / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    if name == "config.json":
        with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
            resume(run)
        return
    resume(run)
    assert path.read_bytes() == whole
    Translator.load(run.directory)


def test_an_altered_configuration_is_refused(run: Run) -> None:
    path = run.directory / "config.json"
    path.write_text(path.read_text().replace('"heads": 2', '"heads": 4'))
    with pytest.raises(UserError, match="heads = 4, and cannot be resumed with 2"):
        resume(run)


class Killed(BaseException):
    """Stands for a kill between two operations."""


@pytest.mark.parametrize("moment", range(9))
def test_a_run_resumed_with_another_dropout_is_loadable_at_every_moment(
    run: Run, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed before it replaces the first file, the second, and so on."""
    config = dataclasses.replace(CONFIG, dropout=0.4)
    model, optimizer = new(config)
    replace, count = os.replace, iter(range(99))

    def killed(source: Any, target: Any) -> None:
        Translator.load(run.directory)
        if next(count) == moment:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    run.check_model(config)
    with pytest.raises(Killed):  # noqa: PT012
        run.resume(model, PAIR, optimizer, KEPT)
        run.save(Snapshot(model, optimizer, Progress(Position(step=8))), PAIR, KEPT)
        raise Killed
    monkeypatch.undo()
    assert Translator.load(run.directory).model.config.dropout == (0.4 if moment > 3 else 0.1)
    assert resume(run, config).step == (8 if moment > 5 else 7)
    assert Translator.load(run.directory).model.config.dropout == 0.4


def test_files_of_a_saved_run_are_verified_by_their_checksums(run: Run) -> None:
    path = run.directory / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model": values["model"] | {"norm_epsilon": 1e-4}}))
    with pytest.raises(UserError, match=r"config\.json is not the file"):
        Translator.load(run.directory)


@pytest.mark.parametrize("name", ["metrics.jsonl", "train.yaml", "config.json"])
def test_a_file_of_the_run_can_be_a_symbolic_link(run: Run, name: str) -> None:
    path = run.directory / name
    path.touch()
    path.rename(run.directory.parent / "elsewhere")
    path.symlink_to("../elsewhere")
    resume(run)
    run.identity.write(TrainSettings(seed=4), "corpus")
    run.log({"step": 8})
    assert path.is_symlink()
    found = (run.directory.parent / "elsewhere").read_text()
    assert {"metrics.jsonl": '"step": 8', "train.yaml": "seed: 4"}.get(name, "npformer") in found
