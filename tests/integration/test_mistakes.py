"""Mistakes that need no trained model: each gets one line, and leaves nothing behind."""

from __future__ import annotations

import logging
import os
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.integration.command_line import mistake, prepare_words, run, write

pytestmark = pytest.mark.integration


class TestDemo:
    def test_a_directory_with_other_files_is_refused(self, tmp_path: Path) -> None:
        mine = write(tmp_path / "thesis.txt", ["mine"])
        message = mistake("demo", "--out", tmp_path)
        assert "holds no demonstration" in message
        assert mine.read_text() == "mine\n"
        assert list(tmp_path.iterdir()) == [mine]

    def test_the_minutes_must_be_positive(self, tmp_path: Path) -> None:
        assert "--minutes" in mistake("demo", "--minutes", 0, "--out", tmp_path / "demo")
        assert not (tmp_path / "demo").exists()

    @pytest.mark.parametrize("minutes", ["nan", ".nan", ".inf", "-3"])
    def test_the_minutes_must_be_a_number(self, tmp_path: Path, minutes: str) -> None:
        out = tmp_path / "demo"
        assert "minutes must be a number" in mistake("demo", f"--minutes={minutes}", "--out", out)
        assert not out.exists()

    def test_a_file_that_the_demonstration_did_not_make_is_named_and_kept(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "npformer-demo").touch()
        mine = [tmp_path / "run" / "model.safetensors", tmp_path / "thesis.txt"]
        mine[0].parent.mkdir()
        for file in mine:
            file.write_text("mine")
        message = mistake("demo", "--out", tmp_path)
        assert f"{mine[0]} was not written by npformer" in message
        assert [file.read_text() for file in mine] == ["mine", "mine"]

    def test_multi30k_without_a_network_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(*_: object, **__: object) -> None:
            # As urllib raises it; other errors are tried again, after pauses.
            raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

        monkeypatch.setattr(urllib.request, "urlopen", unreachable)
        message = mistake("demo", "--data", "multi30k", "--out", tmp_path / "demo")
        assert "cannot download https://" in message
        assert "Name or service not known" in message
        assert "connect to the network" in message

    def test_a_file_that_the_user_downloaded_is_verified(self, tmp_path: Path) -> None:
        (tmp_path / "multi30k" / "downloads").mkdir(parents=True)
        (tmp_path / "npformer-demo").touch()
        put = write(tmp_path / "multi30k" / "downloads" / "train.lc.norm.tok.en", ["another text"])
        message = mistake("demo", "--data", "multi30k", "--out", tmp_path)
        assert f"{put} is not the expected file" in message

    def test_a_dataset_without_a_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(*_: object, **__: object) -> None:
            raise urllib.error.URLError(ConnectionRefusedError("no way"))

        monkeypatch.setattr(urllib.request, "urlopen", unreachable)
        message = mistake("fetch", "iwslt14", "--out", tmp_path)
        assert "de-en.tgz (no way); connect to the network, or put the file into" in message
        assert "invalid choice: 'wmt15' (choose from 'multi30k'," in mistake("fetch", "wmt15")


