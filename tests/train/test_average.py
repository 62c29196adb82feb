"""The mean of a run's checkpoints, which must be intact and belong together."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import (
    Tokenizer,
    TokenizerPair,
    Transformer,
    TransformerConfig,
    Translator,
    UserError,
    directories,
)
from npformer.checkpoint import load_model, parameter_arrays, save_arrays, save_model
from tests.kills import kills_itself_at
from train.average import average_checkpoints, write_average
from train.runs.run import Run

BOTH = Tokenizer.train(["a b", "b a b"], 263)
CONFIG = TransformerConfig(vocab_size=BOTH.vocab_size, layers=1, d_model=8, d_ff=6, heads=2)


def parameters(seed: int, **changes: Any) -> dict[str, np.ndarray]:
    return parameter_arrays(Transformer(dataclasses.replace(CONFIG, **changes), seed=seed))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of three steps."""
    directory = tmp_path / "run"
    save_model(directory, Transformer(CONFIG, seed=3), TokenizerPair(BOTH, BOTH))
    (directory / "checkpoints").mkdir()
    for step in (1, 2, 3):
        save_checkpoint(directory, step, parameters(step))
    return directory


def save_checkpoint(run: Path, step: int, arrays: dict[str, np.ndarray]) -> None:
    save_arrays(run / "checkpoints" / f"{step:08d}.safetensors", arrays, {"step": step})


