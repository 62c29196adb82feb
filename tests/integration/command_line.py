"""The command line, called in this process or in a separate one."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.real_text import multi30k, real_text_is_here
from train.__main__ import main
from train.grammar import generate

TINY = [
    "--model.preset=tiny",
    "--model.layers=1",
    "--model.d_model=32",
    "--model.d_ff=64",
    "--batch-tokens=600",
    "--schedule=inverse_sqrt",
    "--warmup=20",
    "--peak-rate=0.003",
    "--log-every=5",
    "--validate-every=20",
    "--checkpoint-every=10",
]
COMMAND = [sys.executable, "-m", "train"]


class Done(NamedTuple):
    """The result of a command: its exit status and everything that it wrote."""

    status: int
    stdout: bytes
    stderr: str


@contextlib.contextmanager
def streams(stdin: bytes) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    """Standard output and error as bytes, and `stdin` for standard input."""
    out, err = io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in (("stdin", io.BytesIO(stdin)), ("stdout", out), ("stderr", err)):
            text = io.TextIOWrapper(stream, "utf-8", newline="\n", write_through=True)
            patch.setattr(sys, name, text)
        yield out, err


def npformer(*words: object, stdin: bytes = b"") -> Done:
    """Run a command in this process."""
    with streams(stdin) as (out, err):
        status = main([str(word) for word in words])
        return Done(status, out.getvalue(), err.getvalue().decode())


def npformer_alone(*words: object, stdin: bytes = b"") -> Done:
    """Run a command in a separate process."""
    done = subprocess.run(
        [*COMMAND, *map(str, words)], input=stdin, capture_output=True, timeout=240
    )
    return Done(done.returncode, done.stdout, done.stderr.decode())


def run(*words: object, stdin: bytes = b"") -> bytes:
    """Standard output of a command that must succeed."""
    done = npformer(*words, stdin=stdin)
    assert done.status == 0, done.stderr
    return done.stdout


def refusal(done: Done) -> str:
    """The one-line error of a command."""
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip("\n").split("\n")[-1]
    assert last.startswith("npformer: error: ")
    return last


def mistake(*words: object, stdin: bytes = b"") -> str:
    """The one-line error of a command that must fail in this process."""
    return refusal(npformer(*words, stdin=stdin))


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def text() -> dict[str, list[tuple[str, str]]]:
    """Pairs for training, validation and test: real text where there is some, else generated."""
    if not real_text_is_here:
        corpus = generate(pairs=4000, held_out=60)
        return {"train": corpus.train[:300], "valid": corpus.train[300:340], "test": corpus.test}
    return {
        name: list(
            zip(multi30k(split, "en", 0, count), multi30k(split, "de", 0, count), strict=True)
        )
        for name, split, count in (
            ("train", "train", 300),
            ("valid", "val", 40),
            ("test", "test_2016_flickr", 30),
        )
    }


def prepare_words(folder: Path) -> list[object]:
    return [
        "prepare",
        "--train-source",
        folder / "train.en",
        "--train-target",
        folder / "train.de",
        "--valid-source",
        folder / "valid.en",
        "--valid-target",
        folder / "valid.de",
    ]


def with_closed(redirection: str, words: list[object], stdin: bytes = b"") -> Done:
    """Run a command whose streams the shell redirects or closes."""
    line = f"{shlex.join([*COMMAND, *map(str, words)])} {redirection}"
    done = subprocess.run(["sh", "-c", line], input=stdin, capture_output=True, timeout=240)
    return Done(done.returncode, done.stdout, done.stderr.decode())


def signalled(folder: Path, out: Path, number: int) -> tuple[int, str]:
    """Exit status and standard error of an endless run that gets a signal after step 20."""
    words = ["--data", folder / "corpus", "--out", out, *TINY, "--max-steps", 1_000_000]

    def as_in_a_terminal() -> None:
        """Also if the tests are run with nohup, which ignores SIGHUP, or in the background."""
        signal.signal(number, signal.SIG_DFL)

    process = subprocess.Popen(
        [*COMMAND, "train", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=None if number == signal.SIGKILL else as_in_a_terminal,
    )
    assert process.stderr is not None
    try:
        seen = ""
        while "step     25 " not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        process.send_signal(number)
        _, rest = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode, seen + rest


def with_broken_pipe(words: list[object], stdin: bytes) -> Done:
    """Run a command whose standard output is a closed pipe, as in `npformer ... | head -0`."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        env=buffered,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(stdin, timeout=240)
    return Done(process.returncode, b"", stderr.decode())
