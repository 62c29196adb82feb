"""The status of a run: during training, after a kill, and before the first log entry."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer.errors import UserError
from train.cli import status as module
from train.cli.status import describe, read_status
from train.runs.lock import RunLock
from train.runs.progress import Position, Progress, Validations
from train.runs.state import save_state

SAVED = 1_700_000_000


def run(directory: Path, *entries: dict[str, Any], settings: str = "max_steps: 300\n") -> Path:
    """The directory of a run that logged `entries`, with a state of 2 MB and two checkpoints."""
    state = directory / "training" / "state.safetensors"
    state.parent.mkdir(parents=True)
    save_state(state, {"parameter.x": np.zeros(500_000, "f4")}, Progress(Position(1160)), {})
    for name, size in {
        "checkpoints/00000100.safetensors": 600_000,
        "checkpoints/00000200.safetensors": 600_000,
        "model.safetensors": 500_000,
    }.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0" * size)
    os.utime(state, (SAVED, SAVED))
    (directory / "train.yaml").write_text(f"# corpus abc\n{settings}")
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    if lines:
        (directory / "metrics.jsonl").write_text(lines)
    return directory


def logged(step: int, **more: float) -> dict[str, Any]:
    return {
        "step": step,
        "loss": 300 / step,
        "perplexity": 12.5,
        "rate": 1e-3,
        "tokens_per_second": 1234.5,
        "seconds": step / 2,
        "seconds_left": (300 - step) / 2,
        **more,
    }


def validated(step: int, loss: float, **more: float) -> dict[str, Any]:
    seconds = step / 2
    return {"step": step, "valid_loss": loss, "valid_perplexity": 9.5, "seconds": seconds, **more}


def test_the_status_of_a_run_in_progress(tmp_path: Path) -> None:
    directory = run(
        tmp_path / "run",
        logged(100),
        validated(100, 2.5, bleu=31.0, chrf=50.0),
        logged(200),
        validated(200, 2.75, bleu=30.0, chrf=51.0),
        settings="max_steps: 300\nmax_minutes: 10\n",
    )
    with open(directory / "metrics.jsonl", "a") as file:
        file.write('{"step": 250, "lo')  # being written
    assert describe(read_status(directory), now=SAVED + 75).split("\n") == [
        f"{directory}: no process is training it",
        "  step       200 of 300, 0:01:40 so far of 0:10:00, 0:00:50 left",
        "  speed      2 steps a second, 1,234 target tokens a second",
        "  loss       1.500, perplexity 12.50 at step 200",
        "  validation loss 2.750, perplexity 9.50, BLEU 30.00, chrF 51.00 at step 200",
        "  best       loss 2.500 at step 100, BLEU 31.00 at step 100, chrF 51.00 at step 200",
        "  state      saved 0:01:15 ago; --resume continues from step 1,160",
        "  disk       3.7 MB: 1.2 MB in 2 checkpoints, 2.0 MB in the state, 0.5 MB in the model",
    ]


def test_the_status_of_a_run_without_a_log(tmp_path: Path) -> None:
    directory = run(tmp_path / "run")
    (directory / "training" / "state.safetensors").unlink()
    said = describe(read_status(directory))
    assert "step       0 of 300, 0:00:00 so far\n" in said
    assert "speed      not known yet\n" in said
    assert "best       none yet\n" in said
    assert "state      none to resume from\n" in said


def test_a_state_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    directory = run(tmp_path / "run")
    state = directory / "training" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    os.utime(state, (SAVED, SAVED))
    said = describe(read_status(directory), now=SAVED)
    assert "state      saved 0:00:00 ago, and damaged: --resume will say more\n" in said


def test_a_finished_run_has_no_time_left(tmp_path: Path) -> None:
    said = describe(read_status(run(tmp_path / "run", logged(150), logged(300))))
    assert "step       300 of 300, 0:02:30 so far\n" in said


@pytest.mark.parametrize(("since", "has_ended"), [(1, False), (2, True)])
def test_a_run_that_ended_for_want_of_improvement_has_no_time_left(
    tmp_path: Path, since: int, has_ended: bool
) -> None:
    directory = run(tmp_path, logged(100), settings="max_steps: 300\npatience: 2\nbest_by: loss\n")
    progress = Progress(Position(100), validations=Validations(100, 3.5, 50, since_best=since))
    state = directory / "training" / "state.safetensors"
    save_state(state, {"parameter.x": np.zeros(1, "f4")}, progress, {})
    said = describe(read_status(directory), SAVED)
    assert ("ended after 2 validations without improvement" in said) == has_ended
    assert (" left" in said) == (not has_ended)


def test_a_checkpoint_that_is_removed_meanwhile_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = run(tmp_path / "run", logged(100))
    gone = directory / "checkpoints" / "00000050.safetensors"
    found = [*directory.rglob("*"), gone]
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: iter(found))
    assert read_status(directory).checkpoints == 2


def test_the_process_that_trains_is_named(tmp_path: Path) -> None:
    directory = run(tmp_path / "run", logged(100))
    path = directory / "training" / "lock"
    lock = RunLock(path)
    lock.acquire()
    title = describe(read_status(directory)).partition("\n")[0]
    assert title.startswith(f"{directory}: process {os.getpid()} on ")
    lock.release()
    assert "no process is training it" in describe(read_status(directory))
    path.write_text("12 host\n")  # left by a process that was killed
    assert "no process is training it" in describe(read_status(directory))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EACCES])
def test_where_nobody_can_know_who_trains_a_run_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The file system has no locks, or the lock is not for every reader."""
    directory = run(tmp_path / "run", logged(100))
    path = directory / "training" / "lock"
    path.write_text("12 host\n")
    opened = os.open

    def refused(given: Any, *more: Any, **also: Any) -> Any:
        if number == errno.ENOLCK or given == path:
            raise OSError(number, os.strerror(number))
        return opened(given, *more, **also)

    name = "train.runs.lock.lock_or_raise" if number == errno.ENOLCK else "os.open"
    monkeypatch.setattr(name, refused)
    title = describe(read_status(directory)).partition("\n")[0]
    assert title == (
        f"{directory}: whether a process is training it is not known "
        f"({path}: {os.strerror(number)})"
    )


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run: there is no"):
        read_status(tmp_path)


