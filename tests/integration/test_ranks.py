"""Commands that two processes share: their output, their logs, and their status."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.command_line import npformer, run
from tests.mpi import needs_mpi, run_on_ranks
from train.cli.commands import translating

pytestmark = [pytest.mark.integration, needs_mpi]


@pytest.fixture(scope="module")
def at_work(
    folder: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """What two ranks have made, and what the terminal has shown."""
    out = tmp_path_factory.mktemp("ranks")
    stdout, stderr = run_on_ranks(2, "tests.integration.ranks_at_work", folder, trained, out)
    assert stdout == ""
    return out, stderr


def test_their_output_is_that_of_one_process(
    at_work: tuple[Path, str], folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = at_work
    monkeypatch.setattr(translating, "_LINES_AT_A_TIME", 12)
    source, reference = folder / "test.en", folder / "test.de"
    model = ["--model", trained]
    text = run("translate", *model, "--batch-tokens", 200, stdin=source.read_bytes())
    assert (out / "translated").read_bytes() == text
    assert text.count(b"\n") == source.read_bytes().count(b"\n")
    assert run("translate", *model, "--batch-tokens", 200, "--source", source) == text
    scores = run("score", *model, "--source", source, "--target", reference)
    assert (out / "scores").read_bytes() == scores
    evaluated = run("evaluate", *model, "--source", source, "--reference", reference)
    assert (out / "evaluated").read_bytes() == evaluated
    assert (out / "made").read_bytes() == run("translate", *model, "--source", source)


def test_the_terminal_shows_one_stream(at_work: tuple[Path, str]) -> None:
    out, said = at_work
    training, _, mistake = said.partition("a mistake\n")
    shown = [line for line in training.splitlines() if line.startswith(("step ", "done "))]
    assert [line.split()[1] for line in shown[:4]] == ["5", "10", "15", "20"]
    assert len(shown) == len(set(shown))
    assert "from a library" not in said
    assert mistake == f"npformer: error: there is no model directory {out / 'none'}\n"


def test_another_rank_has_a_log_of_its_own(at_work: tuple[Path, str]) -> None:
    ranks = at_work[0] / "run" / "ranks"
    assert sorted(path.name for path in ranks.iterdir()) == ["0.json", "1.json", "1.log"]
    log = (ranks / "1.log").read_text()
    assert log.count("rank 1 of 2: process ") == 2  # it was resumed
    assert "which computes on the CPU; its share is 1/2 of each step (batch_tokens 600, " in log
    assert "step     20  validating: " in log
    assert "step     10  saving: " in log
    for step in (5, 10, 15, 20, 25):
        assert f"step {step:6}  " in log
    assert " target tokens of its own a second" in log
    assert "from a library\n" in log


def test_status_tells_of_the_ranks(at_work: tuple[Path, str]) -> None:
    said = npformer("status", at_work[0] / "run").stdout.decode()
    assert "no process is training it\n" in said
    assert "\n  ranks      none at work: 2 ended 0:0" in said
