"""What a rank other than the first writes: to a log of its own, and not to the terminal."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from npformer import UserError
from train.cli import rank_output
from train.ranks.ranks import ALONE, Ranks


class Second(Ranks):
    """The second rank of two."""

    rank, size = 1, 2


@contextmanager
def output_of(ranks: Ranks) -> Iterator[rank_output.RankOutput]:
    """With streams that write to the descriptors, as those of a process do, and pytest's do not."""
    with (
        open(1, "w", buffering=1, closefd=False) as stdout,
        open(2, "w", buffering=1, closefd=False) as stderr,
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        rank_output.output_of(ranks) as output,
    ):
        yield output


def test_all_that_a_rank_writes_goes_to_its_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "run" / "ranks" / "1.log"
    log.parent.mkdir(parents=True)
    log.write_text("of the job before\n")
    ranks = Second()
    print("before")
    with output_of(ranks) as output:
        print("held")
        os.write(2, b"from a library in C\n")
        output.log_to(log)
        print("said", file=sys.stderr)
        print("to standard output")
        os.write(1, b"from another\n")
        logging.getLogger("npformer").warning("a warning")
        os.write(ranks.terminal, b"for the user\n")
    print("after")
    assert capfd.readouterr() == ("before\nafter\n", "for the user\n")
    lines = log.read_text().splitlines()
    assert lines.pop(0) == "of the job before"
    assert lines.pop().endswith(" a warning")
    assert sorted(lines) == sorted(
        ["held", "from a library in C", "said", "to standard output", "from another"]
    )


def test_the_first_rank_and_a_process_alone_write_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with output_of(ALONE) as output:
        output.log_to(tmp_path / "ranks" / "0.log")
        print("said", file=sys.stderr)
    assert capfd.readouterr().err == "said\n"
    assert not list(tmp_path.iterdir())


def with_a_log(path: Path, error: Exception) -> None:
    """Raise an error where there is a log."""

    def fail() -> None:
        with output_of(Second()) as output:
            output.log_to(path)
            raise error

    with pytest.raises(type(error)):
        fail()


def test_a_traceback_goes_to_the_log(tmp_path: Path) -> None:
    with_a_log(tmp_path / "1.log", ZeroDivisionError("by zero"))
    said = (tmp_path / "1.log").read_text()
    assert said.endswith("ZeroDivisionError: by zero\n")
    assert "Traceback (most recent call last)" in said


def test_an_error_of_the_user_is_a_line_in_the_log(tmp_path: Path) -> None:
    with_a_log(tmp_path / "1.log", UserError("the disk is full"))
    [line] = (tmp_path / "1.log").read_text().splitlines()
    assert line.endswith(" the disk is full")


@pytest.mark.parametrize(("error", "told"), [(UserError, ""), (ZeroDivisionError, "a hint\n")])
def test_without_a_log_the_terminal_is_told_what_came_before_a_bug(
    capfd: pytest.CaptureFixture[str], error: type[Exception], told: str
) -> None:
    def fail() -> None:
        with output_of(Second()):
            os.write(2, b"a hint\n")
            raise error

    with pytest.raises(error):
        fail()
    assert capfd.readouterr().err == told


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.log"
    path.mkdir()
    with (
        output_of(Second()) as output,
        pytest.raises(UserError, match=r"cannot write .*1\.log: Is a directory"),
    ):
        output.log_to(path)
