"""A model of another program is trained further: what its users do first."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Translator
from npformer.formats.exporting import export_model
from npformer.formats.importing import import_model
from tests.formats.foreign import TAG, lines, marian_model
from tests.formats.test_marian_npz import marian
from train.__main__ import main
from train.cli.pairs import Pairs
from train.corpora.corpus import Corpus
from train.corpora.sampling import Sampler
from train.evaluation import likelihood

TEXT = [f"{TAG} {line}" if i % 2 else line for i, line in enumerate(lines(40))]


@pytest.fixture(params=["Hugging Face's", "two vocabularies", "Marian's"])
def imported(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "Marian's":
        marian(tmp_path / "theirs")
    else:
        separate = request.param == "two vocabularies"
        marian_model(tmp_path / "theirs", separate=separate, dropout=0.0)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    return tmp_path / "ours"


def prepared(imported: Path, directory: Path) -> Corpus:
    directory.mkdir(exist_ok=True)
    for name, text in (("source", TEXT), ("target", lines(40, seed=1))):
        (directory / name).write_text("\n".join(text) + "\n")
    files = [
        word
        for split in ("train", "valid")
        for side in ("source", "target")
        for word in (f"--{split}_{side}", str(directory / side))
    ]
    own = ["--tokenizer", str(imported), "--keep-text", "--out", str(directory / "corpus")]
    assert main(["prepare", *files, *own, "--max_length", "50"]) == 0
    return Corpus.open(directory / "corpus")


def test_a_model_goes_on_where_it_was(imported: Path, tmp_path: Path) -> None:
    corpus = prepared(imported, tmp_path / "text")
    ours = Translator.load(imported)
    for side, text in (("source", TEXT), ("target", lines(40, seed=1))):
        tokenizer = getattr(ours.tokenizers, side)
        found = getattr(corpus.train, side)(3).tolist()
        assert found == tokenizer.encode(text[3])

    run = str(tmp_path / "run")
    words = ["train", "--data", str(corpus.directory), "--out", run, "--batch_tokens", "400"]
    begun = [
        *words,
        "--init-from",
        str(imported),
        "--max_steps",
        "2",
        "--schedule",
        "constant",
        "--warmup",
        "4",
    ]
    assert main([*begun, "--peak_rate", "0", "--model.dropout", "0"]) == 0
    tuned = Translator.load(run)
    assert tuned.model.config.suppressed_ids == ours.model.config.suppressed_ids
    assert tuned.longest_source == ours.longest_source
    expected = [t.text for t in ours.translate(TEXT[:5], extra_length=5)]
    assert [t.text for t in tuned.translate(TEXT[:5], extra_length=5)] == expected

    assert main([*words, "--resume", "--max_steps", "20", "--peak_rate", "0.01"]) == 0
    pairs = Pairs(ours, TEXT, lines(40, seed=1))
    before, after = (
        likelihood(t.model, [pairs.batch(range(40))]).nll for t in (ours, Translator.load(run))
    )
    assert after < before - 0.2
    if tuned.model.config.decoder_start == "token":
        export_model(run, tmp_path / "out", "marian")


def test_segmentations_are_sampled_with_the_ids_of_the_model(
    imported: Path, tmp_path: Path
) -> None:
    corpus = prepared(imported, tmp_path / "text")
    words = ["--data", str(corpus.directory), "--init-from", str(imported), "--jobs", "1"]
    more = ["--sampling", "0.02", "--max_steps", "2", "--out", str(tmp_path / "run")]
    assert main(["train", *words, *more]) == 0
    sampler = Sampler(corpus.train, corpus.train_text(), corpus.tokenizers, 0.02, seed=0)
    [sampled] = sampler.sample(0, np.arange(len(corpus.train)))
    source = corpus.tokenizers.source
    for i in range(10):
        usual = source.decode(corpus.train.source(i).tolist())
        assert source.decode(sampled.source(i).tolist()) == usual
    assert any(
        sampled.source(i).tolist() != corpus.train.source(i).tolist() for i in range(len(TEXT))
    )


def test_another_tokenizer_is_refused_in_one_line(
    imported: Path, tmp_path: Path, capfd: Any
) -> None:
    corpus = prepared(imported, tmp_path / "text")
    again = tmp_path / "again"
    assert main(["import", str(tmp_path / "theirs"), "--out", str(again)]) == 0
    path = again / "source.vocab.json"
    path.write_text(path.read_text().replace("house", "horse"))
    capfd.readouterr()
    words = ["train", "--data", str(corpus.directory), "--init-from", str(again)]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    message = capfd.readouterr().err
    assert message.count("\n") == 1
    assert "altered, or belongs to another" in message


def test_a_corpus_is_not_prepared_with_what_was_not_imported(
    imported: Path, tmp_path: Path, capfd: Any
) -> None:
    """Its SentencePiece models alone would give token ids that the model knows otherwise."""
    (tmp_path / "text").write_text("the dog sleeps.\n")
    text = [
        word
        for split in ("train", "valid")
        for side in ("source", "target")
        for word in (f"--{split}_{side}", str(tmp_path / "text"))
    ]
    theirs, out = str(imported.with_name("theirs")), tmp_path / "corpus"
    assert main(["prepare", *text, "--tokenizer", theirs, "--out", str(out)]) == 2
    assert f"{theirs} holds a model of another program" in capfd.readouterr().err
    assert not out.exists()
