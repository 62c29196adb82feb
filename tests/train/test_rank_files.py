"""What ranks report of themselves in a run's directory, and what status makes of it."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from npformer import UserError
from tests.train.runs import refusal
from tests.train.thread_ranks import in_threads
from train.cli.rank_status import describe_ranks
from train.ranks.ranks import ALONE, Ranks
from train.ranks.work import Work
from train.runs import rank_files
from train.runs.rank_files import RankFiles, RankReport

NOW = 1_700_000_000.0
REPORT = RankReport(
    rank=0,
    size=1,
    host="node7",
    process=12,
    processes="pid:[1]",
    device="GPU 0 (H100)",
    doing="training",
    waiting_seconds=0.0,
    step=1200,
    time=NOW - 4,
    step_seconds=0.25,
    waiting=0.031,
    tokens_per_second=1000.0,
)


def reports(*changes: dict[str, Any]) -> list[RankReport]:
    return [
        dataclasses.replace(REPORT, rank=rank, size=len(changes), **change)
        for rank, change in enumerate(changes)
    ]


def test_status_says_what_each_rank_does() -> None:
    summary, lines = describe_ranks(
        reports(
            {},
            {"doing": "validating", "step_seconds": None, "waiting": None},
            {"waiting_seconds": 12.4},
            {"time": NOW - 100},
            {"doing": "failed"},
        ),
        NOW,
        is_training=True,
    )
    assert summary == "5"
    where = "process 12 on node7, on GPU 0 (H100)"
    pace = "4 steps a second, 3% waiting"
    assert lines == [
        f"rank 0   training after step 1,200, {pace}; {where}; said so 0:00:04 ago",
        f"rank 1   validating after step 1,200; {where}; said so 0:00:04 ago",
        "rank 2   training after step 1,200, waiting for the others for 0:00:12, "
        f"{pace}; {where}; said so 0:00:04 ago",
        "rank 3   silent for 0:01:40, perhaps dead; before, it was training after step 1,200; "
        f"{where}",
        f"rank 4   failed after step 1,200, 0:00:04 ago; {where}",
    ]


def test_a_rank_that_has_reported_nothing_is_told() -> None:
    [first, _, last] = reports({}, {}, {})
    _, lines = describe_ranks([first, last], NOW, is_training=True)
    assert lines[1] == "rank 1   has said nothing yet, or writes to a disk that is not seen here"


def test_a_rank_whose_process_is_gone_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    here = RankReport.of(Work(), "the CPU")
    gone = dataclasses.replace(here, process=process.pid)
    assert not gone.is_gone()  # it has ended, but nobody has asked for its status
    process.wait()
    assert gone.is_gone()
    assert not here.is_gone()
    # Process ids of other hosts, and of other containers here, say nothing.
    assert not dataclasses.replace(gone, host="another").is_gone()
    assert not dataclasses.replace(gone, processes="pid:[1]").is_gone()
    _, [line] = describe_ranks([gone], gone.time + 3, is_training=True)
    assert line.startswith(
        "rank 0   dead, its process is gone; 0:00:03 ago it was training after step 0; process "
    )


def test_of_a_job_that_has_ended_status_says_how() -> None:
    ended = reports({"doing": "ended"}, {"doing": "ended", "time": NOW - 2})
    assert describe_ranks(ended, NOW, is_training=False) == (
        "none at work: 2 ended 0:00:02 ago",
        [],
    )
    killed = reports({"doing": "failed"}, {"doing": "saving"})
    assert describe_ranks(killed, NOW, is_training=False) == (
        "none at work: 2 ranks stopped 0:00:04 ago",
        [
            "rank 0   failed after step 1,200; process 12 on node7",
            "rank 1   killed; 0:00:04 ago it was saving after step 1,200; process 12 on node7",
        ],
    )


def test_each_rank_reports_while_it_works_and_how_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_files, "SECONDS_BETWEEN", 0.01)
    files = RankFiles(tmp_path / "ranks")

    def work(ranks: Ranks) -> None:
        own = Work(ranks)
        with files.reporting(own, "the CPU"), own.other("validating"):
            own.step = 7
            while [(r.rank, r.doing, r.step) for r in files.read()] != [
                (0, "validating", 7),
                (1, "validating", 7),
            ]:
                time.sleep(0.01)
            ranks.all(None)
            if ranks.rank == 1:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_threads(2, work)
    found = files.read()
    assert [(r.doing, r.size, r.process) for r in found] == [
        ("ended", 2, os.getpid()),
        ("failed", 2, os.getpid()),
    ]


def test_a_later_job_drops_the_reports_of_the_one_before_and_keeps_logs(tmp_path: Path) -> None:
    files = RankFiles(tmp_path / "ranks")

    def job(ranks: Ranks) -> None:
        with files.reporting(Work(ranks), "the CPU"):
            pass

    in_threads(3, job)
    files.log(2).write_text("a log")
    (files.directory / ".1.json.0123abcd.tmp").write_text("{")  # left by a kill
    (files.directory / "notes.json").write_text("of the user")
    in_threads(2, job)
    names = sorted(path.name for path in files.directory.iterdir())
    assert names == ["0.json", "1.json", "2.log", "notes.json"]
    with files.reporting(Work(), "the CPU"):
        assert files.read() == []
    assert files.log(2).is_file()


def test_a_process_alone_leaves_no_folder(tmp_path: Path) -> None:
    files = RankFiles(tmp_path / "ranks")
    with files.reporting(Work(ALONE), "the CPU"):
        pass
    assert not files.directory.exists()


def test_a_full_disk_does_not_end_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RankFiles(tmp_path / "ranks")

    def job(ranks: Ranks) -> None:
        with files.reporting(Work(ranks), "the CPU"):
            pass

    def full(path: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    in_threads(2, job)
    assert files.read() == []


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    files = RankFiles(tmp_path)
    said = dataclasses.asdict(REPORT)
    path = files.report(0)
    for wrong in (
        {k: v for k, v in said.items() if k != "step"},
        {**said, "step": "12"},
        {**said, "step": True},
        {**said, "size": 0},
        {**said, "rank": -1},
        {**said, "host": "a\x1b[2J"},
        {**said, "waiting": "much"},
        [],
    ):
        path.write_text(json.dumps(wrong))
        assert refusal(files.read) == f"{path} is not what a rank says of itself; delete it"
    path.write_text("{")
    with pytest.raises(UserError):
        files.read()
    path.write_text(json.dumps({**said, "waiting": None, "waiting_seconds": 3}))
    assert files.read()[0].step == 1200
