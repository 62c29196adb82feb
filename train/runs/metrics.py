"""metrics.jsonl, the log of a run: a line for each log entry and each validation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from npformer.errors import UnwritableError, UserError
from npformer.files import atomic_write
from npformer.reading import read_plain

SCORE_NAMES = {"bleu": "BLEU", "chrf": "chrF"}
"""The scores of validations, as they are written in text."""

_LARGEST = 1 << 28  # bytes: a million entries


def metrics_path(directory: Path) -> Path:
    """Where the run in `directory` has its metrics."""
    return directory / "metrics.jsonl"


def append_metrics(directory: Path, entry: dict[str, Any]) -> None:
    """Append an entry to a run's metrics. Raises UnwritableError if it cannot be written."""
    path = metrics_path(directory)
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise UnwritableError(f"cannot write {path}: {error.strerror}") from error


def drop_metrics_after(directory: Path, step: int, validated: int) -> None:
    """Remove the entries of later steps, and a last line that a kill has cut short.

    Validations are kept up to step `validated`.
    """
    kept = [
        entry
        for entry in read_metrics(directory)
        if entry["step"] <= (validated if "valid_loss" in entry else step)
    ]
    with atomic_write(metrics_path(directory)) as file:
        file.writelines(json.dumps(entry).encode() + b"\n" for entry in kept)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The entries of a run's metrics.jsonl, without a last line that a kill has cut short.

    Raises UserError, naming the line, for an invalid entry.
    """
    path = metrics_path(directory)
    try:
        lines = read_plain(path, _LARGEST).split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    entries = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            wrong = _what_is_wrong(entry)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested too deeply
            wrong = "it is not JSON"
        if wrong:
            raise UserError(
                f"{path}, line {number}, is not an entry of the log: {wrong}; delete the line, or "
                "move the file away to continue without it"
            )
        entries.append(entry)
    return entries


def valid_loss(validation: dict[str, Any]) -> float:
    """The loss of a validation, infinite if it is NaN, with which no loss can be compared."""
    loss: float = validation["valid_loss"]
    return math.inf if math.isnan(loss) else loss


_WORDS = ("signature", "chrf_signature")
_WHOLE = ("step", "epoch", "skipped", "beam")
_NEEDED = {
    "loss": ("step", "seconds", "loss", "perplexity", "rate"),
    "valid_loss": ("step", "seconds", "valid_loss", "valid_perplexity"),
}


def _what_is_wrong(entry: Any) -> str | None:
    """Why this is neither a log entry nor a validation; None if it is one.

    Infinity and NaN are accepted, as Python writes them: a run logs a perplexity that overflows as
    infinity, and its curve has a gap there.
    """
    if not isinstance(entry, dict):
        return "it is not an object"
    kind = next((kind for kind in _NEEDED if kind in entry), None)
    if kind is None:
        return "it has no loss"
    for name in _NEEDED[kind]:
        if name not in entry:
            return f"it has no {name}"
    for name, value in entry.items():
        if name in _WHOLE:
            if type(value) is not int or not 0 <= value < 2**63:
                return f"{name} is not a whole number"
        elif name not in _WORDS and type(value) is not float and type(value) is not int:
            return f"{name} is not a number"
        elif type(value) is int and abs(value) >= 2**63:
            return f"{name} is too large"
    return None
