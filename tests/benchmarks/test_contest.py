"""Sides that fail in a contest are measured again, alone with ours; then errors are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import contest, gpu_decoding, gpu_training
from benchmarks.contest import SideError, hold, hold_again, last_lines
from tests.benchmarks.fake_sides import dead, large_at_its_first_turn, large_at_its_start, missing
from tests.benchmarks.fake_sides import side as fake

NO_MEMORY = "MemoryError: out of memory: another side has reserved it"


@pytest.fixture(autouse=True)
def _no_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no other side's thread to wait for."""
    monkeypatch.setattr(contest, "_CALM", 0)


def test_sides_that_do_not_fit_into_memory_together_are_compared_one_by_one(tmp_path: Path) -> None:
    """The memory goes to the first that asks, at its start or at its first turn."""
    memory = tmp_path / "memory"
    makers = {
        "ours": (fake, 1.0),
        "first": (large_at_its_start, 2.0, memory),
        "second": (large_at_its_first_turn, 3.0, memory),
        "third": (large_at_its_first_turn, 4.0, memory),
    }
    together = hold(makers, rounds=3)
    assert together.seconds == {"ours": [1.0] * 3, "first": [2.0] * 3}
    assert {name: used["peak_bytes"] for name, used in together.used.items()} == {
        "ours": 1000,
        "first": 2000,
    }
    assert last_lines(together.failed) == {"second": NO_MEMORY, "third": NO_MEMORY}
    assert all(error.startswith("Traceback") for error in together.failed.values())

    failed = dict(together.failed)
    apart = hold_again(makers, failed, rounds=3)
    assert failed == {}
    assert {name: held.seconds for name, held in apart.items()} == {
        "second": {"ours": [1.0] * 3, "second": [3.0] * 3},
        "third": {"ours": [1.0] * 3, "third": [4.0] * 3},
    }


def test_a_side_that_fails_alone_is_named_with_the_last_line_of_its_error() -> None:
    makers = {
        "ours": (fake, 1.0),
        "missing": (missing,),
        "dead": (dead,),
        "tired": (fake, 1.0, 2),
    }
    held = hold(makers, rounds=3)
    failed = held.failed
    assert list(held.seconds) == ["ours"]
    assert hold_again(makers, failed, rounds=3) == {}
    assert last_lines(failed) == {
        "missing": "ModuleNotFoundError: No module named 'a peer'",
        "dead": "the process ended without a result or an error",
        "tired": "RuntimeError: failed at turn 2",
    }


def test_a_contest_fails_if_our_side_fails(tmp_path: Path) -> None:
    with pytest.raises(SideError, match="No module named 'a peer'"):
        hold({"ours": (missing,), "peer": (fake, 1.0)}, rounds=1)
    with pytest.raises(SideError, match="failed at turn 1"):
        hold({"ours": (fake, 1.0, 1), "peer": (fake, 1.0)}, rounds=1)


def test_the_other_contests_count_if_our_side_lacks_memory_in_one(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    makers = {"ours": (large_at_its_first_turn, 1.0, memory), "peer": (missing,)}
    greedy = {**makers, "peer": (large_at_its_start, 2.0, memory)}
    failed = hold(makers, rounds=1).failed
    assert hold_again(greedy, failed, rounds=1) == {}
    assert last_lines(failed) == {"peer": NO_MEMORY}


def test_a_training_step_reports_the_ratios_of_both_contests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    memory, out = tmp_path / "memory", tmp_path / "result.json"
    makers = {
        "ours": (fake, 1.0),
        "small": (fake, 2.0),
        "large": (large_at_its_start, 3.0, memory),
        "larger": (large_at_its_first_turn, 4.0, memory),
        "missing": (missing,),
    }
    work = gpu_training.Work(steps=10, target=1000, both=2000)
    result = gpu_training.contested(makers, 2, {"config": "toy"}, work, out)
    assert result["config"] == "toy"
    assert result["speedup"] == {"small": 2.0, "large": 3.0, "larger": 4.0}
    assert result["speedup_quartiles"]["larger"] == [4.0, 4.0]
    assert {name: peer["ms"] for name, peer in result["peers"].items()} == {
        "small": 200.0,
        "large": 300.0,
        "larger": 400.0,
    }
    assert {name: peer["peak_bytes"] for name, peer in result["peers"].items()} == {
        "small": 2000,
        "large": 3000,
        "larger": 4000,
    }
    assert result["ours"]["ms"] == result["apart"]["larger"]["ms"] == 100.0
    assert list(result["apart"]) == ["larger"]
    assert result["failed"] == {"missing": "ModuleNotFoundError: No module named 'a peer'"}
    assert "Traceback" in capsys.readouterr().err
    kept = json.loads(out.read_text())  # before the others had their contests
    assert kept["speedup"] == {"small": 2.0, "large": 3.0}
    assert kept["failed"]["larger"] == NO_MEMORY


def test_decoding_reports_the_contest_in_which_the_peer_is_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_decoding, "newstest_sources", lambda: [[1, 2, 3]])
    memory = tmp_path / "memory"
    makers: dict[str, Any] = {
        "ours-1": (fake, 1.0),
        "ours-2": (fake, 0.5),
        "torch-1": (large_at_its_start, 3.0, memory),
        "torch-2": (large_at_its_first_turn, 2.0, memory),
        "torch-3": (large_at_its_first_turn, 4.0, memory),
        "ctranslate2-1": (large_at_its_first_turn, 5.0, memory),
    }
    result = gpu_decoding.contested(makers, 2, {})
    assert result["speedup"] == {"torch": 4.0, "ctranslate2": 10.0}
    assert result["speedup_quartiles"]["ctranslate2"] == [10.0, 10.0]
    assert {name: peer["ms"] for name, peer in result["peers"].items()} == {
        "torch": 2000.0,
        "ctranslate2": 5000.0,
    }
    assert result["ours"]["ms"] == 500.0
    assert set(result["all"]) == set(makers)
    assert result["failed"] == {}
