"""translations.jsonl: how a run has translated a few fixed sentences, at each validation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from npformer.errors import UnwritableError, UserError
from npformer.files import atomic_write
from npformer.reading import read_plain

_LARGEST = 1 << 30  # bytes


@dataclass(frozen=True)
class Sample:
    """A sentence of the validation set, its reference, and its translation now."""

    source: str
    reference: str
    translation: str


def chosen_sentences(count: int, of: int) -> list[int]:
    """Which sentences of a validation set are translated: `count` at equal distances."""
    return [i * of // count for i in range(count)] if count < of else list(range(of))


def samples_path(directory: Path) -> Path:
    """Where the run in `directory` has its translations."""
    return directory / "translations.jsonl"


def append_samples(directory: Path, step: int, samples: Sequence[Sample]) -> None:
    """Append translations of a step, a line each. Raises UserError if they cannot be written."""
    path = samples_path(directory)
    lines = [json.dumps({"step": step, **asdict(s)}, ensure_ascii=False) + "\n" for s in samples]
    try:
        with open(path, "ab") as file:
            file.write("".join(lines).encode())
    except OSError as error:
        raise UnwritableError(f"cannot write {path}: {error.strerror}") from error


def drop_samples_after(directory: Path, step: int) -> None:
    """Remove the translations of later steps, and a last line that a kill has cut short.

    Other lines stay as they are, also what someone else has written there.
    """
    path = samples_path(directory)
    try:
        lines = read_plain(path, _LARGEST).split(b"\n")[:-1]
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    with atomic_write(path) as file:
        file.writelines(line + b"\n" for line in lines if _step(line) <= step)


def _step(line: bytes) -> int:
    """The step of a line; 0 if it has none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    return step if type(step) is int else 0
