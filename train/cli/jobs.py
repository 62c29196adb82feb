"""How many processes a command works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from train.processors import cores
from train.ranks.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from jsonargparse import Namespace


def jobs_of(options: Namespace, ranks: Ranks = ALONE) -> int:
    """How many work on text: those that are asked for, or one for each processor."""
    return int(options.jobs) if options.jobs is not None else ranks.processors or cores()
