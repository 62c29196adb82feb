"""Preparing a corpus: it holds the whole text, is written atomically, replaces no other files."""

import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import train.corpora.arrays
import train.corpora.blocks
import train.corpora.manifest
import train.corpora.preparation
from npformer.errors import UserError
from tests.train.small_corpus import PAIRS, VALID, write
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.corpora.text import TextFile

on_disk = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_corpus_holds_the_text_as_token_ids(prepared: Corpus) -> None:
    assert len(prepared.train) == len(PAIRS)
    source, target = prepared.tokenizers.source, prepared.tokenizers.target
    for i, (english, german) in enumerate(PAIRS):
        assert prepared.train.source(i).tolist() == source.encode(english)
        assert target.decode(prepared.train.target(i)) == german
        assert prepared.train.source_lengths[i] == len(prepared.train.source(i))
        assert prepared.train.target_lengths[i] == len(prepared.train.target(i))
    assert prepared.train.sources.tokens.dtype == np.uint16


def test_the_validation_text_is_saved_unchanged(prepared: Corpus) -> None:
    assert prepared.valid_text() == ([s for s, _ in VALID], [t for _, t in VALID])
    assert len(prepared.valid) == 2
    assert prepared.manifest["splits"]["valid"]["dropped"] == {"empty": 1, "too_long": 0}


