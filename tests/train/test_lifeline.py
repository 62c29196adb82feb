"""Ranks that end together, whatever one of them dies of. They are forked; there is no MPI."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from train.ranks import lifeline
from train.ranks.lifeline import Lifeline
from train.ranks.ranks import Ending, Ranks

_Value = TypeVar("_Value")

GONE = "npformer: error: rank {} on host has gone without a word, so all ranks end"


class ForkedRanks(Ranks):
    """Forked processes. What they say to each other lies in files."""

    def __init__(self, folder: Path, rank: int, size: int) -> None:
        self._folder, self.rank, self.size, self._said = folder, rank, size, 0

    def name(self, rank: int) -> str:
        return f"rank {rank} on host"

    def all(self, value: _Value) -> list[_Value]:
        self._said += 1
        paths = [self._folder / f"{self._said}-{rank}" for rank in range(self.size)]
        waiting = paths[self.rank].with_suffix(".waiting")
        waiting.write_bytes(pickle.dumps(value))
        waiting.rename(paths[self.rank])
        until = time.monotonic() + 20
        while not all(path.exists() for path in paths):
            assert time.monotonic() < until
            time.sleep(0.001)
        return [pickle.loads(path.read_bytes()) for path in paths]


Role = Callable[[Lifeline, int], object]


def ended(
    folder: Path,
    role: Role,
    size: int = 3,
    aborts: bool = False,
    hosts: Sequence[str] = ("host",) * 5,
) -> tuple[list[int], str]:
    """The statuses of forked ranks that play a role, and what they have said in the terminal.

    A status is negative for a signal. aborts: whether MPI_Abort ends the rank that calls it, or
    leaves that to a launcher, which is not there
    """
    folder.mkdir()
    terminal = folder / "terminal"
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            status = 70
            try:
                with terminal.open("ab") as file:
                    os.dup2(file.fileno(), 2)
                ranks = ForkedRanks(folder, rank, size)
                abort = os._exit if aborts else lambda status: None
                role(Lifeline(ranks, list(hosts[:size]), abort), rank)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    began = time.monotonic()
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert time.monotonic() - began < 20
    return statuses, terminal.read_text()


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "_TELL", 0.02)
    monkeypatch.setattr(lifeline, "_ABORT", 0.05)


def _wait_for_ever(_: Lifeline, __: int) -> None:
    time.sleep(60)


def _as_rank(which: int, does: Role, others: Role = _wait_for_ever) -> Role:
    return lambda line, rank: (does if rank == which else others)(line, rank)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_ranks_end_once_another_was_killed(tmp_path: Path, which: int) -> None:
    statuses, said = ended(
        tmp_path / "ranks", _as_rank(which, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    )
    assert statuses.pop(which) == -signal.SIGKILL
    assert statuses == [1, 1]
    assert said.startswith(GONE.format(which))
    assert said.count("\n") == 1


def test_a_rank_that_leaves_without_goodbye_has_gone(tmp_path: Path) -> None:
    statuses, said = ended(tmp_path / "ranks", _as_rank(1, lambda *_: os._exit(0)))
    assert statuses == [1, 0, 1]
    assert said.startswith(GONE.format(1))


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("aborts", [False, True])
def test_the_first_rank_tells_how_all_end(tmp_path: Path, which: int, aborts: bool) -> None:
    ending = Ending(130, "Traceback:\n  an error\nnpformer: rank 2 has failed")
    statuses, said = ended(
        tmp_path / "ranks", _as_rank(which, lambda line, _: line.end_all(ending)), aborts=aborts
    )
    assert statuses == [130] * 3
    assert said == f"{ending.text}\n"


def test_only_one_of_several_errors_is_told(tmp_path: Path) -> None:
    def fail(line: Lifeline, rank: int) -> None:
        line.end_all(Ending(2, f"rank {rank} fails"))

    statuses, said = ended(tmp_path / "ranks", fail, size=5)
    assert statuses == [2] * 5
    assert said in [f"rank {rank} fails\n" for rank in range(5)]


def test_ranks_that_end_as_they_should_end_nobody(tmp_path: Path) -> None:
    def leave(line: Lifeline, rank: int) -> None:
        time.sleep(0.1 * rank)
        line.say_goodbye()

    for number, role in enumerate((leave, lambda line, rank: leave(line, 2 - rank))):
        assert ended(tmp_path / f"{number}", role) == ([0, 0, 0], "")


def test_what_a_rank_says_right_after_it_has_connected_is_heard(tmp_path: Path) -> None:
    def fail(line: Lifeline, _: int) -> None:
        line.end_all(Ending(2, "rank 1 fails"))

    def late(*given: Any) -> None:
        time.sleep(0.1)
        greet(*given)

    greet = Lifeline._greet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lifeline, "_greet", late)
        statuses, said = ended(tmp_path / "ranks", _as_rank(1, fail))
    assert statuses == [2, 2, 2]
    assert said == "rank 1 fails\n"


def test_a_stranger_is_not_taken_for_a_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = lifeline._listen

    def listen_to_a_stranger(ranks: int) -> socket.socket:
        server = listen(ranks)
        for words in (b"let-me-in 1\n", b"\xff\xfe \xff\n", b""):
            with socket.create_connection(("localhost", server.getsockname()[1]), 5) as stranger:
                stranger.sendall(words)
        return server

    monkeypatch.setattr(lifeline, "_listen", listen_to_a_stranger)
    statuses, said = ended(tmp_path / "ranks", _as_rank(1, lambda *_: os._exit(0)))
    assert statuses == [1, 0, 1]
    assert said.startswith(GONE.format(1))


def test_a_rank_that_cannot_connect_is_named_and_ends_by_itself(tmp_path: Path) -> None:
    hosts = ["no-host.invalid", "no-host.invalid", "host"]

    def play(line: Lifeline, rank: int) -> None:
        if rank == 2:
            line.end_all(Ending(3, "rank 2 fails"))
        line.say_goodbye()
        assert list(line.unconnected) == [2]

    statuses, said = ended(tmp_path / "ranks", play, hosts=hosts)
    assert statuses == [0, 0, 3]
    assert said == "rank 2 fails\n"
