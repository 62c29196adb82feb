"""The command line, driven as a user drives it: from text files to a score.

Most commands are called in this process, which is quicker; what a process of its own decides
(signals, pipes, what stands on standard error) is tested on one.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from npformer import Translator
from tests.real_text import multi30k, needs_real_text, real_text_is_here
from train.__main__ import main
from train.commands import COMMANDS
from train.corpus import Corpus
from train.grammar import generate
from train.run import read_metrics

pytestmark = pytest.mark.integration

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
    """What a command has left: its exit status, and all that it wrote."""

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
    """A command, in this process."""
    with streams(stdin) as (out, err):
        status = main([str(word) for word in words])
        return Done(status, out.getvalue(), err.getvalue().decode())


def npformer_alone(*words: object, stdin: bytes = b"") -> Done:
    """A command, in a process of its own."""
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
    """The one line with which a command refuses."""
    assert done.status == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip("\n").split("\n")[-1]
    assert last.startswith("npformer: error: ")
    return last


def mistake(*words: object, stdin: bytes = b"") -> str:
    return refusal(npformer(*words, stdin=stdin))


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def text() -> dict[str, list[tuple[str, str]]]:
    """Pairs for training, validation and the test: real ones, or else generated ones."""
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text files, and the corpus made of them."""
    folder = tmp_path_factory.mktemp("work")
    for name, pairs in text().items():
        write(folder / f"{name}.en", [source for source, _ in pairs])
        write(folder / f"{name}.de", [target for _, target in pairs])
    run(*prepare_words(folder), "--vocab-size", 600, "--out", folder / "corpus")
    return folder


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


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A run of 40 steps."""
    out = folder / "run"
    run("train", "--data", folder / "corpus", "--out", out, *TINY, "--max-steps", 40)
    return out


class TestFromTextToScore:
    def test_training_lowers_the_perplexity(self, trained: Path) -> None:
        logged = [entry["perplexity"] for entry in read_metrics(trained) if "perplexity" in entry]
        assert logged[-1] < logged[0] / 2

    def test_translation_gives_a_line_for_a_line_whatever_it_holds(self, trained: Path) -> None:
        lines = ["a dog runs .", "", "   ", "\x85 odd \u2028 separators \x0b", "🙂 \t\x00", "ein"]
        text = "\n".join(lines).encode()
        translated = run("translate", "--model", trained, "--beam", 2, stdin=text)
        answers = translated.decode().split("\n")
        assert len(answers) == len(lines) + 1
        assert answers[-1] == ""
        assert answers[1] == answers[2] == ""
        direct = Translator.load(trained).translate(lines, beam=2)
        assert [t.text for t in direct] == answers[:-1]

    def test_no_input_gives_no_output(self, trained: Path) -> None:
        assert run("translate", "--model", trained) == b""

    def test_evaluate_ends_with_bleu_and_its_signature(self, folder: Path, trained: Path) -> None:
        words = ["--model", trained, "--source", folder / "test.en"]
        words += ["--reference", folder / "test.de", "--beam", 1]
        output = run("evaluate", *words, "--tokenize", "none", "--lowercase").decode()
        last = output.rstrip("\n").split("\n")[-1]
        assert last.startswith("BLEU = ")
        assert "tok:none" in last
        assert "case:lc" in last
        assert "tok:13a" in run("evaluate", *words).decode()
        assert "perplexity = " in output
        assert "chrF2 = " in output

    def test_evaluate_scores_with_what_is_asked_for(self, folder: Path, trained: Path) -> None:
        words = ["evaluate", "--model", trained, "--source", folder / "test.en", "--beam", 1]
        words += ["--reference", folder / "test.de"]
        rows = run(*words, "--metrics", "bleu", "ter", "--tokenize", "zh").decode().split("\n")
        assert [row.split(" ")[0] for row in rows] == ["perplexity", "TER", "BLEU", ""]
        assert "tok:zh" in rows[2]
        assert "chrF2" in run(*words, "--metrics", "chrf").decode()

    @pytest.mark.parametrize(
        ("tokenizer", "problem"),
        [("ja-mecab", "pip install 'sacrebleu[ja]'"), ("flores200", "download it to")],
    )
    def test_a_tokenizer_that_is_not_there_is_told_before_the_work(
        self, folder: Path, trained: Path, tokenizer: str, problem: str
    ) -> None:
        if importlib.util.find_spec("MeCab") and tokenizer == "ja-mecab":
            pytest.skip("MeCab is installed")
        words = ["--source", folder / "test.en", "--reference", folder / "test.de"]
        words = ["evaluate", "--model", trained, *words]
        assert problem in mistake(*words, "--tokenize", tokenizer)
        words = ["train", "--data", folder / "corpus", "--out", folder / "never", *TINY]
        words += ["--bleu-every", 5, "--bleu-tokenize", tokenizer]
        assert problem in mistake(*words)
        assert not (folder / "never").exists()

    def test_evaluate_leaves_the_translations(self, folder: Path, trained: Path) -> None:
        words = ["--model", trained, "--source", folder / "test.en", "--beam", 1]
        output = folder / "translations.de"
        run("evaluate", *words, "--reference", folder / "test.de", "--output", output)
        source = (folder / "test.en").read_bytes()
        assert output.read_bytes() == run("translate", *words[:2], "--beam", 1, stdin=source)

    def test_the_average_is_a_model_directory(self, folder: Path, trained: Path) -> None:
        run("average", trained, "--last", 3, "--out", folder / "averaged")
        run("translate", "--model", folder / "averaged", stdin=b"a dog .\n")
        message = mistake("average", trained, "--last", 50, "--out", folder / "none")
        assert "holds 4 checkpoints" in message

    def test_score_gives_a_line_for_a_pair(self, folder: Path, trained: Path) -> None:
        words = ["--source", folder / "test.en", "--target", folder / "test.de"]
        rows = run("score", "--model", trained, *words).decode().rstrip("\n").split("\n")
        assert len(rows) == 30
        assert all(float(row.split("\t")[0]) < 0 for row in rows)

    def test_resuming_gives_what_an_uninterrupted_run_gives(
        self, folder: Path, trained: Path
    ) -> None:
        out = folder / "resumed"
        words = ["train", "--data", folder / "corpus", "--out", out]
        run(*words, *TINY, "--max-steps", 17)
        run(*words, "--resume", "--max-steps", 40)
        whole, parts = read_metrics(trained), read_metrics(out)
        # The entry at step 20 averages over the steps since the run went on.
        losses = [[(e["step"], e["loss"]) for e in m if "loss" in e] for m in (whole, parts)]
        assert losses[0][:3] == losses[1][:3]
        assert losses[0][4:] == losses[1][4:]
        assert (trained / "model.safetensors").read_bytes() == (
            out / "model.safetensors"
        ).read_bytes()

    def test_separate_vocabularies_train_and_translate(self, folder: Path) -> None:
        corpus, out = folder / "separate", folder / "separate-run"
        run(*prepare_words(folder), "--vocab-size", 500, "--separate", "--out", corpus)
        run("train", "--data", corpus, "--out", out, *TINY, "--max-steps", 10)
        assert json.loads((out / "config.json").read_text())["model"]["share_embeddings"] == (
            "target"
        )
        assert (out / "source.spm").exists()
        run("translate", "--model", out, stdin=b"a dog .\n")

    def test_curves_and_attention_are_drawn(self, folder: Path, trained: Path) -> None:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        for words in ((), ("--attention", "a dog runs .")):
            picture = folder / f"picture{len(words)}.png"
            run("plot", trained, *words, "--out", picture)
            assert picture.read_bytes().startswith(b"\x89PNG")

    def test_hyphens_and_underscores_in_long_flags_are_the_same(self, trained: Path) -> None:
        words = ["translate", "--model", trained, "--beam", 2]
        answers = {
            run(*words, *flags, stdin=b"a dog-house .\n")
            for flags in (
                ("--length-penalty", 3, "--extra-length", 2),
                ("--length_penalty", 3, "--extra_length", 2),
                ("--length-penalty=3", "--extra_length=2"),
            )
        }
        assert len(answers) == 1

    @needs_real_text
    def test_no_line_of_real_text_is_dropped_or_changed(self, folder: Path) -> None:
        corpus = Corpus.open(folder / "corpus")
        assert len(corpus.train) == 300
        for side, language in (("source", "en"), ("target", "de")):
            tokenizer = getattr(corpus.tokenizers, side)
            ids = [getattr(corpus.train, side)(i).tolist() for i in range(300)]
            lines = multi30k("train", language, 0, 300)
            assert [tokenizer.decode(sentence) for sentence in ids] == lines


class TestProcesses:
    """What only a process of its own shows."""

    def test_crlf_is_told_and_stripped(self, trained: Path) -> None:
        unix = run("translate", "--model", trained, stdin=b"a dog .\na cat .\n")
        done = npformer_alone("translate", "--model", trained, stdin=b"a dog .\r\na cat .\r\n")
        assert done.status == 0, done.stderr
        assert done.stdout == unix
        assert "2 of 2 lines end in CRLF" in done.stderr

    def test_a_mistake_is_one_line_there_too(self, tmp_path: Path) -> None:
        done = npformer_alone("translate", "--model", tmp_path / "none")
        assert "no model directory" in refusal(done)
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_a_run_with_a_checkpoint(self, folder: Path, number: int) -> None:
        out = folder / f"signal{int(number)}"
        status, stderr = signalled(folder, out, number)
        assert status == 0
        assert "stopping after this step" in stderr
        assert "npformer train --resume goes on" in stderr
        stopped_at = int(stderr.split("stopped at step ")[1].split(";")[0])
        newest = sorted((out / "checkpoints").iterdir())[-1]
        assert int(newest.stem) == stopped_at
        words = ["--data", folder / "corpus", "--out", out, "--resume"]
        done = npformer("train", *words, "--max-steps", stopped_at + 3)
        assert f"done at step {stopped_at + 3}" in done.stderr

    def test_a_kill_leaves_the_checkpoint_before(self, folder: Path) -> None:
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

    def test_a_reader_that_leaves_is_no_error(self, trained: Path) -> None:
        done = whose_reader_leaves(["translate", "--model", trained], b"a dog .\n")
        assert done == Done(0, b"", "")

    def test_a_reader_that_leaves_is_no_error_of_what_prints(
        self, folder: Path, trained: Path
    ) -> None:
        words = ["--source", folder / "test.en", "--target", folder / "test.de"]
        done = whose_reader_leaves(["score", "--model", trained, *words], b"")
        assert done == Done(0, b"", "")

    @pytest.mark.parametrize("command", ["translate", "score", "evaluate"])
    def test_a_command_without_its_output_says_so(
        self, folder: Path, trained: Path, command: str
    ) -> None:
        words: list[object] = [command, "--model", trained]
        if command != "translate":
            target = "--target" if command == "score" else "--reference"
            words += ["--source", folder / "test.en", target, folder / "test.de"]
        done = with_closed(">&-", words, b"a dog .\n")
        assert f"standard output is closed, and {command} writes" in refusal(done)

    def test_a_command_without_its_input_says_so(self, trained: Path) -> None:
        done = with_closed("<&-", ["translate", "--model", trained])
        assert "standard input is closed, and translate reads" in refusal(done)

    @pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
    def test_a_finished_run_needs_no_stream(self, folder: Path, trained: Path, closed: str) -> None:
        words = ["train", "--data", folder / "corpus", "--out", trained, "--resume"]
        done = with_closed(closed, words)
        assert done.status == 0, done.stderr
        assert done.stdout == b""
        assert ("done at step 40" in done.stderr) == ("2>&-" not in closed)

    def test_errors_do_not_go_to_standard_output(self, tmp_path: Path) -> None:
        assert with_closed("2>&-", ["translate", "--model", tmp_path]) == Done(2, b"", "")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
    def test_output_that_no_space_is_left_for_is_told(self, trained: Path) -> None:
        done = with_closed(">/dev/full", ["translate", "--model", trained], b"a dog .\n")
        assert "No space left on device" in refusal(done)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
    @pytest.mark.parametrize("words", [[], ["--help"], ["train", "--help"]])
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_help_that_no_space_is_left_for_is_told(
        self, words: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
        done = with_closed(">/dev/full", words)
        assert "No space left on device" in refusal(done)
        assert done.stderr.count("\n") == 1

    def test_a_reader_of_errors_that_leaves_is_no_error_without_an_output(
        self, trained: Path, tmp_path: Path
    ) -> None:
        words = [*COMMAND, "average", str(trained), "--last", "2", "--out", str(tmp_path / "mean")]
        reading, writing = os.pipe()
        os.close(reading)
        line = f"{shlex.join(words)} >&-"
        assert subprocess.run(["sh", "-c", line], stderr=writing, timeout=60).returncode == 0
        os.close(writing)
        Translator.load(tmp_path / "mean")

    def test_a_file_whose_name_is_not_utf8_is_a_file(self, trained: Path, tmp_path: Path) -> None:
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
    def test_help_and_errors_show_on_any_console(
        self, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        code = """
            import contextlib
            from train.__main__ import main
            for command in "prepare train translate evaluate score average plot".split():
                with contextlib.suppress(SystemExit):
                    main([command, "--help"])
            """
        helped = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=240
        )
        assert helped.returncode == 0
        assert helped.stdout.count(b"usage: npformer") == 7
        assert helped.stderr == b""
        assert "no model directory" in refusal(
            npformer_alone("translate", "--model", "ż→\U0001f642")
        )

    def test_translations_are_utf8_on_any_console(
        self, trained: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = "ein größerer Hund →\n".encode()
        expected = run("translate", "--model", trained, stdin=text)
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        assert npformer_alone("translate", "--model", trained, stdin=text).stdout == expected


def test_an_error_of_the_system_without_a_file_is_one_line(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        print("so far")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setitem(COMMANDS, "average", fail)
    done = npformer("average", trained, "--last", 2, "--out", "mean")
    assert done.status == 2
    assert done.stdout == b"so far\n"
    assert done.stderr == "npformer: error: standard input or output: Input/output error\n"


def with_closed(redirection: str, words: list[object], stdin: bytes = b"") -> Done:
    """A command whose streams the shell redirects or closes."""
    line = f"{shlex.join([*COMMAND, *map(str, words)])} {redirection}"
    done = subprocess.run(["sh", "-c", line], input=stdin, capture_output=True, timeout=240)
    return Done(done.returncode, done.stdout, done.stderr.decode())


def signalled(folder: Path, out: Path, number: int) -> tuple[int, str]:
    """Exit status and standard error of an endless run that gets a signal after step 20."""
    words = ["--data", folder / "corpus", "--out", out, *TINY, "--max-steps", 1_000_000]
    process = subprocess.Popen(
        [*COMMAND, "train", *map(str, words)], stderr=subprocess.PIPE, text=True
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


def whose_reader_leaves(words: list[object], stdin: bytes) -> Done:
    """A command whose standard output nobody reads, as in `npformer ... | head -0`."""
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


class TestMistakesWithARun:
    def test_a_run_is_not_overwritten(self, folder: Path, trained: Path) -> None:
        message = mistake("train", "--data", folder / "corpus", "--out", trained)
        assert "--resume" in message

    def test_a_run_is_not_resumed_with_other_heads(self, folder: Path, trained: Path) -> None:
        before = (trained / "config.json").read_bytes()
        words = ["--data", folder / "corpus", "--out", trained, "--resume", "--model.heads", 8]
        message = mistake("train", *words)
        assert "heads = 4" in message
        assert "8" in message
        assert (trained / "config.json").read_bytes() == before

    def test_an_unknown_setting_is_named(self, folder: Path) -> None:
        words = ["train", "--data", folder / "corpus", "--out", folder / "never"]
        config = write(folder / "wrong.yaml", ["warm_up: 3"])
        assert "warm_up" in mistake(*words, "--config", config)
        assert "model.heads" in mistake(*words, "--model.heads", "many")
        assert "divisible" in mistake(*words, "--model.heads", 7)
        assert not (folder / "never").exists()

    def test_a_search_that_could_not_end_is_refused(self, trained: Path) -> None:
        words = ["translate", "--model", trained]
        message = mistake(*words, "--beam", 100_000, stdin=b"a dog .\n")
        assert "beam must be 1 to 1,000; it is 100,000" in message
        message = mistake(*words, "--extra-length", 10_000_000, stdin=b"a dog .\n")
        assert "extra_length must be 1 to 10,000; it is 10,000,000" in message

    def test_a_damaged_model_is_refused(self, folder: Path, trained: Path) -> None:
        broken = folder / "broken"
        broken.mkdir()
        for name in ("config.json", "tokenizer.spm"):
            (broken / name).write_bytes((trained / name).read_bytes())
        whole = (trained / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        assert "cut short" in mistake("translate", "--model", broken, stdin=b"a\n")
        (broken / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert "altered" in mistake("translate", "--model", broken, stdin=b"a\n")

    @pytest.mark.parametrize("command", ["prepare", "train", "average", "demo"])
    def test_an_existing_file_is_no_directory_to_write_to(
        self, folder: Path, trained: Path, command: str
    ) -> None:
        words = {
            "prepare": [*prepare_words(folder), "--vocab-size", 600],
            "train": ["train", "--data", folder / "corpus", *TINY, "--max-steps", 1],
            "average": ["average", trained, "--last", 2],
            "demo": ["demo"],
        }[command]
        file = write(folder / f"{command}.txt", ["mine"])
        message = mistake(*words, "--out", file)
        assert file.name in message
        assert file.read_text() == "mine\n"

    def test_a_directory_that_cannot_be_made_is_named(self, folder: Path, trained: Path) -> None:
        file = write(folder / "file.txt", ["mine"])
        assert "file.txt" in mistake("average", trained, "--last", 2, "--out", file / "below")


class TestDemo:
    def test_a_foreign_directory_is_refused(self, tmp_path: Path) -> None:
        mine = write(tmp_path / "thesis.txt", ["mine"])
        message = mistake("demo", "--out", tmp_path)
        assert "holds no demonstration" in message
        assert mine.read_text() == "mine\n"
        assert list(tmp_path.iterdir()) == [mine]

    def test_time_must_be_left_to_train(self, tmp_path: Path) -> None:
        assert "--minutes" in mistake("demo", "--minutes", 0, "--out", tmp_path / "demo")
        assert not (tmp_path / "demo").exists()

    @pytest.mark.parametrize("minutes", ["nan", ".nan", ".inf", "-3"])
    def test_the_time_is_a_number(self, tmp_path: Path, minutes: str) -> None:
        out = tmp_path / "demo"
        assert "minutes must be a number" in mistake("demo", f"--minutes={minutes}", "--out", out)
        assert not out.exists()

    def test_what_a_demonstration_did_not_make_is_kept_and_in_its_way_named(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "npformer-demo").touch()
        mine = [tmp_path / "run" / "model.safetensors", tmp_path / "thesis.txt"]
        mine[0].parent.mkdir()
        for file in mine:
            file.write_text("mine")
        message = mistake("demo", "--out", tmp_path)
        assert f"{mine[0]} is no file that npformer left there" in message
        assert [file.read_text() for file in mine] == ["mine", "mine"]

    def test_multi30k_without_a_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise urllib.error.URLError("Name or service not known")

        monkeypatch.setattr(urllib.request, "urlopen", unreachable)
        message = mistake("demo", "--data", "multi30k", "--out", tmp_path / "demo")
        assert "cannot download https://" in message
        assert "Name or service not known" in message
        assert "connect to the network" in message

    def test_multi30k_that_is_not_what_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"404\n"))
        out = tmp_path / "demo"
        message = mistake("demo", "--data", "multi30k", "--out", out)
        assert "is not the file that is expected" in message
        assert list((out / "text").iterdir()) == []

    def test_a_file_that_was_put_into_place_is_verified(self, tmp_path: Path) -> None:
        (tmp_path / "text").mkdir()
        (tmp_path / "npformer-demo").touch()
        put = write(tmp_path / "text" / "train.lc.norm.tok.en", ["another text"])
        message = mistake("demo", "--data", "multi30k", "--out", tmp_path)
        assert f"{put} is not the file that is expected" in message


class TestMistakes:
    """Each gets one line on standard error, exit status 2, and leaves nothing behind."""

    def test_different_numbers_of_lines(self, tmp_path: Path) -> None:
        self._files(tmp_path, ["a b c"] * 3, ["d e f"] * 2)
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "3 lines" in message
        assert "has 2" in message
        assert not (tmp_path / "c").exists()

    def test_bytes_that_are_not_utf8(self, tmp_path: Path) -> None:
        self._files(tmp_path, ["a", "b"], ["d", "e"])
        (tmp_path / "train.de").write_bytes(b"gut\nsch\xf6n\n")
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "line 2" in message
        assert "0xf6" in message

    def test_an_empty_file(self, tmp_path: Path) -> None:
        self._files(tmp_path, [], [])
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "is empty" in message

    def test_no_such_file(self, tmp_path: Path) -> None:
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "train.en" in message

    def test_a_vocabulary_too_large(self, tmp_path: Path) -> None:
        self._files(tmp_path, ["a b c"] * 3, ["d e f"] * 3)
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 9000, "--out", tmp_path / "c")
        assert "too large" in message

    def test_no_model(self, tmp_path: Path) -> None:
        assert "no model directory" in mistake("translate", "--model", tmp_path / "none")
        assert "config.json" in mistake("translate", "--model", tmp_path)

    def test_no_corpus(self, tmp_path: Path) -> None:
        mistake("train", "--data", tmp_path, "--out", tmp_path / "run")

    def test_nothing_to_resume(self, tmp_path: Path) -> None:
        words = ["train", "--resume", "--data", tmp_path, "--out", tmp_path / "none"]
        assert "no run to resume" in mistake(*words)

    def test_characters_may_be_left_to_bytes(self, tmp_path: Path) -> None:
        rare = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
        self._files(tmp_path, ["ab " * 1000] * 10 + [rare], ["ab"] * 10 + ["ba"])
        words = [*prepare_words(tmp_path), "--vocab-size", 265, "--out", tmp_path / "c"]
        assert "362 or more, or lower the character coverage from 1" in mistake(*words)
        run(*words, "--character-coverage", 0.98, "--max-length", 5000)

    def test_text_that_cannot_be_read_twice(self, tmp_path: Path) -> None:
        self._files(tmp_path, ["a"], ["b"])
        (tmp_path / "train.en").unlink()
        os.mkfifo(tmp_path / "train.en")
        words = [*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c"]
        assert "train.en is no file but a pipe" in mistake(*words)

    @pytest.mark.parametrize("number", ["nan", ".nan", ".inf", "400", "-1"])
    def test_a_length_penalty_that_divides_by_no_number(self, tmp_path: Path, number: str) -> None:
        message = mistake("translate", "--model", tmp_path, f"--length-penalty={number}")
        assert "length_penalty must be " in message

    def test_an_unknown_command_or_flag(self) -> None:
        mistake("trian")
        mistake("translate", "--model", "x", "--baem", "4")

    def test_nothing_is_said_without_a_command_but_the_help(self) -> None:
        assert b"prepare" in run()

    def test_what_the_engine_says_when_it_compiles_loops_is_heard(self) -> None:
        logging.getLogger("autograd").setLevel(logging.NOTSET)
        run()
        assert logging.getLogger("autograd").isEnabledFor(logging.INFO)

    def _files(self, folder: Path, source: list[str], target: list[str]) -> None:
        for name in ("train", "valid"):
            write(folder / f"{name}.en", source)
            write(folder / f"{name}.de", target)


def test_an_evaluation_does_not_write_over_what_it_reads(tmp_path: Path) -> None:
    text = write(tmp_path / "text", ["A dog."])
    (tmp_path / "model").mkdir()
    weights = write(tmp_path / "model" / "model.safetensors", ["weights"])
    words = ["evaluate", "--model", tmp_path / "model", "--source", text, "--reference", text]
    for own in (text, weights):
        before = own.read_bytes()
        assert "is what is evaluated" in mistake(*words, "--output", own)
        assert own.read_bytes() == before
