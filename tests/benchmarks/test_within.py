"""A command ends by its deadline, with all that it has started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import within

SLEEPER = """
import pathlib, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
try:
    time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path(sys.argv[2]).write_text("interrupted")
    if len(sys.argv) > 3:
        time.sleep(60)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("stubborn", [[], ["stubborn"]])
def test_a_command_that_takes_too_long_is_interrupted_and_nothing_of_it_is_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    stubborn: list[str],
) -> None:
    monkeypatch.setattr(within, "_GRACE", 1.0)
    child, said = tmp_path / "child", tmp_path / "said"
    command = [sys.executable, "-c", SLEEPER, str(child), str(said), *stubborn]
    assert within.run(time.time() + 2, command) == 1
    assert "not measured to its end, for the time is over: " in capfd.readouterr().err
    assert said.read_text() == "interrupted"
    time.sleep(0.2)
    assert not is_running(int(child.read_text()))


@pytest.mark.parametrize("deadline", ["0", "99999999999"])
@pytest.mark.parametrize("status", [0, 3])
def test_in_time_a_commands_status_is_its_own(deadline: str, status: int) -> None:
    command = [sys.executable, "-c", f"raise SystemExit({status})"]
    words = [sys.executable, "-m", "benchmarks.within", deadline, *command]
    assert subprocess.run(words, check=False).returncode == status


def test_what_has_no_time_left_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert within.run(time.time() - 1, ["make", "something"]) == 1
    assert "not measured, for the time is over: make something" in capfd.readouterr().err
