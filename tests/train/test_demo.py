"""A demonstration that is killed at any moment leaves files that the next one can replace."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ("attention.png", "corpus", "model", "run", "text/train.en", "text/valid.de")


def started(out: Path) -> "subprocess.Popen[str]":
    """A demonstration in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.small_demo", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ended_when(out: Path, pattern: str, number: signal.Signals) -> tuple[int, str]:
    """The exit status and errors of a demonstration that gets a signal once a path exists."""
    process = started(out)
    while not path_exists(out, pattern):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def path_exists(out: Path, pattern: str) -> bool:
    """Whether a path exists, while folders are created and removed."""
    try:
        return any(out.glob(pattern))
    except FileNotFoundError:
        return False


def hidden(out: Path) -> list[str]:
    return [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_after_kills_the_next_demonstration_replaces_only_its_own_files(tmp_path: Path) -> None:
    mine = tmp_path / "text" / "downloaded"
    for pattern in (
        "npformer-demo",
        ".npformer-*/.corpus.*.tmp/*",
        ".npformer-*/run/checkpoints/*",
    ):
        status, _ = ended_when(tmp_path, pattern, signal.SIGKILL)
        assert status == -signal.SIGKILL
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
    process = started(tmp_path)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"--model {tmp_path}/model <" in output
    assert f"All heads: {tmp_path}/attention.png" in output
    assert all((tmp_path / name).exists() for name in MADE)
    assert mine.read_text() == "mine"
    assert hidden(tmp_path) == []
    files = json.loads((tmp_path / "corpus" / "manifest.json").read_text())["files"]
    [source] = files["train"]["source"]
    assert source["path"] == str(tmp_path / "text" / "train.en")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_files_in_place(tmp_path: Path, number: signal.Signals) -> None:
    status, errors = ended_when(tmp_path, ".npformer-*/run/checkpoints/*.safetensors", number)
    assert status == 128 + number
    assert f"stopped by {number.name}" in errors
    assert "Traceback" not in errors
    assert hidden(tmp_path) == []
    assert list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    recorded = json.loads((tmp_path / "npformer-demo").read_text())["files"]
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == recorded.keys() | {"npformer-demo"}
