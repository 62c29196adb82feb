"""Preparing a corpus from all kinds of input, by several processes, with a given vocabulary."""

import gzip
import io
import logging
import lzma
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import train.corpora.blocks
import train.corpora.preparation
from npformer import Transformer, TransformerConfig
from npformer.checkpoint import save_model
from npformer.errors import UserError
from tests.train.small_corpus import PAIRS, write
from train.cli.display import counting_stages
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.corpora.text import survey_parallel


def arrays(corpus: Corpus) -> dict[str, Any]:
    contents: dict[str, Any] = corpus.manifest["contents"]
    return contents


def test_the_number_of_processes_changes_no_byte(
    texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = prepare(*texts, tmp_path / "one", vocab_size=300, keep_text=True)
    monkeypatch.setattr(train.corpora.blocks, "LINES", 5)
    monkeypatch.setattr(train.corpora.preparation, "LINES", 5)
    other = prepare(*texts, tmp_path / "other", vocab_size=300, keep_text=True, jobs=3)
    assert set(os.listdir(one.directory)) == set(os.listdir(other.directory))
    for path in one.directory.iterdir():
        assert path.read_bytes() == (other.directory / path.name).read_bytes()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_that_changes_while_it_is_read_is_named(
    texts: list[Path], tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.corpora.blocks, "LINES", 3)
    monkeypatch.setattr(train.corpora.preparation, "LINES", 3)
    for content, word in (
        (b"x\xff" * 9 + b"\n" * 36, r"train\.en, line 1: byte 2 .* is not UTF-8"),
        (b"one line\n", "has changed while it was read"),
        (b"a line\n" * 37, "has changed while it was read"),
    ):

        def change(stage: str, done: int, total: int, content: bytes = content) -> None:
            if (stage, done) == ("vocabulary", total):
                texts[0].write_bytes(content)

        before = texts[0].read_bytes()
        with pytest.raises(UserError, match=word):
            prepare(*texts, tmp_path / "corpus", vocab_size=300, jobs=jobs, progress=change)
        texts[0].write_bytes(before)
        assert set(os.listdir(tmp_path)) == {path.name for path in texts}


def test_compressed_text_and_standard_input_give_the_same_corpus(
    prepared: Corpus, texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "train.de.xz"
    packed.write_bytes(lzma.compress(texts[1].read_bytes()))
    stream = io.BytesIO(gzip.compress(texts[0].read_bytes()))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(stream))
    other = prepare("-", packed, *texts[2:], tmp_path / "other", vocab_size=300)
    assert arrays(other) == arrays(prepared)
    files = other.manifest["files"]["train"]
    assert files["source"][0]["path"] == "-"
    assert files["target"][0]["bytes"] == packed.stat().st_size
    assert files["target"][0]["characters"] == sum(len(t) for _, t in PAIRS)
    assert not [name for name in os.listdir(other.directory) if "spool" in name]


def test_what_a_file_shows_is_where_it_is(texts: list[Path], tmp_path: Path) -> None:
    """Examples name the file as it was given, and the line in it."""
    more = [write(tmp_path / "more.en", ["A dog", ""]), write(tmp_path / "more.de", ["", "x"])]
    corpus = prepare(
        [texts[0], more[0]], [texts[1], more[1]], *texts[2:], tmp_path / "c", vocab_size=300
    )
    examples = corpus.manifest["splits"]["train"]["examples"]["empty"]
    assert [(e["file"], e["line"]) for e in examples] == [(str(more[0]), 1), (str(more[0]), 2)]


@pytest.mark.parametrize("kind", ["corpus", "model", "tokenizers", "file"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_vocabulary_that_there_is_may_be_given(
    texts: list[Path], tmp_path: Path, kind: str, shared: bool
) -> None:
    first = prepare(*texts, tmp_path / "first", vocab_size=290, shared=shared)
    given = tmp_path / "given"
    if kind == "corpus":
        given = first.directory
    elif kind == "file":
        given = first.directory / ("tokenizer.spm" if shared else "source.spm")
    else:
        given.mkdir()
        first.tokenizers.save(given)
    if kind == "model":
        of_both = {"source_vocab_size": 290, "share_embeddings": "target"}
        config = TransformerConfig.preset(
            "tiny",
            layers=1,
            d_model=16,
            heads=1,
            d_ff=16,
            vocab_size=290,
            **({} if shared else of_both),
        )
        save_model(given, Transformer(config), first.tokenizers)
    corpus = prepare(*texts, tmp_path / "corpus", tokenizer=given)
    assert corpus.manifest["settings"]["tokenizer"] == str(given)
    assert "vocab_size" not in corpus.manifest["settings"]
    if shared or kind != "file":
        assert arrays(corpus) == arrays(first)
        assert corpus.manifest["tokenizers"] == first.manifest["tokenizers"]
    else:
        assert corpus.tokenizers.shared


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        ({}, "give either vocab_size.* or tokenizer"),
        ({"vocab_size": 300, "tokenizer": "corpus"}, "give either vocab_size.* or tokenizer"),
        ({"tokenizer": "none"}, "holds no tokenizer"),
        ({"tokenizer": "train.en"}, "cannot read the tokenizer .*train.en"),
        ({"tokenizer": "corpus", "algorithm": "unigram"}, "algorithm is for learning"),
        ({"tokenizer": "corpus", "shared": False}, "shared is for learning"),
        ({"vocab_size": 300, "jobs": 0}, "jobs must be at least 1"),
        ({"vocab_size": 300, "max_ratio": 0.0}, "max_ratio must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    prepared: Corpus, texts: list[Path], tmp_path: Path, settings_: dict[str, Any], word: str
) -> None:
    if "tokenizer" in settings_:
        settings_ = settings_ | {"tokenizer": tmp_path / settings_["tokenizer"]}
    with pytest.raises(UserError, match=word):
        prepare(*texts, tmp_path / "other", **settings_)
    assert not (tmp_path / "other").exists()


def test_a_damaged_vocabulary_is_refused(
    prepared: Corpus, texts: list[Path], tmp_path: Path
) -> None:
    path = prepared.directory / "tokenizer.spm"
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="has been altered"):
        prepare(*texts, tmp_path / "other", tokenizer=prepared.directory)


def test_a_disk_without_space_is_told_before_anything_is_learned(
    texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"may take up to 0\.0 MB, and there are only 0\.0 MB"):
        prepare(
            *texts, tmp_path / "c", vocab_size=300, progress=lambda stage, *_: stages.append(stage)
        )
    assert stages == []
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("keep_text", [False, True])
@pytest.mark.parametrize("line", ["狗在花园里睡觉。", "dog", "qzxj" * 9, "Ж"])
def test_the_estimate_of_space_is_an_upper_bound(
    prepared: Corpus,
    texts: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    keep_text: bool,
) -> None:
    """Also for text that the vocabulary has few subwords for, or none."""
    lines = [f"{line}{i % 10}" for i in range(200)]
    both = [write(tmp_path / "new.en", lines), write(tmp_path / "new.de", lines)]

    def again(free: int) -> Corpus:
        usage = shutil.disk_usage(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
            return prepare(
                *both,
                *both,
                tmp_path / "new",
                tokenizer=prepared.directory,
                keep_text=keep_text,
                overwrite=True,
            )

    made = again(1 << 40).directory
    taken = sum(path.stat().st_size for path in made.glob("*.npy"))
    taken += sum(path.stat().st_size for path in made.glob("*.txt"))
    headers = 128 * len(list(made.glob("*.npy")))
    with pytest.raises(UserError, match="may take up to"):
        again(taken - headers - 1)
    size = sum(2 * path.stat().st_size + 2 * 16 * len(lines) for path in both)
    again(4 * size)


def test_the_estimate_of_space_counts_the_bytes_of_an_id(
    texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = survey_parallel(texts[:1], texts[1:2])
    files = {"train": found, "valid": ([], [])}
    tokens = sum(texts[side].stat().st_size for side in (0, 1))
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * tokens + 2 * 8 * (len(PAIRS) + 1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    train.corpora.preparation._check_space(tmp_path, files, 1 << 16, False, False)
    with pytest.raises(UserError, match="may take up to"):
        train.corpora.preparation._check_space(tmp_path, files, (1 << 16) + 1, False, False)


def test_standard_input_without_space_for_its_copy_is_told_before_it_is_copied(
    texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with open(texts[0], encoding="utf-8") as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(UserError, match=r"standard input has 0\.0 MB, of which"):
            prepare("-", *texts[1:], tmp_path / "c", vocab_size=300)
        assert file.buffer.tell() == 0


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([], "is empty"),
        ([""], "no line can be used"),
        (["\u2028 "] * 9, "no line can be used"),
        (["One sentence is not a corpus."], "too large for this text"),
    ],
)
def test_a_text_that_is_too_small_is_refused(
    texts: list[Path], tmp_path: Path, lines: list[str], word: str
) -> None:
    both = [write(tmp_path / name, lines) for name in ("few.en", "few.de")]
    for algorithm in ("bpe", "unigram"):
        with pytest.raises(UserError, match=word):
            prepare(*both, *texts[2:], tmp_path / "corpus", vocab_size=8000, algorithm=algorithm)


def test_a_single_pair_is_a_corpus(texts: list[Path], tmp_path: Path) -> None:
    one = [write(tmp_path / "one.en", ["A dog."]), write(tmp_path / "one.de", ["Ein Hund."])]
    corpus = prepare(*one, *one, tmp_path / "corpus", vocab_size=275)
    assert len(corpus.train) == len(corpus.valid) == 1


def test_progress_tells_the_rate_and_what_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 105.0, 110.0, 115.0, 121.0, 121.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with counting_stages() as report:
        for done in (0, 900, 2000, 2500, 3150):
            report("train", done, 9000)
        report("valid", 0, 10)
    assert capsys.readouterr().err.split("\n") == [
        "train: 9,000 pairs",
        "train: 2,000 of 9,000 pairs, 200 a second, 0:00:35 left",
        "train: 3,150 of 9,000 pairs, 150 a second, 0:00:39 left",
        "valid: 10 pairs",
        "",
    ]


def test_what_was_dropped_is_told_in_a_line_for_each_reason(
    texts: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(texts[0], ["", *(s for s, _ in PAIRS[1:-1]), "long " * 300])
    with caplog.at_level(logging.WARNING, "npformer"):
        prepare(*texts, tmp_path / "corpus", vocab_size=300)
    assert [r.getMessage() for r in caplog.records if "dropped" in r.getMessage()] == [
        "train: of 36 pairs, dropped 1 empty on a side",
        "train: of 36 pairs, dropped 1 longer than 256 tokens",
        "valid: of 3 pairs, dropped 1 empty on a side",
    ]


@pytest.mark.parametrize("limit", [40, 2 * len(PAIRS)])
def test_a_vocabulary_of_some_of_the_lines_is_told(
    texts: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    with caplog.at_level(logging.WARNING, "npformer"):
        prepare(*texts, tmp_path / "corpus", vocab_size=300, vocabulary_lines=limit)
    told = [m for m in caplog.messages if m.startswith("vocabulary:")]
    assert told == (
        [
            "vocabulary: it is learned from 40 of the 72 lines, evenly spaced; "
            "vocabulary_lines may be raised, and with it the memory"
        ]
        if limit == 40
        else []
    )


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "-"])
def test_standard_input_is_one_file_under_all_its_names(
    texts: list[Path], tmp_path: Path, name: str
) -> None:
    """A file that is redirected could be read twice, and would be its own translation."""
    with pytest.raises(UserError, match="standard input, -, is given more than once"):
        prepare("-", name, *texts[2:], tmp_path / "corpus", vocab_size=300)
