"""Compares implementations ("sides"), each in its own process, which take turns in one run.

In its own process a side is not affected by the threads and the memory of others, and its peak
memory can be measured. Taking turns (A B C, A B C, ...) spreads other load on the machine evenly.
"""

from __future__ import annotations

import importlib
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from autograd import cpu

_CALM = 0.25  # seconds before a turn: threads of the previous side may still be busy-waiting

Turn = Callable[[], float | None]
"""What a side does in one turn, and is timed, unless it returns the seconds that count itself.

It may have a method `used`, which tells at the end what else it used than a process does.
"""


class SideError(Exception):
    """A side that failed; the text is its traceback."""


class Side:
    """A process that runs `prepare(*arguments)`, and then its result at each `turn`.

    `prepare` does its imports, calls `imported`, and returns a Turn.
    """

    def __init__(self, prepare: Callable[..., Turn], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        made = (theirs, prepare, arguments)
        self._process = context.Process(target=_serve, args=made, daemon=True)
        self._process.start()
        theirs.close()
        self._receive()

    def turn(self) -> float:
        """Run a turn; returns its seconds."""
        self._pipe.send("turn")
        return float(self._receive())

    def close(self) -> dict[str, int | None]:
        """End the process; returns its peak memory beyond its imports, and its busy threads.

        None for what the system does not report.
        """
        self._pipe.send("close")
        used: dict[str, int | None] = self._receive()
        self._process.join()
        return used

    def kill(self) -> None:
        """End the process at once, and free its memory, on a GPU too."""
        self._process.kill()
        self._process.join()

    def _receive(self) -> Any:
        """The next message of the process. Raises SideError with its traceback if it failed."""
        try:
            message = self._pipe.recv()
        except EOFError:
            message = SideError("the process ended without a result or an error")
        if isinstance(message, SideError):
            self.kill()
            raise message
        return message


def load_compiled_loops() -> None:
    """Import the modules of compiled loops, which are otherwise imported at first use."""
    for name in sorted(Path(cpu.__file__).parent.glob("[a-z]*.py")):
        importlib.import_module(f"{cpu.__name__}.{name.stem}")


def _serve(pipe: Connection, prepare: Callable[..., Turn], arguments: Sequence[Any]) -> None:
    try:
        _take_part(pipe, prepare, arguments)
    except Exception:  # of any kind: the waiting process reports it
        pipe.send(SideError(traceback.format_exc()))


def _take_part(pipe: Connection, prepare: Callable[..., Turn], arguments: Sequence[Any]) -> None:
    resident: int | None = None

    def imported() -> None:
        nonlocal resident
        with suppress(OSError):  # a sandbox may lack this file
            Path("/proc/self/clear_refs").write_text("5")  # reset the peak
            resident = _resident("VmRSS")

    turn = prepare(imported, *arguments)
    before = _thread_times()
    pipe.send("ready")
    while pipe.recv() == "turn":
        started = time.perf_counter()
        took = turn()
        pipe.send(time.perf_counter() - started if took is None else took)
    most = _resident("VmHWM")
    peak = None if resident is None or most is None else most - resident
    used = {"peak_bytes": peak, "threads": _busy_threads(before)}
    pipe.send({**used, **getattr(turn, "used", dict)()})


def _resident(what: str) -> int | None:
    """This process's memory in bytes: VmRSS, the current, or VmHWM, the peak."""
    for line in Path("/proc/self/status").read_text().split("\n"):
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024
    return None


def _thread_times() -> dict[str, int]:
    """The CPU time of each thread of this process so far, busy-waiting included, in ticks."""
    times = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # the thread has ended
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            times[task.name] = int(fields[11]) + int(fields[12])  # utime and stime
    return times


def _busy_threads(before: dict[str, int]) -> int:
    """The number of threads with at least a tenth of the busiest one's CPU time since `before`."""
    worked = [ticks - before.get(task, 0) for task, ticks in _thread_times().items()]
    return sum(10 * ticks >= max(1, *worked) for ticks in worked)


def take_turns(
    sides: dict[str, Side],
    rounds: int,
    warmup: int,
    after_round: Callable[[dict[str, list[float]]], Any] = lambda seconds: None,
    failed: dict[str, str] | None = None,
) -> dict[str, list[float]]:
    """Run `rounds` turns of each side, one after another, after `warmup` uncounted ones.

    `after_round` is called with the results so far. With `failed`, a peer that fails is removed
    from `sides`, and its error is stored there.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(-warmup, rounds):
        for name, side in list(sides.items()):
            time.sleep(_CALM)
            try:
                took = side.turn()
            except SideError as error:
                if failed is None or _is_ours(name):
                    raise
                failed[name] = str(error)
                del sides[name], seconds[name]
                continue
            if round_ >= 0:
                seconds[name].append(took)
        if round_ >= 0:
            after_round(seconds)
    return seconds


Makers = Mapping[str, tuple[Any, ...]]
"""What makes each side, by name: the arguments of `Side`. Names of ours begin with "ours"."""


class Contest(NamedTuple):
    """What came of a contest.

    Attributes:
        seconds: of each turn, for the sides that did not fail
        used: what `Side.close` returned of each
        failed: the tracebacks of the others
    """

    seconds: dict[str, list[float]]
    used: dict[str, dict[str, int | None]]
    failed: dict[str, str]


def hold(
    makers: Makers,
    rounds: int,
    warmup: int = 1,
    after_round: Callable[[Contest], Any] = lambda contest: None,
) -> Contest:
    """A contest of all sides, from their start to their end; peers may fail.

    `after_round` is called with the contest so far. Raises SideError if all of ours fail to start,
    or one of them fails later.
    """
    sides, failed = _started(makers)
    if not any(map(_is_ours, sides)):
        raise SideError("\n".join(error for name, error in failed.items() if _is_ours(name)))
    try:
        seconds = take_turns(
            sides,
            rounds,
            warmup,
            lambda seconds: after_round(Contest(seconds, {}, failed)),
            failed,
        )
    except SideError:
        for side in sides.values():
            side.kill()
        raise
    return Contest(seconds, {name: side.close() for name, side in sides.items()}, failed)


def hold_again(
    makers: Makers, failed: dict[str, str], rounds: int, warmup: int = 1
) -> dict[str, Contest]:
    """Another contest for each side that failed, of ours and that side alone.

    Sides that do not fit into a GPU's memory together may fit into it one by one. Compare a side
    with ours of its contest. Those that fail again remain in `failed`, with their new error.
    """
    contests = {}
    for name in list(failed):
        alone = {n: made for n, made in makers.items() if _is_ours(n) or n == name}
        try:
            contest = hold(alone, rounds, warmup)
        except SideError as error:
            failed[name] = str(error)
            continue
        if name in contest.failed:
            failed[name] = contest.failed[name]
        else:
            contests[name] = contest
            del failed[name]
    return contests


def last_lines(failed: Mapping[str, str]) -> dict[str, str]:
    """The last line of each error, for a result; the traceback above it is for a terminal."""
    return {name: error.rstrip().rpartition("\n")[2] for name, error in failed.items()}


def _is_ours(name: str) -> bool:
    return name.startswith("ours")


def _started(makers: Makers) -> tuple[dict[str, Side], dict[str, str]]:
    """Start the sides; returns them, and the errors of those that failed.

    Ours start first, so that no other takes the device's memory before. The peers start together,
    because their compilers take long and use only a few cores each.
    """

    def start(made: tuple[Any, ...]) -> Side | str:
        try:
            return Side(*made)
        except SideError as error:
            return str(error)

    ours = {name: start(made) for name, made in makers.items() if _is_ours(name)}
    peers = {name: made for name, made in makers.items() if name not in ours}
    with ThreadPoolExecutor(max(1, len(peers))) as pool:
        found = {**ours, **dict(zip(peers, pool.map(start, peers.values()), strict=True))}
    return (
        {name: side for name, side in found.items() if isinstance(side, Side)},
        {name: error for name, error in found.items() if isinstance(error, str)},
    )


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """The median and the quartiles, over rounds, of their time divided by ours."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}
