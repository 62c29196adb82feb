"""Tests that need a separate process: signals, pipes, consoles, closed streams."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from npformer import Translator
from npformer.checkpoint import load_header
from tests.integration.command_line import (
    COMMAND,
    TINY,
    Done,
    mistake,
    npformer,
    npformer_alone,
    prepare_words,
    refusal,
    run,
    signalled,
    with_broken_pipe,
    with_closed,
)
from train.cli.commands import averaging
from train.corpora import preparation
from train.runs.metrics import read_metrics
from train.step import train_step
from train.trainer import Trainer

pytestmark = pytest.mark.integration


class TestProcesses:
    """Tests that need a separate process."""

    def test_crlf_is_reported_and_stripped(self, trained: Path) -> None:
        unix = run("translate", "--model", trained, stdin=b"a dog .\na cat .\n")
        done = npformer_alone("translate", "--model", trained, stdin=b"a dog .\r\na cat .\r\n")
        assert done.status == 0, done.stderr
        assert done.stdout == unix
        assert "2 of 2 lines end in CRLF" in done.stderr

    def test_a_mistake_is_reported_in_one_line(self, tmp_path: Path) -> None:
        done = npformer_alone("translate", "--model", tmp_path / "none")
        assert "no model directory" in refusal(done)
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_ends_a_run_with_a_checkpoint(self, folder: Path, number: int) -> None:
        out = folder / f"signal{int(number)}"
        status, stderr = signalled(folder, out, number)
        assert status == 128 + number
        assert "stopping after this step" in stderr
        assert "continue with npformer train --resume" in stderr
        stopped_at = int(stderr.split("stopped at step ")[1].split(";")[0])
        assert (
            load_header(out / "training" / "state.safetensors")[1]["position"]["step"] == stopped_at
        )
        # The parameters of the steps that would be kept without the signal, and no others.
        assert all(int(path.stem) % 10 == 0 for path in (out / "checkpoints").iterdir())
        words = ["--data", folder / "corpus", "--out", out, "--resume"]
        done = npformer("train", *words, "--max-steps", stopped_at + 3)
        assert f"done at step {stopped_at + 3}" in done.stderr

    def test_a_signal_that_was_ignored_from_the_start_stays_ignored(
        self, folder: Path, monkeypatch: Any
    ) -> None:
        def hung_up(*arguments: Any) -> Any:
            os.kill(os.getpid(), signal.SIGHUP)
            return train_step(*arguments)

        monkeypatch.setattr("train.loop.train_step", hung_up)
        words = ["--data", folder / "corpus", "--out", folder / "nohup", *TINY, "--max-steps", 2]
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup has it
        try:
            assert "done at step 2" in npformer("train", *words).stderr
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_a_second_signal_ends_a_run_at_once(self, folder: Path, monkeypatch: Any) -> None:
        def slow(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")

        monkeypatch.setattr("train.loop.train_step", slow)
        words = ["--data", folder / "corpus", "--out", folder / "at once", *TINY]
        done = npformer("train", *words)
        assert done.status == 128 + signal.SIGTERM
        ended = "stopped at once; continue with npformer train --resume from step 0\n"
        assert done.stderr.endswith(ended)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_while_a_run_starts_is_told(
        self, folder: Path, monkeypatch: Any, number: signal.Signals
    ) -> None:
        monkeypatch.setattr(Trainer, "start", lambda *_, **__: os.kill(os.getpid(), number))
        done = npformer("train", "--data", folder / "corpus", "--out", folder / "early", *TINY)
        assert (done.status, done.stderr) == (128 + number, f"stopped by {number.name}\n")

    @pytest.mark.parametrize("reader", ["leaves", "has no space"])
    def test_a_run_continues_if_nobody_reads_its_log(self, folder: Path, reader: str) -> None:
        out = folder / f"reader {reader}"
        words = ["train", "--data", folder / "corpus", "--out", out, *TINY, "--max-steps", 20]
        line = shlex.join([*COMMAND, *map(str, words)])
        redirected = "2>&1 | head -2" if reader == "leaves" else "2>/dev/full"
        script = f"{{ {line}; echo $? > {shlex.quote(str(out))}.status; }} {redirected}"
        subprocess.run(["sh", "-c", script], capture_output=True, timeout=240, check=True)
        assert Path(f"{out}.status").read_text() == "0\n"
        assert [e["step"] for e in read_metrics(out) if "loss" in e] == [5, 10, 15, 20]
        assert load_header(out / "training" / "state.safetensors")[1]["position"]["step"] == 20

    def test_sigterm_ends_prepare_and_leaves_nothing(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def terminated(*_: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(preparation, "write_text", terminated)
        before = signal.getsignal(signal.SIGTERM)
        done = npformer(*prepare_words(folder), "--vocab-size", 600, "--out", tmp_path / "corpus")
        assert done.status == 128 + signal.SIGTERM
        assert done.stderr.endswith("lines\nstopped by SIGTERM\n")
        assert os.listdir(tmp_path) == []
        assert signal.getsignal(signal.SIGTERM) is before

    def test_a_killed_run_resumes_from_its_last_checkpoint(self, folder: Path) -> None:
        out = folder / "killed"
        status, _ = signalled(folder, out, signal.SIGKILL)
        assert status == -signal.SIGKILL
        words = ["--data", folder / "corpus", "--out", out, "--resume"]
        done = npformer("train", *words, "--max-steps", 1)
        assert done.status == 0, done.stderr
        step = int(done.stderr.split("done at step ")[1])
        assert step >= 20
        assert step % 10 == 0
        assert max(entry["step"] for entry in read_metrics(out)) <= step

    def test_translate_ends_quietly_when_its_reader_leaves(self, trained: Path) -> None:
        done = with_broken_pipe(["translate", "--model", trained], b"a dog .\n")
        assert done == Done(0, b"", "")

    def test_score_ends_quietly_when_its_reader_leaves(self, folder: Path, trained: Path) -> None:
        words = ["--source", folder / "test.en", "--target", folder / "test.de"]
        done = with_broken_pipe(["score", "--model", trained, *words], b"")
        assert done == Done(0, b"", "")

    @pytest.mark.parametrize("command", ["translate", "score", "evaluate"])
    def test_a_closed_standard_output_is_reported(
        self, folder: Path, trained: Path, command: str
    ) -> None:
        words: list[object] = [command, "--model", trained]
        if command != "translate":
            target = "--target" if command == "score" else "--reference"
            words += ["--source", folder / "test.en", target, folder / "test.de"]
        done = with_closed(">&-", words, b"a dog .\n")
        assert f"standard output is closed, but {command} writes" in refusal(done)

    def test_a_closed_standard_input_is_reported(self, trained: Path) -> None:
        done = with_closed("<&-", ["translate", "--model", trained])
        assert "standard input is closed, but translate reads" in refusal(done)

    @pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
    def test_train_needs_no_standard_streams(
        self, folder: Path, trained: Path, closed: str
    ) -> None:
        words = ["train", "--data", folder / "corpus", "--out", trained, "--resume"]
        done = with_closed(closed, words)
        assert done.status == 0, done.stderr
        assert done.stdout == b""
        assert ("done at step 40" in done.stderr) == ("2>&-" not in closed)

    def test_errors_do_not_go_to_standard_output(self, tmp_path: Path) -> None:
        assert with_closed("2>&-", ["translate", "--model", tmp_path]) == Done(2, b"", "")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    def test_a_full_disk_is_reported_for_translations(self, trained: Path) -> None:
        done = with_closed(">/dev/full", ["translate", "--model", trained], b"a dog .\n")
        assert "No space left on device" in refusal(done)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
    @pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"]])
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_full_disk_is_reported_for_the_help(
        self, words: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
        done = with_closed(">/dev/full", words)
        assert "No space left on device" in refusal(done)
        assert done.stderr.count("\n") == 1

    def test_average_succeeds_without_readers_of_its_output_and_errors(
        self, trained: Path, tmp_path: Path
    ) -> None:
        words = [*COMMAND, "average", str(trained), "--last", "2", "--out", str(tmp_path / "mean")]
        reading, writing = os.pipe()
        os.close(reading)
        line = f"{shlex.join(words)} >&-"
        assert subprocess.run(["sh", "-c", line], stderr=writing, timeout=60).returncode == 0
        os.close(writing)
        Translator.load(tmp_path / "mean")

    def test_file_names_need_not_be_utf8(self, trained: Path, tmp_path: Path) -> None:
        model = tmp_path / os.fsdecode(b"\xff\xfe")
        os.symlink(trained, model)
        expected = run("translate", "--model", trained, stdin=b"a dog .\n")
        assert run("translate", "--model", model, stdin=b"a dog .\n") == expected
        assert "holds no prepared corpus" in mistake("train", "--data", model, "--out", "none")
        assert "cannot read" in mistake("train", "--config", f"{model}/x", "--data", "x")

    def test_a_setting_that_is_not_utf8_is_named(self) -> None:
        words = ["train", "--data", "none", "--out", "none"]
        assert "seed is given in bytes that are not UTF-8" in mistake(*words, "--seed", "\udcff")
        assert "model.heads is given in bytes" in mistake(*words, "--model.heads=\udcff")

    @pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
    def test_help_and_errors_are_printed_on_any_console(
        self, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        code = """
            import contextlib, sys
            from train.__main__ import main
            for command in "prepare train translate evaluate score average plot".split():
                with contextlib.suppress(SystemExit):
                    main([command, "--help"])
            sys.exit(main(["translate", "--model", sys.argv[1]]))
            """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), "ż→\U0001f642"],
            capture_output=True,
            timeout=240,
        )
        done = Done(ended.returncode, ended.stdout, ended.stderr.decode())
        assert done.stdout.count(b"usage: npformer") == 7
        assert "no model directory" in refusal(done)
        assert done.stderr.count("\n") == 1

    def test_translations_are_utf8_on_any_console(
        self, trained: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "ein größerer Hund →\n".encode()
        expected = run("translate", "--model", trained, stdin=text)
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        assert npformer_alone("translate", "--model", trained, stdin=text).stdout == expected


def test_a_system_error_without_a_file_is_one_line(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        print("so far")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(averaging, "run", fail)
    done = npformer("average", trained, "--last", 2, "--out", "mean")
    assert done.status == 2
    assert done.stdout == b"so far\n"
    assert done.stderr == "npformer: error: standard input or output: Input/output error\n"
