"""The processors that this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """How many processors this process may use."""
    return len(usable_processors())


def usable_processors() -> frozenset[int]:
    """The processors that the system lets this process use."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
