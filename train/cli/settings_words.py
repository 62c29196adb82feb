"""The settings that a command line of train names by files, as if they were flags."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from npformer.errors import UserError
from train.runs.init_from import model_settings
from train.settings_file import as_flags, read_settings


def with_settings_of_files(words: Sequence[str]) -> list[str]:
    """Replace settings files by equivalent flags, which later flags override.

    With --resume, the run's own settings come first; in a new run with --init-from, those of that
    model. If a preset says what the model is, only how long its sentences were is taken over.
    """
    result, rest, resuming = [], list(words), "--resume" in words
    if resuming:
        result += as_flags(read_settings(_saved_settings(rest)))
    while rest:
        word = rest.pop(0)
        if word == "--config" and rest:
            result += as_flags(read_settings(Path(rest.pop(0))))
        elif word.startswith("--config="):
            result += as_flags(read_settings(Path(word.partition("=")[2])))
        else:
            result.append(word)
    model = None if resuming else _given(result, "--init_from")
    if model:
        values = model_settings(Path(model))
        if _given(result, "--model.preset"):
            values = {name: values[name] for name in values.keys() & {"longest"}}
        result = as_flags({"model": values}) + result
    return result


def _given(words: list[str], flag: str) -> str | None:
    """The last value that is given for a flag."""
    found = None
    for word, following in pairwise([*words, ""]):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found or None


def _saved_settings(words: list[str]) -> Path:
    """The settings file of the run in --out."""
    out = _given(words, "--out")
    if out is None:
        raise UserError("--resume needs --out, the directory of the run to resume")
    saved = Path(out) / "train.yaml"
    if not saved.is_file():
        raise UserError(
            f"{out} holds no run to resume: there is no {saved}; start one without --resume"
        )
    return saved
