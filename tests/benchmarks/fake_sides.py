"""Sides of a contest that compute nothing, and share memory that suffices for one peer."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path


class Fake:
    """A turn that takes `seconds`, without waiting; turn number `fails` fails."""

    def __init__(self, seconds: float, fails: int | None = None) -> None:
        self.seconds, self.fails, self.turns = seconds, fails, 0

    def __call__(self) -> float:
        if self.turns == self.fails:
            raise RuntimeError(f"failed at turn {self.turns}")
        self.turns += 1
        return self.seconds

    def used(self) -> dict[str, int]:
        return {"peak_bytes": round(1000 * self.seconds)}


def side(imported: Callable[[], None], seconds: float, fails: int | None = None) -> Fake:
    imported()
    return Fake(seconds, fails)


class Large(Fake):
    """It takes all memory at its first turn, or fails if another has it."""

    def __init__(self, seconds: float, memory: Path) -> None:
        super().__init__(seconds)
        self.memory = memory.open("a")

    def __call__(self) -> float:
        take_all(self.memory.fileno())
        return super().__call__()


def take_all(memory: int) -> None:
    """Raise MemoryError unless the memory is free; the end of the process frees it."""
    try:
        fcntl.flock(memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise MemoryError("out of memory: another side has reserved it") from None


def large_at_its_first_turn(imported: Callable[[], None], seconds: float, memory: Path) -> Fake:
    imported()
    return Large(seconds, memory)


def large_at_its_start(imported: Callable[[], None], seconds: float, memory: Path) -> Fake:
    imported()
    found = Large(seconds, memory)
    take_all(found.memory.fileno())
    return found


def missing(imported: Callable[[], None]) -> Fake:
    raise ModuleNotFoundError("No module named 'a peer'")


def dead(imported: Callable[[], None]) -> Fake:
    raise SystemExit  # ends the process, which is not an Exception


def haswell(imported: Callable[[], None]) -> Callable[[], float]:
    """Its turn takes 2 seconds if NumPy's products are those of a Haswell, else 1."""
    import threadpoolctl

    imported()
    kernels = {library.get("architecture") for library in threadpoolctl.threadpool_info()}
    return lambda: 1.0 + ("Haswell" in kernels)
