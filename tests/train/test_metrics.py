"""metrics.jsonl: the log of a run; invalid entries are refused with one line."""

import math
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from npformer.errors import UserError
from train.curves import plot_curves
from train.metrics import read_metrics
from train.run import Run

LOGGED: dict[str, Any] = {"step": 5, "loss": 2.5, "perplexity": 12, "rate": 1e-3, "seconds": 1.5}
VALIDATED: dict[str, Any] = {"step": 6, "valid_loss": 2.5, "valid_perplexity": 9.5, "seconds": 2}


def test_what_was_logged_is_read_but_for_a_line_that_is_cut_short(tmp_path: Path) -> None:
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
def test_what_is_not_finite_is_a_gap_in_a_curve(tmp_path: Path, value: float) -> None:
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
        (b"null", "it is no object"),
        (b"[]", "it is no object"),
        (b"{}", "it has no loss"),
        (b"3", "it is no object"),
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b'{"step": 5, "loss": "\xff"}', "it is not JSON"),
        (b'{"a": ' * 100_000, "it is not JSON"),
        (b"9" * 5000, "it is not JSON"),
        (b'{"loss": 2.5, "perplexity": 2, "rate": 1, "seconds": 1}', "it has no step"),
        (b'{"step": 5, "valid_loss": 2, "seconds": 1}', "it has no valid_perplexity"),
        (b'{"step": "5", "loss": 2, "perplexity": 2, "rate": 1, "seconds": 1}', "step is no"),
        (b'{"step": -5, "loss": 2, "perplexity": 2, "rate": 1, "seconds": 1}', "step is no"),
        (
            b'{"step": true, "loss": 2, "perplexity": 2, "rate": 1, "seconds": 1}',
            "step is no",
        ),
        (
            b'{"step": 5, "loss": "2", "perplexity": 2, "rate": 1, "seconds": 1}',
            "loss is no",
        ),
        (
            b'{"step": 5, "loss": 2, "perplexity": null, "rate": 1, "seconds": 1}',
            "perplexity is no",
        ),
        (b'{"step": 5, "loss": 2, "perplexity": [], "rate": 1, "seconds": 1}', "perplexity "),
        (
            b'{"step": 5, "loss": 2, "perplexity": 1%s, "rate": 1, "seconds": 1}' % (b"0" * 400),
            "perplexity is too large",
        ),
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    run = Run(tmp_path)
    run.log(LOGGED)
    with open(run.metrics, "ab") as file:
        file.write(line + b"\n")
    run.log(VALIDATED)
    with pytest.raises(UserError) as caught:
        read_metrics(tmp_path)
    assert f"{run.metrics}, line 2, is no entry of a log: {problem}" in str(caught.value)


def test_metrics_that_are_no_file_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics.mkdir()
    with pytest.raises(UserError, match=f"cannot read {run.metrics}"):
        read_metrics(tmp_path)
    with pytest.raises(UserError, match=f"cannot write {run.metrics}"):
        run.log(LOGGED)


def _full_device_is_here() -> bool:
    return os.path.exists("/dev/full") and stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.skipif(not _full_device_is_here(), reason="there is no /dev/full here")
def test_metrics_that_no_space_is_left_for_are_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.metrics.symlink_to("/dev/full")
    with pytest.raises(UserError, match=f"cannot write {run.metrics}: No space left"):
        run.log(LOGGED)