def test_sizes_of_large_files_are_given_in_gigabytes() -> None:
    assert module._size(1_234_000_000) == "1.23 GB"


def test_numbers_that_are_not_finite_are_neither_the_best_nor_an_error(tmp_path: Path) -> None:
    nan = float("nan")
    entries = [logged(100, seconds=nan, seconds_left=nan), validated(100, nan), validated(90, 2.5)]
    said = describe(read_status(run(tmp_path / "run", *entries)))
    assert "step       100 of 300, ? so far, ? left\n" in said
    assert "best       loss 2.500 at step 90\n" in said
    alone = describe(read_status(run(tmp_path / "alone", validated(100, nan))))
    assert "best       loss nan at step 100\n" in alone


def test_what_is_not_of_the_model_is_told_apart_from_it(tmp_path: Path) -> None:
    directory = run(tmp_path / "run", logged(100))
    before = describe(read_status(directory))
    (directory / "tensorboard").mkdir()
    (directory / "tensorboard" / "events.1").write_bytes(b"\0" * 700_000)
    (directory / "checkpoints" / "00000200.safetensors").unlink()
    said = describe(read_status(directory))
    assert "0.6 MB in 1 checkpoint, " in said
    assert said.endswith("0.5 MB in the model, 0.7 MB in the other files")
    assert before.endswith("0.5 MB in the model")


def test_checkpoints_on_another_disk_are_counted(tmp_path: Path) -> None:
    directory = run(tmp_path / "run", logged(100))
    before = read_status(directory)
    os.rename(directory / "checkpoints", tmp_path / "disk")
    (directory / "checkpoints").symlink_to(tmp_path / "disk")
    assert before.checkpoints == 2
    assert read_status(directory) == before
