"""npformer shortlist, and what translate and evaluate make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from npformer import Translator
from npformer.checkpoint import SHORTLIST
from tests.integration.command_line import mistake, npformer, run
from tests.npformer.test_translator import make_translator, save

pytestmark = pytest.mark.integration


@pytest.fixture
def model(trained: Path) -> Path:
    (trained / SHORTLIST).unlink(missing_ok=True)
    return trained


def test_a_run_gets_a_shortlist_of_its_corpus(folder: Path, model: Path) -> None:
    done = npformer("shortlist", "--model", model, "--data", folder / "corpus", "--best", 10)
    assert (done.status, done.stdout) == (0, b"")
    assert f"{model}: a shortlist learned from" in done.stderr
    of_corpus = (model / SHORTLIST).read_bytes()
    source, target = folder / "train.en", folder / "train.de"
    run("shortlist", "--model", model, "--source", source, "--target", target, "--best", 10)
    assert (model / SHORTLIST).read_bytes() == of_corpus

    text = b"A dog runs.\n\n\xf0\x9f\xa6\x93 17\n"
    found = run("translate", "--model", model, "--shortlist", "--extra-length", 5, stdin=text)
    expected = Translator.load(model).translate(
        ["A dog runs.", "", "🦓 17"], shortlist=True, extra_length=5
    )
    assert found.decode() == "".join(f"{t.text}\n" for t in expected)
    few = ["--shortlist", "--weights", "int8", "--extra-length", 5]
    found = run("translate", "--model", model, *few, stdin=text)
    expected = Translator.load(model, weights="int8").translate(
        ["A dog runs.", "", "🦓 17"], shortlist=True, extra_length=5
    )
    assert found.decode() == "".join(f"{t.text}\n" for t in expected)
    words = ["--source", folder / "valid.en", "--reference", folder / "valid.de"]
    scores = run("evaluate", "--model", model, "--shortlist", "--beam", 1, *words)
    assert b"BLEU = " in scores


def test_without_a_shortlist_it_is_said_how_to_make_one(model: Path) -> None:
    said = mistake("translate", "--model", model, "--shortlist")
    assert f"make one with npformer shortlist --model {model}" in said


def test_text_or_a_corpus_is_needed(folder: Path, model: Path, tmp_path: Path) -> None:
    words, source = ["shortlist", "--model", model], folder / "train.en"
    assert "--data" in mistake(*words)
    assert "--data" in mistake(*words, "--data", folder / "corpus", "--source", source)
    assert "given together" in mistake(*words, "--source", source)
    fewer = folder / "valid.de"
    assert "lines" in mistake(*words, "--source", source, "--target", fewer)
    assert "is this the directory of a model?" in mistake(
        "shortlist", "--model", tmp_path / "x", "--data", source
    )
    assert not (model / SHORTLIST).exists()


def test_the_shortlist_of_another_vocabulary_is_refused(model: Path, folder: Path) -> None:
    other = make_translator()
    directory = save(folder / "another", other.model, other.tokenizers)
    run("shortlist", "--model", model, "--data", folder / "corpus")
    (directory / SHORTLIST).write_bytes((model / SHORTLIST).read_bytes())
    said = mistake("translate", "--model", directory, "--shortlist")
    assert "belongs to a model of another vocabulary" in said
