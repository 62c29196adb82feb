"""metrics.jsonl: the log of a run; invalid entries are refused with one line."""

import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from npformer.errors import UserError
from train.cli.curves import plot_curves
from train.runs.metrics import read_metrics
from train.runs.run import Run

LOGGED: dict[str, Any] = {"step": 5, "loss": 2.5, "perplexity": 12, "rate": 1e-3, "seconds": 1.5}
VALIDATED: dict[str, Any] = {"step": 6, "valid_loss": 2.5, "valid_perplexity": 9.5, "seconds": 2}


def test_logged_entries_are_read_except_a_last_line_that_is_cut_short(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert read_metrics(tmp_path) == []
    for entry in (LOGGED, VALIDATED, {**VALIDATED, "bleu": 3.5, "signature": "nrefs:1"}):
        run.log(entry)
    with open(run.metrics, "a") as file:
        file.write('{"step": 7, "lo')
    entries = read_metrics(tmp_path)
    assert entries[:2] == [LOGGED, VALIDATED]
    assert len(entries) == 3


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_that_are_not_finite_are_gaps_in_a_curve(tmp_path: Path, value: float) -> None:
    pytest.importorskip("matplotlib")
    run = Run(tmp_path / "run")
    run.directory.mkdir()
    for entry in (LOGGED, VALIDATED):
        run.log(
            {name: value if type(number) is float else number for name, number in entry.items()}
        )
    assert len(read_metrics(run.directory)) == 2
    plot_curves([run.directory], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"null", "it is not an object"),
        (b"[]", "it is not an object"),
        (b"{}", "it has no loss"),
        (b"3", "it is not an object"),
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b'{"step": 5, "loss": "\xff"}', "it is not JSON"),
        (b'{"a": ' * 100_000, "it is not JSON"),
        (b"9" * 5000, "it is not JSON"),
        (b'{"loss": 2.5, "perplexity": 2, "rate": 1, "seconds": 1}', "it has no step"),
        (b'{"step": 5, "valid_loss": 2, "seconds": 1}', "it has no valid_perplexity"),
        (b'{"step": "5", "loss": 2, "perplexity": 2, "rate": 1, "seconds": 1}', "step is not"),
        (b'{"step": -5, "loss": 2, "perplexity": 2, "rate": 1, "seconds": 1}', "step is not"),
        (
            b'{"step": true, "loss": 2, "perplexity": 2, "rate": 1, "seconds": 1}',
            "step is not",
        ),
        (
            b'{"step": 5, "loss": "2", "perplexity": 2, "rate": 1, "seconds": 1}',
            "loss is not",
        ),
        (
            b'{"step": 5, "loss": 2, "perplexity": null, "rate": 1, "seconds": 1}',
            "perplexity is not",
        ),
        (b'{"step": 5, "loss": 2, "perplexity": [], "rate": 1, "seconds": 1}', "perplexity "),
        (
            b'{"step": 5, "loss": 2, "perplexity": 1%s, "rate": 1, "seconds": 1}' % (b"0" * 400),
            "perplexity is too large",
        ),
    ],
)
def test_an_invalid_line_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    run = Run(tmp_path)
    run.log(LOGGED)
    with open(run.metrics, "ab") as file:
        file.write(line + b"\n")
    run.log(VALIDATED)
    with pytest.raises(UserError) as caught:
        read_metrics(tmp_path)
    assert f"{run.metrics}, line 2, is not an entry of the log: {problem}" in str(caught.value)


def test_metrics_that_are_not_a_file_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics.mkdir()
    with pytest.raises(UserError, match=f"cannot read {run.metrics}"):
        read_metrics(tmp_path)
    with pytest.raises(UserError, match=f"cannot write {run.metrics}"):
        run.log(LOGGED)


def _has_full_device() -> bool:
    return os.path.exists("/dev/full") and stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.skipif(not _has_full_device(), reason="needs /dev/full")
def test_a_full_disk_is_reported_with_the_name_of_the_metrics(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics.symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"cannot write {run.metrics}: No space left"):
        run.log(LOGGED)
