"""Signals that come while a command is still importing its modules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Python imports this before anything else. The signal comes as soon as the module is looked for.
SENDER = """
import os, sys
class Sender:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == os.environ["AT_IMPORT_OF"]:
            os.kill(os.getpid(), int(os.environ["SENT"]))
sys.meta_path.insert(0, Sender)
"""
ENTRY = "import sys\nfrom train.__main__ import main\nif __name__ == '__main__': sys.exit(main())\n"
IMPORTED_IN_TURN = [
    "npformer",
    "numpy",
    "numpy._core._multiarray_umath",  # NumPy takes an exception for a broken installation
    "autograd.ops",
    "npformer.translator",
    "train.__main__",
    "jsonargparse",
    "train.ranks.ranks",
    "train.cli.commands.translating",  # by now the command runs
]


def started(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python, with what lies in a folder first on its path."""

    def as_in_a_terminal() -> None:
        """Also if the tests are run with nohup, or in the background."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=as_in_a_terminal,
    )


@pytest.mark.parametrize("module", IMPORTED_IN_TURN)
@pytest.mark.parametrize("entry", ["-m", "npformer"])
def test_ctrl_c_ends_a_command_as_it_does_later(tmp_path: Path, entry: str, module: str) -> None:
    check_end(tmp_path, entry, module, signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=str)
def test_so_do_other_signals(tmp_path: Path, number: signal.Signals) -> None:
    check_end(tmp_path, "npformer", "numpy", number)


def check_end(folder: Path, entry: str, module: str, number: signal.Signals) -> None:
    (folder / "sitecustomize.py").write_text(SENDER)
    script = folder / "npformer"
    script.write_text(ENTRY)
    words = [*(["-m", "train"] if entry == "-m" else [str(script)]), "translate", "--model", "none"]
    done = started(folder, *words, AT_IMPORT_OF=module, SENT=str(int(number)))
    assert (done.returncode, done.stderr) == (128 + number, f"stopped by {number.name}\n")
    assert done.stdout == ""


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(tmp_path: Path) -> None:
    ignoring = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"  # as nohup does
    (tmp_path / "sitecustomize.py").write_text(ignoring + SENDER)
    words = ["-m", "train", "translate", "--model", "none"]
    done = started(tmp_path, *words, AT_IMPORT_OF="numpy", SENT=str(int(signal.SIGHUP)))
    assert done.returncode == 2
    assert "no model directory" in done.stderr


def test_a_program_that_imports_train_keeps_its_handlers(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import signal\nimport train\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    for words in (["-c", program.read_text()], [str(program)], ["-m", "program"]):
        done = started(tmp_path, *words)
        assert done.returncode == 0, done.stderr


def test_so_do_the_processes_that_a_command_starts(tmp_path: Path) -> None:
    """They import its main module and have its sys.argv; who waits for them looks at the signal."""
    script = tmp_path / "npformer"
    script.write_text(
        "import multiprocessing, os, signal\n"
        "import train\n"
        "from train.signals import end_at_once\n"
        "def end():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "if __name__ == '__main__':\n"
        "    assert signal.getsignal(signal.SIGTERM) is end_at_once\n"
        "    process = multiprocessing.get_context('spawn').Process(target=end)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    print(process.exitcode)\n"
    )
    done = started(tmp_path, str(script), "translate")
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")