def test_marks_of_other_systems_within_a_validation_line_are_kept(
    prepared: Corpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The marks of the file itself are left out, once: what comes then is text."""
    files = [
        write(tmp_path / "odd.en", ["\ufeff\ufeffA dog runs.", "Two\r girls\r"], end="\r\n"),
        write(tmp_path / "odd.de", ["Ein Hund rennt.", "Zwei\u2028\0Mädchen"]),
    ]
    corpus = prepare(*files, *files, tmp_path / "odd", tokenizer=prepared.directory)
    caplog.clear()
    assert corpus.valid_text() == (
        ["\ufeffA dog runs.", "Two\r girls\r"],
        ["Ein Hund rennt.", "Zwei\u2028\0Mädchen"],
    )
    assert not caplog.records


def test_the_manifest_records_settings_counts_and_source_files(
    prepared: Corpus, texts: list[Path]
) -> None:
    manifest = prepared.manifest
    assert manifest["settings"]["vocab_size"] == 300
    assert manifest["vocabulary"] == {"shared": True, "source": 300, "target": 300}
    train = manifest["splits"]["train"]
    assert train["pairs"] == len(PAIRS)
    assert train["source_tokens"] == prepared.train.source_lengths.sum()
    (source_file,) = manifest["files"]["train"]["source"]
    assert source_file["path"] == str(texts[0])
    assert source_file["lines"] == len(PAIRS)
    assert source_file["bytes"] == texts[0].stat().st_size
    assert len(source_file["sha256"]) == 64


def test_preparing_twice_gives_the_same_bytes(
    prepared: Corpus, texts: list[Path], tmp_path: Path
) -> None:
    again = prepare(*texts, tmp_path / "again", vocab_size=300)
    assert contents(again.directory) == contents(prepared.directory)


def test_no_temporary_files_are_left_behind(
    prepared: Corpus, texts: list[Path], tmp_path: Path
) -> None:
    assert set(os.listdir(tmp_path)) == {"corpus", *(path.name for path in texts)}
    assert set(os.listdir(prepared.directory)) == {
        *train.corpora.manifest.CONTENTS,
        "tokenizer.spm",
        "manifest.json",
    }


def test_source_and_target_may_have_separate_vocabularies(
    texts: list[Path], tmp_path: Path
) -> None:
    corpus = prepare(*texts, tmp_path / "corpus", vocab_size=290, shared=False)
    assert not corpus.tokenizers.shared
    assert corpus.tokenizers.target.decode(corpus.train.target(0)) == PAIRS[0][1]
    assert (corpus.directory / "target.spm").exists()


def test_several_files_make_one_corpus(prepared: Corpus, texts: list[Path], tmp_path: Path) -> None:
    english, german = [s for s, _ in PAIRS], [t for _, t in PAIRS]
    parts = prepare(
        [write(tmp_path / "1.en", english[:5]), write(tmp_path / "2.en", english[5:])],
        [write(tmp_path / "1.de", german[:5]), write(tmp_path / "2.de", german[5:])],
        *texts[2:],
        tmp_path / "parts",
        vocab_size=300,
    )
    for name, content in contents(parts.directory).items():
        if name != "manifest.json":
            assert content == (prepared.directory / name).read_bytes()


def test_token_ids_beyond_16_bits_are_saved_with_32(tmp_path: Path) -> None:
    for vocab_size, dtype in ((1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)):
        with train.corpora.arrays.SentencesWriter(tmp_path, "x", vocab_size) as out:
            out.append(np.array([vocab_size - 1, 1, 2]), np.array([1, 2]))
            out.append(np.array([]), np.array([], int))
            out.append(np.array([3]), np.array([1]))
        tokens = np.load(tmp_path / "x.tokens.npy")
        assert tokens.dtype == dtype
        assert tokens.tolist() == [vocab_size - 1, 1, 2, 3]
        assert np.load(tmp_path / "x.offsets.npy").tolist() == [0, 1, 3, 4]


AWKWARD = [
    ("a\x85b\u2028c", "Windows\r"),
    ("nul\0nul", "form\x0cfeed"),
    ("&amp;", "ends in spaces   "),
    ("", "no source"),
    ("no target", "   "),
    ("\u2028", "one separator, which normalization empties"),
    ("long " * 50, "lang"),
]


@given(st.lists(st.sampled_from(PAIRS + AWKWARD), min_size=1, max_size=30), st.integers(1, 40))
@on_disk
def test_every_pair_is_kept_or_counted_as_dropped(
    tmp_path: Path, pairs: list[tuple[str, str]], max_length: int
) -> None:
    pairs = [*pairs, ("a", "b")]
    directory = tmp_path / "property"
    shutil.rmtree(directory, ignore_errors=True)
    files = [
        write(tmp_path / "s", [s for s, _ in pairs], "\r\n"),
        write(tmp_path / "t", [t for _, t in pairs]),
        write(tmp_path / "vs", ["a"]),
        write(tmp_path / "vt", ["b"]),
    ]
    whole = "\n".join(s + t for s, t in pairs)
    size = 262 + len(set(whole))
    try:
        corpus = prepare(*files, directory, vocab_size=size, max_length=max_length)
    except UserError as error:  # too small a text for this vocabulary, or no pair left
        event("refused")
        if not any(reason in str(error) for reason in ("a vocabulary of", "no pair")):
            raise
        return
    encode = corpus.tokenizers.source.encode
    encoded = [(encode(s.removesuffix("\r")), encode(t.removesuffix("\r"))) for s, t in pairs]
    kept = [(s, t) for s, t in encoded if s and t and max(len(s), len(t)) <= max_length]
    empty = sum(1 for s, t in encoded if not s or not t)
    found = [
        (corpus.train.source(i).tolist(), corpus.train.target(i).tolist())
        for i in range(len(corpus.train))
    ]
    assert found == kept
    dropped = {"empty": empty, "too_long": len(pairs) - len(kept) - empty}
    assert corpus.manifest["splits"]["train"]["dropped"] == dropped


@pytest.mark.parametrize("lines", [1, 5, 36, 1000])
def test_the_corpus_does_not_depend_on_the_size_of_a_block(
    prepared: Corpus, texts: list[Path], tmp_path: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.corpora.blocks, "LINES", lines)
    other = prepare(*texts, tmp_path / "other", vocab_size=300)
    assert contents(other.directory) == contents(prepared.directory)


@given(st.integers(1, 60), st.integers(1, 60))
@on_disk
def test_the_vocabulary_learns_from_evenly_spaced_lines(
    tmp_path: Path, total: int, limit: int
) -> None:
    path = write(tmp_path / "numbers", [str(i) for i in range(total)])
    file = TextFile(str(path), total, 0, 0, "")
    numbers = [
        int(line)
        for line in train.corpora.preparation._evenly_spaced([file], limit, lambda *_: None)
    ]
    assert len(numbers) == min(limit, total)
    gaps = np.diff([-1, *numbers, total])
    assert gaps.max() - gaps[:-1].min() <= 1 + total // limit


def test_progress_reaches_the_end_of_each_stage(texts: list[Path], tmp_path: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    prepare(*texts, tmp_path / "corpus", vocab_size=300, progress=lambda *p: reports.append(p))
    stages = {stage: (done, total) for stage, done, total in reports}
    lines = len(PAIRS)
    assert list(stages.items()) == [
        ("vocabulary", (2 * lines, 2 * lines)),
        ("train", (lines, lines)),
        ("valid", (3, 3)),
    ]


def test_a_corpus_is_replaced_only_on_request(
    prepared: Corpus, texts: list[Path], tmp_path: Path
) -> None:
    before = contents(prepared.directory)
    with pytest.raises(UserError, match="already holds a prepared corpus"):
        prepare(*texts, prepared.directory, vocab_size=290)
    assert contents(prepared.directory) == before
    prepare(*texts, prepared.directory, vocab_size=290, overwrite=True)
    assert Corpus.open(prepared.directory).manifest["vocabulary"]["source"] == 290
    assert set(os.listdir(tmp_path)) == {"corpus", *(path.name for path in texts)}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"format": "other"}'])
def test_a_corpus_with_a_damaged_manifest_may_be_replaced(
    prepared: Corpus, texts: list[Path], content: bytes
) -> None:
    (prepared.directory / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="already holds a prepared corpus"):
        prepare(*texts, prepared.directory, vocab_size=290)
    (prepared.directory / "notes").write_text("precious")
    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, prepared.directory, vocab_size=290, overwrite=True)
    (prepared.directory / "notes").unlink()
    prepare(*texts, prepared.directory, vocab_size=290, overwrite=True)
    assert Corpus.open(prepared.directory).manifest["vocabulary"]["source"] == 290


def test_a_manifest_of_another_program_is_not_replaced(tmp_path: Path, texts: list[Path]) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "manifest.json").write_text('{"my": "manifest"}')
    (out / "valid.source.txt").write_text("precious")
    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, out, vocab_size=290, overwrite=True)
    assert (out / "valid.source.txt").read_text() == "precious"


def test_a_folder_in_the_place_of_a_file_is_not_replaced(
    prepared: Corpus, texts: list[Path]
) -> None:
    mine = prepared.directory / "valid.source.txt" / "mine"
    mine.parent.unlink()
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(UserError, match=r"valid\.source\.txt is not a file of a corpus"):
        prepare(*texts, prepared.directory, vocab_size=290, overwrite=True)
    assert mine.read_text() == "precious"


def test_a_directory_without_a_manifest_is_not_replaced(
    prepared: Corpus, texts: list[Path]
) -> None:
    (prepared.directory / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, prepared.directory, vocab_size=290, overwrite=True)


def test_only_a_corpus_is_replaced(prepared: Corpus, texts: list[Path], tmp_path: Path) -> None:
    again = partial(prepare, *texts, vocab_size=300, overwrite=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("precious")
    with pytest.raises(UserError, match="not a prepared corpus"):
        again(tmp_path / "home")
    (prepared.directory / "notes").write_text("precious")
    with pytest.raises(UserError, match="also holds 'notes'"):
        again(prepared.directory)
    with pytest.raises(UserError, match="is a file"):
        again(texts[0])
    assert (prepared.directory / "notes").read_text() == "precious"


def test_a_corpus_may_be_written_to_an_empty_directory(texts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert len(prepare(*texts, tmp_path / "new", vocab_size=300).train) == len(PAIRS)


def test_a_kill_leaves_no_incomplete_corpus(texts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    program = f"""
import os, signal
from train.corpora.preparation import prepare
def kill(stage, done, total):
    if stage == "valid":
        os.kill(os.getpid(), signal.SIGKILL)
prepare(*{[str(path) for path in texts]}, {str(out)!r}, vocab_size=300, progress=kill)
"""
    root = Path(train.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(prepare(*texts, out, vocab_size=300).train) == len(PAIRS)
    assert set(os.listdir(tmp_path)) == {"corpus", *(path.name for path in texts)}


def test_the_error_names_a_corpus_that_a_kill_left_aside(prepared: Corpus) -> None:
    """Where names cannot be exchanged at once, a kill may leave the old corpus without its name."""
    old = prepared.directory.with_name(".corpus.0123abcd.old")
    prepared.directory.rename(old)
    with pytest.raises(UserError, match=f"rename {old} to {prepared.directory}$"):
        Corpus.open(prepared.directory)


def test_a_directory_that_appears_meanwhile_is_not_replaced(
    texts: list[Path], tmp_path: Path
) -> None:
    def meanwhile(stage: str, done: int, total: int) -> None:
        if stage == "valid" and done == total:
            (tmp_path / "corpus").mkdir()
            (tmp_path / "corpus" / "thesis").write_text("precious")

    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, tmp_path / "corpus", vocab_size=300, progress=meanwhile)
    assert os.listdir(tmp_path / "corpus") == ["thesis"]


@pytest.mark.parametrize("failing", ["write_split", "write_text", "write_manifest"])
def test_an_interrupted_preparation_leaves_nothing(
    texts: list[Path], tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train.corpora.preparation, failing, stop)
    before = set(os.listdir(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        prepare(*texts, tmp_path / "corpus", vocab_size=300)
    assert set(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        ({"vocab_size": 100_000}, "too large"),
        ({"max_length": 0}, "max_length must be"),
        ({"max_length": 1}, "no pair of the train text is left"),
        ({"vocabulary_lines": 0}, "vocabulary_lines must be"),
        ({"algorithm": "words"}, "no tokenizer algorithm"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    texts: list[Path], tmp_path: Path, settings_: dict[str, Any], word: str
) -> None:
    before = set(os.listdir(tmp_path))
    with pytest.raises(UserError, match=word):
        prepare(*texts, tmp_path / "corpus", **{"vocab_size": 300, **settings_})
    assert set(os.listdir(tmp_path)) == before


def test_the_name_of_a_text_file_need_not_be_utf8(texts: list[Path], tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.en")
    os.rename(texts[0], name)
    corpus = prepare(name, *texts[1:], tmp_path / "corpus", vocab_size=300)
    assert corpus.manifest["files"]["train"]["source"][0]["path"] == name


def test_a_corpus_can_be_written_through_a_symbolic_link(texts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/corpus")
    for _ in range(2):
        prepare(*texts, tmp_path / "link", vocab_size=300, overwrite=True)
        assert (tmp_path / "link").is_symlink()
        assert len(Corpus.open(tmp_path / "elsewhere" / "corpus").train) == len(PAIRS)
