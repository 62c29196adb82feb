"""Only one process trains in a directory, and a dead one does not prevent others."""

import errno
import fcntl
import multiprocessing
import os
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from npformer import UserError
from npformer.errors import UnwritableError
from tests.train.runs import SETTINGS, refusal, settings, start
from train.corpora.corpus import Corpus
from train.runs.lock import RunLock, training_process
from train.runs.run import Run
from train.trainer import Trainer


def lock_in(folder: Path) -> RunLock:
    (folder / "training").mkdir(exist_ok=True)
    return RunLock(folder / "training" / "lock")


def hold(folder: Path, held: Any, end: Any) -> None:
    lock = lock_in(folder)
    lock.acquire()
    held.set()
    end.wait(60)


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    held, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path, held, end))
    process.start()
    assert held.wait(60)
    message = refusal(lock_in(tmp_path).acquire)
    assert f"process {process.pid} on {socket.gethostname()} is training in {tmp_path}" in message
    process.kill()
    process.join()
    lock_in(tmp_path).acquire()


def test_a_lock_is_held_once_and_can_be_released(tmp_path: Path) -> None:
    lock = lock_in(tmp_path)
    lock.acquire()
    lock.acquire()
    assert lock.path.read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    lock.release()
    assert lock.path.read_text() == ""
    lock_in(tmp_path).acquire()


def test_a_damaged_lock_file_is_reported_as_another_process(tmp_path: Path) -> None:
    lock = lock_in(tmp_path)
    lock.acquire()
    lock.path.write_bytes(b"\xff\x1b[2J no number")
    assert refusal(lock_in(tmp_path).acquire).startswith("another process is training in ")


def test_a_file_system_without_locks_gets_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    lock = lock_in(tmp_path)
    with pytest.warns(UserWarning, match="cannot be locked .No locks available") as told:
        lock.acquire()
    lock.acquire()
    assert len(told) == 1


def test_inspecting_a_lock_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking takes the lock for a moment."""
    tries: list[int] = []

    def held_at_first(descriptor: int) -> None:
        tries.append(descriptor)
        if len(tries) < 3:
            raise BlockingIOError

    monkeypatch.setattr("train.runs.lock.lock_or_raise", held_at_first)
    lock_in(tmp_path).acquire()
    assert len(tries) == 3


def test_on_windows_a_byte_after_the_contents_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int]] = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        at = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        if at in taken:
            raise OSError(errno.EACCES, "Permission denied")
        taken.append(at)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    windows = types.SimpleNamespace(locking=locking, LK_NBLCK=2)
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    first = lock_in(tmp_path)
    first.acquire()
    assert taken[0][1] > 1000
    with pytest.raises(UserError, match=f"process {os.getpid()} on "):
        lock_in(tmp_path).acquire()


@pytest.mark.parametrize("begin", [Trainer.start, Trainer.resume])
def test_a_run_in_progress_is_neither_started_nor_resumed(
    corpus: Corpus, tmp_path: Path, begin: Any
) -> None:
    trainer = Trainer.start(SETTINGS, corpus, Run(tmp_path / "run"))
    before = {path: path.read_bytes() for path in trainer.run.directory.rglob("*.*")}
    message = refusal(lambda: begin(SETTINGS, corpus, Run(tmp_path / "run")))
    assert f"process {os.getpid()} on " in message
    assert "is training in" in message
    assert {path: path.read_bytes() for path in trainer.run.directory.rglob("*.*")} == before
    trainer.train()
    assert Trainer.resume(SETTINGS, corpus, Run(tmp_path / "run")).position == trainer.position


def test_a_run_that_fails_can_be_resumed_by_the_same_process(
    corpus: Corpus, tmp_path: Path
) -> None:
    trainer = Trainer.start(SETTINGS, corpus, Run(tmp_path / "run"))

    def fail(entry: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trainer.train(fail)
    refused = settings(seed=4)
    assert "seed is 3" in refusal(lambda: Trainer.resume(refused, corpus, Run(tmp_path / "run")))
    Trainer.resume(SETTINGS, corpus, Run(tmp_path / "run")).train()


@pytest.mark.parametrize("replaced", [True, False])
@pytest.mark.parametrize("changes", [{"log_every": 1}, {"validate_every": 3}, {}])
def test_a_run_that_is_moved_writes_nothing_to_another_in_its_place(
    replaced: bool, changes: dict[str, int], corpus: Corpus, tmp_path: Path
) -> None:
    out, moved = tmp_path / "run", tmp_path / "moved"
    chosen = settings(**{"log_every": 2, "validate_every": 9, "samples": 1, **changes})
    trainer = Trainer.start(chosen, corpus, Run(out))

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    found: list[dict[Path, bytes]] = []

    def move(entry: object) -> None:
        if found:
            return
        trainer._writer.finish()  # what is being written may arrive in either place
        os.rename(out, moved)
        if replaced:
            Trainer.start(chosen, corpus, Run(out)).run.unlock()
        found.append(contents())

    message = refusal(lambda: trainer.train(move))
    assert f"{out} was moved, removed or replaced while the run was going on" in message
    assert found == [contents()]
    Trainer.resume(chosen, corpus, Run(moved)).train()


def test_a_run_whose_lock_file_is_deleted_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    trainer = Trainer.start(settings(max_steps=5), corpus, Run(tmp_path / "run"))
    (tmp_path / "run" / "training" / "lock").unlink()
    assert trainer.train().step == 5


def test_who_trains_is_told_to_those_who_may_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, opened = lock_in(tmp_path), os.open
    lock.acquire()

    def open_for_reading(path: Any, flags: int, *more: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", open_for_reading)
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    assert training_process(lock.path) == f"process {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize("replaced", [True, False])
def test_a_run_that_is_moved_while_it_is_written_to_says_so(
    replaced: bool, corpus: Corpus, tmp_path: Path
) -> None:
    """And not that its state cannot be read, or which step another run in its place has saved."""
    run = Trainer.start(SETTINGS, corpus, Run(tmp_path / "run")).run
    with run.locked():
        os.rename(run.directory, tmp_path / "moved")
        if replaced:
            start(settings(max_steps=2), corpus, tmp_path / "run")

        def write() -> None:
            with run.saying_what_is_kept():
                raise UnwritableError("cannot write a file")

        assert "was moved, removed or replaced while the run was going on" in refusal(write)
