"""Checks that all ranks are about to do, and have done, the same."""

from __future__ import annotations

import hashlib
import platform
import time
import zlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from autograd import to_host
from autograd.backend import Array
from train.corpora.corpus import Corpus
from train.ranks.ranks import AgreedError, Ranks
from train.settings import TrainSettings, settings_to_dict, shown

# What computes numbers, or decides what they are computed from, by the names of its packages.
_LIBRARIES = {
    "npformer": ("npformer",),
    "NumPy": ("numpy",),
    "Numba": ("numba",),
    "CuPy": ("cupy-cuda12x", "cupy-cuda13x", "cupy"),
    "NCCL": ("nvidia-nccl-cu12", "nvidia-nccl-cu13"),
    "SentencePiece": ("sentencepiece",),
}
_PACKAGES = ("autograd", "npformer", "train")
_PATIENCE, _PAUSE = 5.0, 0.1  # seconds, until a network's file system must show what is new


def check_alike(ranks: Ranks, settings: TrainSettings, corpus: Corpus) -> None:
    """Raise UserError on all ranks unless they have the same versions, settings and corpus."""
    if ranks.size > 1:
        check_same_facts(ranks, _settings(settings) | {"the corpus": corpus.fingerprint[:12]})


def check_same_facts(ranks: Ranks, own: dict[str, Any]) -> None:
    """Raise UserError on all ranks unless they have the same versions and the same facts.

    own: of this rank, by what a message calls them
    """
    if ranks.size == 1:
        return
    facts = ranks.all(_versions() | own)
    for rank, found in enumerate(facts):
        for what in facts[0] | found:
            value, first = found.get(what), facts[0].get(what)
            if value != first:
                raise AgreedError(
                    f"{ranks.name(rank)} has {what} {_said(value)}, and {ranks.name(0)} has "
                    f"{_said(first)}; all ranks must have the same"
                )


def _said(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else shown(value)


def _versions() -> dict[str, Any]:
    found = {"Python": platform.python_version()}
    for library, names in _LIBRARIES.items():
        for name in names:
            try:
                found.setdefault(library, version(name))
            except PackageNotFoundError:
                continue
    return found | {"npformer with sources": _digest_of_sources()}


def _digest_of_sources() -> str:
    """A few digits that tell whether a version of npformer was edited."""
    digest, root = hashlib.sha256(), Path(__file__).parents[2]
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _settings(settings: TrainSettings) -> dict[str, Any]:
    """The values of all settings by name, with those of the model as model.d_model."""
    values = settings_to_dict(settings)
    model = values.pop("model")
    return values | {f"model.{name}": value for name, value in model.items()}


def check_shared(ranks: Ranks, directory: Path, read: Callable[[], str | None]) -> None:
    """Raise UserError on all ranks unless they find the same in the directory of the run.

    read: returns what tells it from others of the same name, or None if it is not there
    """
    if ranks.size == 1:
        return
    expected = ranks.on_first(read)
    until = time.monotonic() + _PATIENCE
    while (found := read()) != expected and time.monotonic() < until:
        time.sleep(_PAUSE)
    for rank, is_there in enumerate(ranks.all(found == expected)):
        if not is_there:
            raise AgreedError(
                f"{ranks.name(rank)} does not find {directory}, which {ranks.name(0)} has made; "
                "--out must be in a file system that all hosts share"
            )


def checksum(values: Array) -> int:
    """A number that tells parameters from others."""
    return zlib.crc32(np.ascontiguousarray(to_host(values)).data)


def check_same_parameters(ranks: Ranks, values: Array, step: int) -> None:
    """Raise UserError on all ranks unless they have the same parameters, to the last bit."""
    if ranks.size == 1:
        return
    sums = ranks.all(checksum(values))
    for rank, found in enumerate(sums):
        if found != sums[0]:
            raise AgreedError(
                f"after step {step} {ranks.name(rank)} has other parameters than {ranks.name(0)}: "
                "their processors, GPUs or libraries differ; use machines of one kind"
            )
