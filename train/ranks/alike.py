"""Checks that all ranks know the same: versions, options, parameters."""

from __future__ import annotations

import hashlib
import platform
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from autograd import to_host
from autograd.backend import Array
from train.ranks.ranks import AgreedError, Ranks
from train.wording import shown

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


def checksum(values: Array) -> int:
    """A number that tells parameters from others."""
    return zlib.crc32(np.ascontiguousarray(to_host(values)).data)
