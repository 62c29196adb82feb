"""Checks that all ranks are about to do the same run, and have done the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autograd.backend import Array
from train.corpora.corpus import Corpus
from train.ranks.alike import check_same_facts, checksum
from train.ranks.ranks import AgreedError, Ranks
from train.settings import TrainSettings, settings_to_dict

_PATIENCE, _PAUSE = 5.0, 0.1  # seconds, until a network's file system must show what is new


def check_alike(ranks: Ranks, settings: TrainSettings, corpus: Corpus) -> None:
    """Raise UserError on all ranks unless they have the same versions, settings and corpus."""
    if ranks.size > 1:
        check_same_facts(ranks, _settings(settings) | {"the corpus": corpus.fingerprint[:12]})


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
