"""A run is written by a thread: in order, as it was at that moment, and with every error told."""

import logging
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from npformer import Transformer, TransformerConfig, UserError
from tests.train.runs import assert_same_run, refusal, settings, start
from train.adam import Adam
from train.corpora.corpus import Corpus
from train.moving_average import MovingAverage
from train.runs.progress import Position, Progress
from train.runs.run import Run
from train.runs.snapshot import Snapshot, published_copy
from train.runs.writer import RunWriter
from train.trainer import Trainer

PATIENCE = 60.0  # seconds, until a test gives up


def test_everything_is_written_in_order_and_by_the_end() -> None:
    written: list[int] = []
    with RunWriter() as writer:
        for i in range(50):
            writer.put(lambda i=i: written.append(i))
        writer.finish()
        assert written == [*range(50)]
        writer.put(lambda: written.append(50))
    assert written == [*range(51)]


def test_an_exception_leaves_nothing_unwritten() -> None:
    written, may_write = [], threading.Event()

    def write() -> None:
        may_write.wait(PATIENCE)
        written.append(1)

    with pytest.raises(ZeroDivisionError), RunWriter() as writer:  # noqa: PT012
        writer.put(write)
        may_write.set()
        raise ZeroDivisionError
    assert written == [1]


def test_signals_leave_nothing_unwritten() -> None:
    """So that the run stays locked, and what a user is told of its last state is true."""
    came, written = threading.Semaphore(0), []

    def stop(number: int, frame: FrameType | None) -> None:
        came.release()
        raise KeyboardInterrupt

    def write() -> None:
        for _ in range(3):
            time.sleep(0.05)  # until the signal before has been raised, and writes are waited for
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            assert came.acquire(timeout=PATIENCE)
        written.append(1)

    before = signal.signal(signal.SIGINT, stop)
    try:
        with pytest.raises(KeyboardInterrupt), RunWriter() as writer:
            writer.put(write)
        assert written == [1]
    finally:
        signal.signal(signal.SIGINT, before)


def fail() -> None:
    raise UserError("the disk is full")


def test_an_error_is_raised_by_the_next_write_and_nothing_is_written_after_it() -> None:
    written: list[int] = []
    with pytest.raises(UserError, match="full"), RunWriter() as writer:  # noqa: PT012
        for write in (fail, lambda: written.append(1)):
            writer.put(write)
        with pytest.raises(UserError, match="full"):
            writer.finish()
        with pytest.raises(UserError, match="full"):
            writer.put(lambda: written.append(2))
        with pytest.raises(UserError, match="full"):
            writer.make_room(7)
        writer.finish()
    assert written == []


def test_an_error_that_comes_at_the_end_is_raised() -> None:
    with pytest.raises(UserError, match="full"), RunWriter() as writer:
        writer.put(fail)


def test_an_error_that_another_one_hides_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), RunWriter() as writer:  # noqa: PT012
        writer.put(fail)
        raise ZeroDivisionError
    assert [(r.levelno, r.message, r.exc_info) for r in caplog.records] == [
        (logging.ERROR, "the disk is full", None)
    ]


def test_copies_of_one_step_wait_for_those_of_the_step_before() -> None:
    written, may_write = [], threading.Event()

    def write() -> None:
        may_write.wait(PATIENCE)
        written.append(1)

    with RunWriter() as writer:
        writer.make_room(1)
        writer.put(write)
        writer.make_room(1)
        assert written == []
        may_write.set()
        writer.make_room(2)
        assert written == [1]


def test_training_goes_on_while_a_state_is_written(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the state is of its own step, also where the best model waits for it."""
    chosen = settings(
        max_steps=9, checkpoint_every=3, validate_every=3, best_by="loss", ema=0.9, samples=1
    )
    start(chosen, corpus, tmp_path / "whole")
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "slow"))
    save, take, taken = Run.save, trainer.optimizer.step, threading.Event()

    def slow(run: Run, snapshot: Snapshot, *others: Any, **options: Any) -> None:
        if snapshot.step == 3:
            assert taken.wait(PATIENCE), "training waits for the state of step 3"
        save(run, snapshot, *others, **options)

    def taking(rate: float, scale: Any) -> None:
        take(rate, scale)
        if trainer.optimizer.steps == 5:
            taken.set()

    monkeypatch.setattr(Run, "save", slow)
    monkeypatch.setattr(trainer.optimizer, "step", taking)
    trainer.train()
    assert_same_run(tmp_path / "slow", tmp_path / "whole")


def test_an_error_of_a_slow_write_ends_training_and_the_run_resumes(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(max_steps=9, checkpoint_every=3)
    start(chosen, corpus, tmp_path / "whole")
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    save, failed_at = Run.save, []

    def failing(run: Run, snapshot: Snapshot, *others: Any, **options: Any) -> None:
        if snapshot.step == 6:
            failed_at.append(snapshot.step)
            raise OSError(28, "No space left on device", str(run.state))
        save(run, snapshot, *others, **options)

    monkeypatch.setattr(Run, "save", failing)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert failed_at == [6]
    assert trainer.run.saved_step() == 3
    monkeypatch.undo()
    assert Trainer.resume(chosen, corpus, Run(tmp_path / "run")).train().step == 9
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_state_that_is_not_finite_is_refused_though_training_has_gone_on(
    corpus: Corpus, tmp_path: Path
) -> None:
    chosen = settings(max_steps=9, checkpoint_every=3)
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    take = trainer.optimizer.step

    def taking(rate: float, scale: Any) -> None:
        take(rate, scale)
        if trainer.optimizer.steps == 6:
            trainer.optimizer.state()["first"][0] = np.nan

    trainer.optimizer.step = taking  # type: ignore[method-assign]
    assert "after step 6 adam.first holds numbers that are not finite" in refusal(trainer.train)
    assert trainer.run.saved_step() == 3


@pytest.mark.parametrize("backend", ["numpy", "strict"])
@pytest.mark.parametrize("ema", [False, True])
def test_a_snapshot_does_not_change_with_its_model(backend: str, ema: bool) -> None:
    config = TransformerConfig(vocab_size=13, layers=1, d_model=8, d_ff=6, heads=2)
    model = Transformer(config, seed=1).to(backend)
    optimizer: Any = Adam(model.buffer)
    if ema:
        optimizer = MovingAverage(optimizer, model.buffer, 0.9)
        optimizer.average[...] = 3.0
    progress = Progress(Position(step=2))
    before = {name: p.numpy().copy() for name, p in model.parameters().items()}
    snapshot, best = Snapshot(model, optimizer, progress), published_copy(model, optimizer)
    model.buffer.values[...] = 7.0
    for array in optimizer.state().values():
        array[...] = 8.0
    progress.position.step = 5
    assert (snapshot.step, snapshot.backend) == (2, backend)
    assert [*snapshot.parameters] == [*before]
    assert [*snapshot.optimizer] == ["adam.first", "adam.second", "adam.average"][: 2 + ema]
    for name, expected in before.items():
        published = np.full_like(expected, 3.0) if ema else expected
        np.testing.assert_array_equal(snapshot.parameters[name], expected)
        np.testing.assert_array_equal(snapshot.published[name], published)
        np.testing.assert_array_equal(best()[name], published)
    assert not snapshot.optimizer["adam.first"].any()