class TestMistakes:
    """Each gets one line on standard error, exit status 2, and leaves nothing behind."""

    def test_attention_of_two_models_is_refused(self, tmp_path: Path) -> None:
        words = ("plot", tmp_path, tmp_path / "b", "--attention", "A dog.", "--out", "a.png")
        assert "--attention is drawn for one model" in mistake(*words)

    def test_different_numbers_of_lines_are_refused(self, tmp_path: Path) -> None:
        self._files(tmp_path, ["a b c"] * 3, ["d e f"] * 2)
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "3 lines" in message
        assert "has 2" in message
        assert not (tmp_path / "c").exists()

    def test_bytes_that_are_not_utf8_are_located(self, tmp_path: Path) -> None:
        self._files(tmp_path, ["a", "b"], ["d", "e"])
        (tmp_path / "train.de").write_bytes(b"gut\nsch\xf6n\n")
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "line 2" in message
        assert "0xf6" in message

    def test_an_empty_file_is_refused(self, tmp_path: Path) -> None:
        self._files(tmp_path, [], [])
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "is empty" in message

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 300, "--out", tmp_path / "c")
        assert "train.en" in message

    def test_a_vocabulary_too_large_is_refused(self, tmp_path: Path) -> None:
        self._files(tmp_path, ["a b c"] * 3, ["d e f"] * 3)
        message = mistake(*prepare_words(tmp_path), "--vocab-size", 9000, "--out", tmp_path / "c")
        assert "too large" in message

    def test_a_missing_model_is_refused(self, tmp_path: Path) -> None:
        assert "no model directory" in mistake("translate", "--model", tmp_path / "none")
        assert "config.json" in mistake("translate", "--model", tmp_path)

    def test_a_missing_corpus_is_refused(self, tmp_path: Path) -> None:
        mistake("train", "--data", tmp_path, "--out", tmp_path / "run")

    def test_a_missing_run_cannot_be_resumed(self, tmp_path: Path) -> None:
        words = ["train", "--resume", "--data", tmp_path, "--out", tmp_path / "none"]
        assert "no run to resume" in mistake(*words)

    def test_rare_characters_may_be_encoded_as_bytes(self, tmp_path: Path) -> None:
        rare = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
        self._files(tmp_path, ["ab " * 1000] * 10 + [rare], ["ab"] * 10 + ["ba"])
        words = [*prepare_words(tmp_path), "--vocab-size", 265, "--out", tmp_path / "c"]
        assert "362 or more, or lower the character coverage from 1" in mistake(*words)
        run(*words, "--character-coverage", 0.98, "--max-length", 5000)

    def test_text_from_a_pipe_is_read_once(self, tmp_path: Path) -> None:
        """So is standard input, which can be given once."""
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
    def test_an_invalid_length_penalty_is_refused(self, tmp_path: Path, number: str) -> None:
        message = mistake("translate", "--model", tmp_path, f"--length-penalty={number}")
        assert "length_penalty must be " in message

    def test_an_unknown_command_or_flag_is_refused(self) -> None:
        mistake("trian")
        mistake("translate", "--model", "x", "--baem", "4")

    def test_what_is_missing_is_named(self) -> None:
        assert "data and out must be given" in mistake("train")

    @pytest.mark.parametrize(
        "words", [["--conf", "settings.yaml"], ["--resum"], ["--init=model"], ["--max-st=3"]]
    )
    def test_an_abbreviated_flag_is_refused(self, tmp_path: Path, words: list[str]) -> None:
        """The settings of a file or a run come in for the whole names alone."""
        told = mistake("train", "--data", tmp_path, "--out", tmp_path / "run", *words)
        assert "unrecognized arguments: --" in told

    def test_without_a_command_the_help_is_shown(self) -> None:
        assert b"prepare" in run()

    def test_messages_about_compiling_loops_are_logged(self) -> None:
        logging.getLogger("autograd").setLevel(logging.NOTSET)
        run()
        assert logging.getLogger("autograd").isEnabledFor(logging.INFO)

    def _files(self, folder: Path, source: list[str], target: list[str]) -> None:
        for name in ("train", "valid"):
            write(folder / f"{name}.en", source)
            write(folder / f"{name}.de", target)


def test_evaluate_does_not_overwrite_its_inputs(tmp_path: Path) -> None:
    text = write(tmp_path / "text", ["A dog."])
    (tmp_path / "model").mkdir()
    weights = write(tmp_path / "model" / "model.safetensors", ["weights"])
    words = ["evaluate", "--model", tmp_path / "model", "--source", text, "--reference", text]
    for input_file in (text, weights):
        before = input_file.read_bytes()
        assert "is what is evaluated" in mistake(*words, "--output", input_file)
        assert input_file.read_bytes() == before