def test_the_mean_of_the_newest_checkpoints_is_a_model(run: Path, tmp_path: Path) -> None:
    write_average(run, 2, tmp_path / "model")
    expected = {name: (parameters(2)[name] + a) / 2 for name, a in parameters(3).items()}
    for name, found in parameter_arrays(load_model(tmp_path / "model")).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-6)
    assert Translator.load(tmp_path / "model").tokenizers.source.model == BOTH.model
    before = (tmp_path / "model" / "config.json").read_bytes()
    write_average(run, 3, tmp_path / "model")
    assert (tmp_path / "model" / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["notes", "mine.spm", "config.json/notes"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_directory_with_other_files_is_not_replaced(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    out = tmp_path / "model"
    write_average(run, 2, out)

    def put(*_: object) -> dict[str, np.ndarray]:
        mine = out / name
        if mine.parent != out:
            mine.parent.unlink()
            mine.parent.mkdir()
        mine.write_text("precious")
        return parameters(3)

    if when == "before":
        put()
    else:
        monkeypatch.setattr("train.average.average_checkpoints", put)
    with pytest.raises(UserError, match="holds more than a model"):
        write_average(run, 3, out)
    assert (out / name).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_another_programs_model_is_not_replaced(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "config.json").write_text('{"architectures": []}')
    with pytest.raises(UserError, match="was not written by npformer"):
        write_average(run, 2, out)
    assert (out / "config.json").read_text() == '{"architectures": []}'


def test_an_empty_directory_is_filled_and_not_replaced(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "mount"
    out.mkdir()
    before = out.stat().st_ino
    write_average(run, 2, out)
    assert out.stat().st_ino == before
    Translator.load(out)


def test_a_model_that_cannot_be_replaced_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", "hidden")

    out = tmp_path / "model"
    write_average(run, 2, out)
    old = parameter_arrays(load_model(out))
    with monkeypatch.context() as patch:
        patch.setattr(directories, "_exchange", busy)
        with pytest.raises(UserError, match=f"cannot write the model {out}: Device or resource"):
            write_average(run, 3, out)
    for name, found in parameter_arrays(load_model(out)).items():
        np.testing.assert_array_equal(found, old[name])


def test_the_written_model_is_verified_when_it_is_loaded(run: Path, tmp_path: Path) -> None:
    write_average(run, 2, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"interleaved"', '"concatenated"'))
    with pytest.raises(UserError, match=r"config\.json is not the file"):
        Translator.load(tmp_path / "model")


@pytest.mark.parametrize("old", [None, {"heads": 1}, {"d_ff": 10}])
def test_a_kill_leaves_either_the_old_or_the_new_model(
    run: Path, tmp_path: Path, old: dict[str, Any] | None
) -> None:
    """A mixture of their files could load, for the shapes agree, and translate nonsense."""
    number, found = 0, set()
    mean = average_checkpoints(run, 2)["embedding"]
    before = Transformer(dataclasses.replace(CONFIG, **(old or {})), seed=9)
    killed = True
    while killed:
        number += 1
        out = tmp_path / str(number) / "model"
        if old is not None:
            save_model(out, before, TokenizerPair(BOTH, BOTH))
        killed = kills_itself_at(number, lambda out=out: write_average(run, 2, out))
        if out.exists():
            model = load_model(out)
            new = model.config == CONFIG
            expected = mean if new else parameter_arrays(before)["embedding"]
            np.testing.assert_array_equal(parameter_arrays(model)["embedding"], expected)
            found.add("new" if new else "old")
        write_average(run, 2, out)
        assert load_model(out).config == CONFIG
    assert number > 6
    assert found == ({"new"} if old is None else {"old", "new"})


@pytest.mark.parametrize(
    "name",
    [
        "00000040-best",
        "best",
        "4",
        "000000004",
        "00000004.copy",
        "٠٠٠٠٠٠٠٤",
        "+0000004",
        "0000_004",
        " 0000004",
    ],
)
def test_files_with_other_names_are_not_checkpoints(run: Path, name: str) -> None:
    shutil.copy(
        run / "checkpoints" / "00000001.safetensors", run / "checkpoints" / f"{name}.safetensors"
    )
    (run / "checkpoints" / "00000005.safetensors").mkdir()
    assert [path.stem for path in Run(run).checkpoints.paths()] == [f"{i:08d}" for i in (1, 2, 3)]


def test_checkpoints_are_sorted_by_their_steps(run: Path) -> None:
    save_checkpoint(run, 100_000_000, parameters(4))
    save_checkpoint(run, 99_999_999, parameters(4))
    steps = [int(path.stem) for path in Run(run).checkpoints.paths()]
    assert steps == [1, 2, 3, 99_999_999, 100_000_000]


Arrays = dict[str, np.ndarray]


def with_one(value: float) -> Callable[[], Arrays]:
    def arrays() -> Arrays:
        found = parameters(2)
        found["encoder.0.feed_forward.inner.weight"][1, 2] = value
        return found

    return arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (lambda: parameters(2, d_ff=5), r"has shape \[8, 5\], not \[8, 6\]"),
        (lambda: parameters(2, layers=2), "also has the parameter 'decoder.1."),
        (lambda: parameters(2, norm="pre"), "also has the parameter 'decoder.norm"),
        (
            lambda: {k: v for k, v in parameters(2).items() if k != "embedding"},
            "lacks the parameter 'embedding'",
        ),
        (dict, "lacks the parameter 'embedding'"),
        (lambda: {k: v.astype(np.int32) for k, v in parameters(2).items()}, "holds int32"),
        (lambda: {k: v.astype(np.float16) for k, v in parameters(2).items()}, "holds float16"),
        (with_one(np.nan), "numbers that are not finite"),
        (with_one(np.inf), "numbers that are not finite"),
        (with_one(-np.inf), "numbers that are not finite"),
    ],
)
@pytest.mark.parametrize("step", [1, 3])
def test_a_checkpoint_that_does_not_match_the_model_is_refused(
    run: Path, tmp_path: Path, arrays: Callable[[], Arrays], message: str, step: int
) -> None:
    save_checkpoint(run, step, arrays())
    with pytest.raises(UserError, match=rf"{step:08d}\.safetensors .*{message}") as error:
        write_average(run, 3, tmp_path / "model")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()
    if step == 1:
        average_checkpoints(run, 2)  # the others match


def flip(name: str, position: int) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        content = bytearray((run / name).read_bytes())
        content[position] ^= 2
        (run / name).write_bytes(content)

    return damage


def another_head(run: Path) -> None:
    path = run / "config.json"
    values = json.loads(path.read_text())
    values["model"]["heads"] = 4
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (another_head, r"config\.json is not the file"),
        (flip("tokenizer.spm", 300), r"tokenizer\.spm has been altered"),
        (flip("checkpoints/00000002.safetensors", -9), r"00000002\.safetensors has been altered"),
        (lambda run: (run / "config.json").unlink(), r"config\.json cannot be read"),
        (lambda run: (run / "model.safetensors").unlink(), r"model\.safetensors"),
        (lambda run: (run / "tokenizer.spm").unlink(), "holds no tokenizer"),
    ],
)
def test_a_damaged_run_is_not_averaged(
    run: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(run)
    with pytest.raises(UserError, match=message) as error:
        write_average(run, 3, tmp_path / "model")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("last", "message"), [(0, "at least 1"), (4, "holds 3 checkpoints")])
def test_averaging_needs_as_many_checkpoints_as_it_is_asked_for(
    run: Path, last: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        average_checkpoints(run, last)
