"""Commands under mpiexec: one sentence from one rank, one exit status, and no rank that waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.integration.command_line import npformer
from tests.mpi import MPIEXEC, ONE_THREAD, needs_mpi
from tests.train import hosts
from tests.train.rank_commands import GENTLY, training
from tests.train.runs import assert_same_run
from tests.train.small_corpus import make_corpus
from train.runs.metrics import read_metrics

SECONDS = 60  # much more than any of it takes

pytestmark = [pytest.mark.integration, needs_mpi]


def started(
    count: int, *words: object, options: Sequence[object] = (), within: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """tests/train/rank_commands.py, started `count` times."""
    return subprocess.Popen(
        [
            *within,
            *map(str, [MPIEXEC, *options, "-n", count, sys.executable]),
            *map(str, ["-m", "tests.train.rank_commands", *words]),
        ],
        env=os.environ | ONE_THREAD,
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and standard error of a job."""
    try:
        _, stderr = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    return process.returncode, stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_corpus(folder)
    return folder


Said = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def said(folder: Path) -> Said:
    """Exit status of both ranks, and what the first of them has said, in each scenario."""
    status, stderr = ended(started(2, folder))
    assert status == 0, stderr
    first, second = (json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert {k: status for k, (status, _) in first.items()} == {
        k: status for k, (status, _) in second.items()
    }
    for name, (status, words) in second.items():
        assert not status or "npformer" not in words, name
    return {name: (status, words) for name, (status, words) in first.items()}


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        ("unknown setting", "unrecognized arguments: --max_stepps 1"),
        ("wrong value", "batch_tokens must be at least 1; it is -1"),
        ("no corpus", "nowhere holds no prepared corpus"),
        ("no corpus for one", "nowhere holds no prepared corpus"),
        ("other setting", "has batch_tokens 200, and rank 0 on "),
        ("other Python", "has Python 3.99.0, and rank 0 on "),
        ("status", "status does not share its work, and is started 2 times here"),
        ("no beam", "beam must be 1 to 1,000, got 0"),
        ("own text", "valid.0 is what is evaluated; give another --output"),
        ("other command", "has the command translate, and rank 0 on "),
        ("other beam", "has beam 3, and rank 0 on "),
        ("other model", "has the model "),
        ("own directory", "does not find"),
        ("again", "exists and is not empty; give --resume"),
        ("full disk", "No space left on device; the steps since step 0 are lost: once it can be "),
    ],
)
def test_a_mistake_is_told_by_one_rank(said: Said, scenario: str, words: str) -> None:
    status, stderr = said[scenario]
    assert status == 2
    last = stderr.splitlines()[-1]
    assert last.startswith("npformer: error: ")
    assert words in last
    assert stderr.count("npformer: error: ") == 1
    of_one = scenario in ("no corpus for one", "own directory") or scenario.startswith("other ")
    assert last.startswith("npformer: error: rank 1 on ") == of_one


def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on_with_the_same_bits(
    said: Said, folder: Path
) -> None:
    assert said["train"][0] == said["resume"][0] == 0
    assert said["train"][1].splitlines()[-1] == "done at step 9"
    status, stderr = said["signal"]
    assert status == 128 + signal.SIGTERM
    assert stderr.splitlines()[-1] == "stopped at step 3; continue with npformer train --resume"
    assert_same_run(folder / "halves", folder / "whole")


@pytest.mark.parametrize(
    ("size", "fault", "status", "words"),
    [
        # It leaves in the middle, and the launcher does not mind.
        (3, "left", 1, "has gone without a word, so all ranks end"),
        (2, "memory", 2, "out of memory at step 5 (cannot allocate 8 GB); lower batch_tokens"),
        (2, "bug", 1, "has failed, so all ranks end"),
    ],
)
def test_what_happens_to_one_rank_ends_all(
    folder: Path, size: int, fault: str, status: int, words: str
) -> None:
    process = started(size, folder, fault, size - 1, options=["-disable-auto-cleanup"])
    done = ended(process)
    assert done[0] == status, done[1]
    told = [line for line in done[1].splitlines() if line.startswith("npformer: ")]
    assert len(told) == 1, done[1]
    assert f"rank {size - 1} on " in told[0]
    assert words in told[0]
    assert ("ValueError: a bug" in done[1]) == (fault == "bug")


def test_ctrl_c_in_the_terminal_saves_the_run(folder: Path) -> None:
    process = started(2, folder, "none", 0)
    metrics = folder / "none" / "metrics.jsonl"
    until = time.monotonic() + SECONDS
    while not (metrics.is_file() and metrics.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    status, stderr = ended(process)
    assert status == 128 + signal.SIGINT, stderr
    assert stderr.count("stopping after this step; a second signal stops at once") == 1
    assert stderr.count("; continue with npformer train --resume") == 1


def test_hosts_train_as_one_does(folder: Path, tmp_path: Path) -> None:
    if why := hosts.missing():
        pytest.skip(f"several hosts on one machine: {why}")
    with hosts.two_hosts(tmp_path) as two:
        process = started(
            4,
            folder,
            two.hidden,
            options=[
                *("-hosts", ",".join(two.addresses), "-ppn", 2, "-iface", "eth0"),
                *("-launcher", "ssh", "-launcher-exec", two.remote_shell),
            ],
            within=two.on_first,
        )
        status, stderr = ended(process)
    assert status == 0, stderr
    refused, *_, last = stderr.splitlines()
    assert refused.startswith(f"npformer: error: rank 2 on {two.addresses[1]} does not find")
    assert last == "done at step 9"
    assert npformer(*training(folder, "alone", *GENTLY)).status == 0
    losses = [
        [entry.get("loss", entry.get("valid_loss")) for entry in read_metrics(folder / name)]
        for name in ("hosts", "alone")
    ]
    assert len(losses[0]) == 9 + 2
    np.testing.assert_allclose(*losses, rtol=1e-5)
