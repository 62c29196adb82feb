"""Mistakes that need no trained model: each gets one line, and leaves nothing behind."""

from __future__ import annotations

import io
import logging
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.integration.command_line import mistake, prepare_words, run, write

pytestmark = pytest.mark.integration


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
        """A named pipe is read once, and so is standard input, which can be given once."""
        self._files(tmp_path, ["a b c"] * 30, ["b c d"] * 30)
        (tmp_path / "train.en").unlink()
        os.mkfifo(tmp_path / "train.en")
        words = [*prepare_words(tmp_path), "--vocab-size", 264, "--out", tmp_path / "c"]
        content = (b"a b c\n" * 30,)
        writer = threading.Thread(target=(tmp_path / "train.en").write_bytes, args=content)
        writer.start()
        run(*words)
        writer.join()
        words = [w if w != tmp_path / "train.en" else "-" for w in words]
        words = [w if w != tmp_path / "valid.en" else "-" for w in words]
        assert "standard input, -, is given more than once" in mistake(*words, "--overwrite")

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
