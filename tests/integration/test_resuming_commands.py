"""Resuming and fine-tuning on the command line: their messages and refusals."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from npformer.checkpoint import load_config
from tests.integration.command_line import TINY, mistake, npformer, run
from train.runs.run import Run
from train.settings_file import read_settings

pytestmark = pytest.mark.integration

WITHOUT_SIZES = [word for word in TINY if not word.startswith("--model")]


@pytest.fixture
def begun(folder: Path, tmp_path: Path) -> Path:
    """A run of two steps."""
    out = tmp_path / "run"
    run("train", "--data", folder / "corpus", "--out", out, *TINY, "--max-steps", 2)
    return out


def resume(folder: Path, out: Path, *words: object) -> list[str]:
    """The messages of a resumed run before its first log entry."""
    done = npformer("train", "--data", folder / "corpus", "--out", out, "--resume", *words)
    assert done.status == 0, done.stderr
    return done.stderr.split("\n")


def test_a_resumed_run_reports_what_was_restored_and_what_changes(
    folder: Path, begun: Path
) -> None:
    said = resume(folder, begun, "--max-steps", 4, "--clip-norm", 1, "--log-every", 1)
    assert said[0] == "step 2: adam and its moments are those of the state"
    assert said[1].startswith("data: epoch 0, after batch 2")
    assert said[2] == "random streams: seed 0, dropout of step 3"
    assert said[3].startswith("schedule: inverse_sqrt, learning rate ")
    assert said[4:6] == [
        "max_steps is 4 from now on; it was 2",
        "clip_norm is 1.0 from now on; it was 0.0",
    ]
    assert said[-2] == "done at step 4"


def test_a_run_in_progress_is_not_resumed(folder: Path, begun: Path) -> None:
    words = ["train", "--data", folder / "corpus", "--out", begun, "--resume"]
    with Run(begun).locked():
        assert f"process {os.getpid()} on " in mistake(*words)
    resume(folder, begun)


def test_a_run_killed_before_its_first_checkpoint_is_restarted_with_its_settings(
    folder: Path, begun: Path
) -> None:
    for path in [*begun.glob("*.safetensors"), *begun.glob("t*/*.s*"), begun / "metrics.jsonl"]:
        path.unlink(missing_ok=True)
    shutil.rmtree(begun / "checkpoints")
    said = resume(folder, begun)
    assert "was killed before its first checkpoint, so it starts again" in said[0]
    assert said[-2] == "done at step 2"
    (begun / "train.yaml").unlink()
    words = ["train", "--data", folder / "corpus", "--out", begun, "--resume"]
    assert "no run to resume" in mistake(*words)
    assert "start one without --resume" in mistake(*words)


def test_fine_tuning_takes_the_sizes_of_the_model(folder: Path, trained: Path) -> None:
    words = ["train", "--data", folder / "corpus", "--init-from", trained, "--max-steps", 1]
    out = folder / "tuned"
    run(*words, "--out", out, *WITHOUT_SIZES, "--model.dropout", 0.2)
    ours, its = load_config(out).to_dict(), load_config(trained).to_dict()
    assert (ours.pop("dropout"), its.pop("dropout")) == (0.2, 0.3)
    assert ours == its
    assert read_settings(out / "train.yaml")["init_from"] == str(trained)
    run(*words, "--out", folder / "tuned with sizes", *TINY)
    for other in ("--model.d_ff=128", "--model.preset=big", "--model.preset=table3/E"):
        message = mistake(*words, "--out", folder / "none", *WITHOUT_SIZES, other)
        assert f"the model {trained} has " in message
    assert "init_from is None in this run" in mistake(*words, "--out", trained, "--resume")
