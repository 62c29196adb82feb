"""The command line, driven as a user drives it: from text files to a score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from npformer import Translator
from tests.real_text import multi30k, needs_real_text
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


def npformer(*words: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "train", *map(str, words)],
        input=stdin,
        capture_output=True,
        timeout=240,
    )


def run(*words: object, stdin: bytes = b"") -> bytes:
    """Standard output of a command that must succeed."""
    done = npformer(*words, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def mistake(*words: object, stdin: bytes = b"") -> str:
    """The one line with which a command refuses."""
    done = npformer(*words, stdin=stdin)
    message = done.stderr.decode()
    assert done.returncode == 2, message
    assert "Traceback" not in message
    last = message.rstrip("\n").split("\n")[-1]
    assert last.startswith("npformer: error: ")
    return last


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text files, and the corpus made of them."""
    folder = tmp_path_factory.mktemp("work")
    for name, split, first, count in (
        ("train", "train", 0, 300),
        ("valid", "val", 0, 40),
        ("test", "test_2016_flickr", 0, 30),
    ):
        for language in ("en", "de"):
            write(folder / f"{name}.{language}", multi30k(split, language, first, count))
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


@needs_real_text
class TestOnRealText:
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

    def test_crlf_is_told_and_stripped(self, trained: Path) -> None:
        unix = run("translate", "--model", trained, stdin=b"a dog .\na cat .\n")
        done = npformer("translate", "--model", trained, stdin=b"a dog .\r\na cat .\r\n")
        assert done.stdout == unix
        assert b"2 of 2 lines end in CRLF" in done.stderr

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

    def test_a_run_is_not_overwritten(self, folder: Path, trained: Path) -> None:
        message = mistake("train", "--data", folder / "corpus", "--out", trained)
        assert "--resume" in message

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

    def test_an_unknown_setting_is_named(self, folder: Path) -> None:
        words = ["train", "--data", folder / "corpus", "--out", folder / "never"]
        config = write(folder / "wrong.yaml", ["warm_up: 3"])
        assert "warm_up" in mistake(*words, "--config", config)
        assert "model.heads" in mistake(*words, "--model.heads", "many")
        assert "divisible" in mistake(*words, "--model.heads", 7)
        assert not (folder / "never").exists()

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

    def test_an_unknown_command_or_flag(self) -> None:
        mistake("trian")
        mistake("translate", "--model", "x", "--baem", "4")

    def test_nothing_is_said_without_a_command_but_the_help(self) -> None:
        assert b"prepare" in run()

    def _files(self, folder: Path, source: list[str], target: list[str]) -> None:
        for name in ("train", "valid"):
            write(folder / f"{name}.en", source)
            write(folder / f"{name}.de", target)
