"""The status of a run, read from its settings, its metrics and the sizes of its files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from npformer.checkpoint import MODEL_FILES
from npformer.errors import UserError
from npformer.model_card import CARD
from train.cli.rank_status import describe_ranks
from train.runs.lock import training_process
from train.runs.metrics import SCORE_NAMES, read_metrics, valid_loss
from train.runs.progress import Progress
from train.runs.rank_files import RankFiles, RankReport
from train.runs.state import read_about
from train.settings import TrainSettings
from train.settings_file import read_settings
from train.wording import counted, duration


@dataclass(frozen=True)
class Status:
    """A run as it stands.

    Attributes:
        logged, validated: its metrics, oldest first
        disk: bytes by what they are for
        saved: when the state to resume from was written, in seconds since the epoch; None if there
            is none
        saved_step: its step; None if it cannot be read
        without_improvement: the validations without improvement that have ended it, by its
            `patience`; 0 if it has not ended so
        training: a clause about the process that trains it
        is_training: whether there is one; None if that cannot be known
        ranks: what the ranks of its last job have said, if there were several
    """

    directory: Path
    max_steps: int
    max_minutes: float
    logged: list[dict[str, Any]]
    validated: list[dict[str, Any]]
    disk: dict[str, int]
    checkpoints: int
    saved: float | None
    saved_step: int | None
    without_improvement: int
    training: str
    is_training: bool | None
    ranks: list[RankReport]


_KINDS = {
    "checkpoints": "checkpoints",
    "training": "state",
    "best": "best model",
    "ranks": "logs of ranks",
    **dict.fromkeys((*MODEL_FILES, CARD), "model"),
}
_OTHERS = "other files"  # the log, translations, TensorBoard's events


def read_status(directory: Path) -> Status:
    """The status of a run, which may be training or killed. Raises UserError if there is none."""
    path = directory / "train.yaml"
    if not path.is_file():
        raise UserError(f"{directory} holds no run: there is no {path}")
    settings = read_settings(path)
    progress = _saved_progress(directory / "training" / "state.safetensors")
    is_training, training = _training(directory / "training" / "lock")
    entries = read_metrics(directory)
    files = dict(_files(directory))
    disk = dict.fromkeys((*_KINDS.values(), _OTHERS), 0)
    for name, (size, _) in files.items():
        disk[_KINDS.get(name.partition("/")[0], _OTHERS)] += size
    return Status(
        directory=directory,
        max_steps=settings.get("max_steps", TrainSettings.max_steps),
        max_minutes=settings.get("max_minutes", TrainSettings.max_minutes),
        logged=[entry for entry in entries if "loss" in entry],
        validated=[entry for entry in entries if "valid_loss" in entry],
        disk=disk,
        checkpoints=sum(name.startswith("checkpoints/") for name in files),
        saved=files.get("training/state.safetensors", (0, None))[1],
        saved_step=progress.position.step if progress else None,
        without_improvement=_without_improvement(settings.get("patience", 0), progress),
        training=training,
        is_training=is_training,
        ranks=RankFiles(directory / "ranks").read(),
    )


def _training(lock: Path) -> tuple[bool | None, str]:
    """Whether a process is training, if that can be known, and a clause that says so."""
    try:
        process = training_process(lock)
    except OSError as error:
        return None, f"whether a process is training it is not known ({lock}: {error.strerror})"
    return process is not None, f"{process or 'no process'} is training it"


def _saved_progress(state: Path) -> Progress | None:
    """The progress of a state, as its header says; None if it is missing or damaged."""
    try:
        return Progress.of(read_about(state), state)
    except UserError:
        return None


def _without_improvement(patience: int, progress: Progress | None) -> int:
    """The validations without improvement that have ended a run; 0 if it has not ended so."""
    since = progress.validations.since_best if progress else 0
    return since if patience and since >= patience else 0


def _files(directory: Path) -> Iterator[tuple[str, tuple[int, float]]]:
    """The name, size and time of each file of a run, which may be pruning some of them.

    Its checkpoints may be on another disk, and the directory a link to it.
    """
    for path in chain.from_iterable([top, *top.rglob("*")] for top in directory.iterdir()):
        try:
            about = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            yield path.relative_to(directory).as_posix(), (about.st_size, about.st_mtime)


def describe(status: Status, now: float | None = None) -> str:
    """A status as lines of text; now: the time, in seconds since the epoch."""
    now = time.time() if now is None else now
    lines = [
        ("step", _progress(status)),
        ("speed", _speed(status.logged)),
        ("loss", _loss(status.logged)),
        ("validation", _validation(status.validated)),
        ("best", _best(status.validated)),
        ("state", _state(status, now)),
        ("disk", _disk(status)),
    ]
    of_ranks: list[str] = []
    if status.ranks:
        summary, of_ranks = describe_ranks(status.ranks, now, status.is_training is not False)
        lines.append(("ranks", summary))
    title = f"{status.directory}: {status.training}"
    said_of_it = [f"  {name:<11}{said}" for name, said in lines]
    return "\n".join([title, *said_of_it, *(f"    {line}" for line in of_ranks)])


def _progress(status: Status) -> str:
    entries = [*status.logged, *status.validated]
    last = max(entries, key=lambda entry: entry["step"], default={"step": 0, "seconds": 0.0})
    said = f"{last['step']:,} of {status.max_steps:,}, {duration(last['seconds'])} so far"
    if status.max_minutes:
        said += f" of {duration(60 * status.max_minutes)}"
    if status.without_improvement:
        validations = counted(status.without_improvement, "validation")
        said += f", ended after {validations} without improvement"
    elif last["step"] < status.max_steps and status.logged:
        said += f", {duration(status.logged[-1].get('seconds_left', 0.0))} left"
    return said


def _speed(logged: list[dict[str, Any]]) -> str:
    if len(logged) < 2:
        return "not known yet"
    before, last = logged[-2:]
    seconds = max(last["seconds"] - before["seconds"], 1e-9)
    said = f"{(last['step'] - before['step']) / seconds:.3g} steps a second"
    if "tokens_per_second" in last:
        said += f", {last['tokens_per_second']:,.0f} target tokens a second"
    return said


def _loss(logged: list[dict[str, Any]]) -> str:
    if not logged:
        return "none logged yet"
    last = logged[-1]
    return f"{last['loss']:.3f}, perplexity {last['perplexity']:.2f} at step {last['step']:,}"


def _validation(validated: list[dict[str, Any]]) -> str:
    if not validated:
        return "none yet"
    last = validated[-1]
    said = f"loss {last['valid_loss']:.3f}, perplexity {last['valid_perplexity']:.2f}"
    return f"{said}{_scores(last)} at step {last['step']:,}"


def _scores(entry: dict[str, Any]) -> str:
    return "".join(f", {SCORE_NAMES[key]} {entry[key]:.2f}" for key in SCORE_NAMES if key in entry)


def _best(validated: list[dict[str, Any]]) -> str:
    if not validated:
        return "none yet"
    lowest = min(validated, key=valid_loss)
    said = [f"loss {lowest['valid_loss']:.3f} at step {lowest['step']:,}"]
    for key, name in SCORE_NAMES.items():
        if scored := [entry for entry in validated if key in entry]:
            highest = max(scored, key=lambda entry: entry[key])
            said.append(f"{name} {highest[key]:.2f} at step {highest['step']:,}")
    return ", ".join(said)


def _state(status: Status, now: float) -> str:
    if status.saved is None:
        return "none to resume from"
    ago = f"saved {duration(max(0.0, now - status.saved))} ago"
    if status.saved_step is None:
        return f"{ago}, and damaged: --resume will say more"
    return f"{ago}; --resume continues from step {status.saved_step:,}"


def _disk(status: Status) -> str:
    parts = {
        kind: f"{_size(size)} in the {kind}"
        for kind, size in status.disk.items()
        if size >= 50_000  # less is 0.0 MB
    }
    checkpoints = counted(status.checkpoints, "checkpoint")
    parts["checkpoints"] = f"{_size(status.disk['checkpoints'])} in {checkpoints}"
    return f"{_size(sum(status.disk.values()))}: {', '.join(parts.values())}"


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
