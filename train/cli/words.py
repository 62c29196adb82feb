"""The words of a command line, before they are parsed, and what the parser says of wrong ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from npformer.errors import UserError
from train.runs.init_from import model_settings
from train.settings_file import as_flags, read_settings


def underscored(words: Sequence[str]) -> list[str]:
    """Treats - and _ in long flags alike: --vocab-size becomes --vocab_size."""
    result = []
    for word in words:
        flag, equals, value = word.partition("=")
        long = flag.startswith("--") and len(flag) > 2
        result.append(f"--{flag[2:].replace('-', '_')}{equals}{value}" if long else word)
    return result


def with_settings_of_files(words: list[str]) -> list[str]:
    """For train: replace settings files by equivalent flags, which later flags override.

    With --resume, the run's own settings come first; in a new run with --init-from, those of that
    model, unless a preset says what the model is.
    """
    if words[0] != "train":
        return words
    result, rest, resuming = [], words[1:], "--resume" in words
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
    if model and not _given(result, "--model.preset"):
        result = as_flags({"model": model_settings(Path(model))}) + result
    return ["train", *result]


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


def readable(message: str) -> str:
    """jsonargparse's message about flags that are missing or have wrong values, shortened."""
    message = " ".join(message.split())
    if found := re.search(r"arguments are required: ([\w., ]+)", message):
        missing = (name.rpartition(".")[2] for name in found[1].split(", "))
        return f"{' and '.join(missing)} must be given"
    if found := re.match(r'Parser key "([^"]+)": .*surrogates not allowed', message):
        return f"{found[1]} is given in bytes that are not UTF-8"
    found = re.match(r'Parser key "([^"]+)": .*(?:Given|Got) value: (.*)$', message)
    if found is None:
        return message
    kinds = dict.fromkeys(re.findall(r"Expected an? <class '(\w+)'>", message))
    kinds.pop("NoneType", None)
    choices = re.findall(r"Literal\[([^\]]*)\]", message)
    names = [_KINDS.get(kind, kind) for kind in kinds]
    wanted = " or ".join([*names, *(f"one of {c}" for c in dict.fromkeys(choices))])
    return f"{found[1]} must be {wanted or 'something else'}; it is {found[2]!r}"


_KINDS = {"int": "a whole number", "float": "a number", "str": "a word"}
