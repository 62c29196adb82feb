"""A prepared corpus: written once, whole, and read from disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import train.arrays
import train.corpus_writer
import train.manifest
import train.preparation
from npformer.errors import UserError
from npformer.tokenizer import Tokenizer
from train.corpus import Corpus
from train.manifest import CONTENTS
from train.preparation import prepare
from train.sentences import ParallelTokens, Sentences
from train.text import TextFile

on_disk = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

SUBJECTS = {"A dog": "Ein Hund", "Two girls": "Zwei Mädchen", "The old man": "Der alte Mann"}
VERBS = {"runs": "rennt", "sleeps": "schläft", "is laughing": "lacht", "sings": "singt"}
PLACES = {"in the garden": "im Garten", "at home": "zu Hause", "here": "hier"}
PAIRS = [
    (f"{s} {v} {p}.", f"{SUBJECTS[s]} {VERBS[v]} {PLACES[p]}.")
    for s in SUBJECTS
    for v in VERBS
    for p in PLACES
]
VALID = [("A dog sings at home.", "Ein Hund singt zu Hause."), ("@@", "@@"), ("", "nichts")]


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """Files: train and valid, source and target."""
    return [
        write(tmp_path / "train.en", [source for source, _ in PAIRS]),
        write(tmp_path / "train.de", [target for _, target in PAIRS]),
        write(tmp_path / "valid.en", [source for source, _ in VALID]),
        write(tmp_path / "valid.de", [target for _, target in VALID]),
    ]


@pytest.fixture
def corpus(texts: list[Path], tmp_path: Path) -> Corpus:
    return prepare(*texts, tmp_path / "corpus", vocab_size=300)


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_corpus_holds_the_text_as_ids(corpus: Corpus) -> None:
    assert len(corpus.train) == len(PAIRS)
    source, target = corpus.tokenizers.source, corpus.tokenizers.target
    for i, (english, german) in enumerate(PAIRS):
        assert corpus.train.source(i).tolist() == source.encode(english)
        assert target.decode(corpus.train.target(i)) == german
        assert corpus.train.source_lengths[i] == len(corpus.train.source(i))
        assert corpus.train.target_lengths[i] == len(corpus.train.target(i))
    assert corpus.train.sources.tokens.dtype == np.uint16


def test_the_validation_text_is_kept_whole(corpus: Corpus) -> None:
    assert corpus.valid_text() == ([s for s, _ in VALID], [t for _, t in VALID])
    assert len(corpus.valid) == 2
    assert corpus.manifest["splits"]["valid"]["dropped"] == {"empty": 1, "too_long": 0}


def test_the_manifest_says_what_it_was_made_of(corpus: Corpus, texts: list[Path]) -> None:
    manifest = corpus.manifest
    assert manifest["settings"]["vocab_size"] == 300
    assert manifest["vocabulary"] == {"shared": True, "source": 300, "target": 300}
    train = manifest["splits"]["train"]
    assert train["pairs"] == len(PAIRS)
    assert train["source_tokens"] == corpus.train.source_lengths.sum()
    (source_file,) = manifest["files"]["train"]["source"]
    assert source_file["path"] == str(texts[0])
    assert source_file["lines"] == len(PAIRS)
    assert source_file["bytes"] == texts[0].stat().st_size
    assert len(source_file["sha256"]) == 64


def test_preparing_twice_gives_the_same_bytes(
    corpus: Corpus, texts: list[Path], tmp_path: Path
) -> None:
    again = prepare(*texts, tmp_path / "again", vocab_size=300)
    assert contents(again.directory) == contents(corpus.directory)


def test_nothing_else_is_left_behind(corpus: Corpus, texts: list[Path], tmp_path: Path) -> None:
    assert set(os.listdir(tmp_path)) == {"corpus", *(path.name for path in texts)}
    assert set(os.listdir(corpus.directory)) == train.manifest.OURS - {"source.spm", "target.spm"}


def test_separate_vocabularies(texts: list[Path], tmp_path: Path) -> None:
    corpus = prepare(*texts, tmp_path / "corpus", vocab_size=290, shared=False)
    assert not corpus.tokenizers.shared
    assert corpus.tokenizers.target.decode(corpus.train.target(0)) == PAIRS[0][1]
    assert (corpus.directory / "target.spm").exists()


def test_several_files_make_one_corpus(corpus: Corpus, texts: list[Path], tmp_path: Path) -> None:
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
            assert content == (corpus.directory / name).read_bytes()


def test_ids_beyond_16_bits_get_32(tmp_path: Path) -> None:
    for vocab_size, dtype in ((1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)):
        with train.arrays.SentencesWriter(tmp_path, "x", vocab_size) as out:
            out.append([[vocab_size - 1], [1, 2]])
            out.append([])
            out.append([[3]])
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
    except UserError as error:  # the drawn text cannot have that many ids, or nothing is left
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


@pytest.mark.parametrize("chunk", [1, 5, 36, 1000])
def test_the_size_of_a_chunk_changes_nothing(
    corpus: Corpus, texts: list[Path], tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train.corpus_writer, "_CHUNK", chunk)
    other = prepare(*texts, tmp_path / "other", vocab_size=300)
    assert contents(other.directory) == contents(corpus.directory)


@given(st.integers(1, 60), st.integers(1, 60))
@on_disk
def test_the_vocabulary_learns_from_evenly_spaced_lines(
    tmp_path: Path, total: int, limit: int
) -> None:
    path = write(tmp_path / "numbers", [str(i) for i in range(total)])
    file = TextFile(str(path), total, 0, "")
    numbers = [
        int(line) for line in train.preparation._evenly_spaced([file], limit, lambda *_: None)
    ]
    assert len(numbers) == min(limit, total)
    gaps = np.diff([-1, *numbers, total])
    assert gaps.max() - gaps[:-1].min() <= 1 + total // limit


def test_progress_reaches_the_end_of_each_stage(texts: list[Path], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    prepare(*texts, tmp_path / "corpus", vocab_size=300, progress=lambda *p: told.append(p))
    stages = {stage: (done, total) for stage, done, total in told}
    lines = len(PAIRS)
    assert list(stages.items()) == [
        ("vocabulary", (2 * lines, 2 * lines)),
        ("train", (lines, lines)),
        ("valid", (3, 3)),
    ]


def test_a_corpus_is_replaced_only_on_request(
    corpus: Corpus, texts: list[Path], tmp_path: Path
) -> None:
    before = contents(corpus.directory)
    with pytest.raises(UserError, match="already holds a prepared corpus"):
        prepare(*texts, corpus.directory, vocab_size=290)
    assert contents(corpus.directory) == before
    prepare(*texts, corpus.directory, vocab_size=290, overwrite=True)
    assert Corpus.open(corpus.directory).manifest["vocabulary"]["source"] == 290
    assert set(os.listdir(tmp_path)) == {"corpus", *(path.name for path in texts)}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"format": "other"}'])
def test_a_corpus_with_a_damaged_manifest_may_be_replaced(
    corpus: Corpus, texts: list[Path], content: bytes
) -> None:
    (corpus.directory / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="already holds a prepared corpus"):
        prepare(*texts, corpus.directory, vocab_size=290)
    (corpus.directory / "notes").write_text("precious")
    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, corpus.directory, vocab_size=290, overwrite=True)
    (corpus.directory / "notes").unlink()
    prepare(*texts, corpus.directory, vocab_size=290, overwrite=True)
    assert Corpus.open(corpus.directory).manifest["vocabulary"]["source"] == 290


def test_a_manifest_of_others_is_not_replaced(tmp_path: Path, texts: list[Path]) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "manifest.json").write_text('{"my": "manifest"}')
    (out / "valid.source.txt").write_text("precious")
    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, out, vocab_size=290, overwrite=True)
    assert (out / "valid.source.txt").read_text() == "precious"


def test_a_folder_in_the_place_of_a_file_is_not_replaced(corpus: Corpus, texts: list[Path]) -> None:
    mine = corpus.directory / "valid.source.txt" / "mine"
    mine.parent.unlink()
    mine.parent.mkdir()
    mine.write_text("precious")
    with pytest.raises(UserError, match=r"valid\.source\.txt is no file of a corpus"):
        prepare(*texts, corpus.directory, vocab_size=290, overwrite=True)
    assert mine.read_text() == "precious"


def test_a_corpus_without_a_manifest_is_none(corpus: Corpus, texts: list[Path]) -> None:
    (corpus.directory / "manifest.json").unlink()
    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, corpus.directory, vocab_size=290, overwrite=True)


def test_nothing_but_a_corpus_is_ever_replaced(
    corpus: Corpus, texts: list[Path], tmp_path: Path
) -> None:
    again = partial(prepare, *texts, vocab_size=300, overwrite=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").write_text("precious")
    with pytest.raises(UserError, match="not a prepared corpus"):
        again(tmp_path / "home")
    (corpus.directory / "notes").write_text("precious")
    with pytest.raises(UserError, match="also holds 'notes'"):
        again(corpus.directory)
    with pytest.raises(UserError, match="is a file"):
        again(texts[0])
    assert (corpus.directory / "notes").read_text() == "precious"


def test_an_empty_directory_may_be_filled(texts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert len(prepare(*texts, tmp_path / "new", vocab_size=300).train) == len(PAIRS)


def test_a_killed_run_leaves_no_half_corpus(texts: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "corpus"
    program = f"""
import os, signal
from train.preparation import prepare
def kill(stage, done, total):
    if stage == "valid":
        os.kill(os.getpid(), signal.SIGKILL)
prepare(*{[str(path) for path in texts]}, {str(out)!r}, vocab_size=300, progress=kill)
"""
    root = Path(train.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(prepare(*texts, out, vocab_size=300).train) == len(PAIRS)


def test_a_corpus_that_comes_into_being_meanwhile_stays(texts: list[Path], tmp_path: Path) -> None:
    def meanwhile(stage: str, done: int, total: int) -> None:
        if stage == "valid" and done == total:
            (tmp_path / "corpus").mkdir()
            (tmp_path / "corpus" / "thesis").write_text("precious")

    with pytest.raises(UserError, match="not a prepared corpus"):
        prepare(*texts, tmp_path / "corpus", vocab_size=300, progress=meanwhile)
    assert os.listdir(tmp_path / "corpus") == ["thesis"]


@pytest.mark.parametrize("failing", ["write_split", "write_text", "write_manifest"])
def test_a_run_that_is_stopped_leaves_nothing(
    texts: list[Path], tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train.preparation, failing, stop)
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
def test_settings_that_cannot_work_are_the_users_mistake(
    texts: list[Path], tmp_path: Path, settings_: dict[str, Any], word: str
) -> None:
    before = set(os.listdir(tmp_path))
    with pytest.raises(UserError, match=word):
        prepare(*texts, tmp_path / "corpus", **{"vocab_size": 300, **settings_})
    assert set(os.listdir(tmp_path)) == before


def edit_manifest(directory: Path, **changes: object) -> None:
    """Change what the manifest says, and sign it again."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(manifest | {"sha256": train.manifest.signature(manifest)}))


def edit_splits(directory: Path, split: str, **counts: object) -> None:
    splits = json.loads((directory / "manifest.json").read_text())["splits"]
    edit_manifest(directory, splits=splits | {split: splits[split] | counts})


def bless(directory: Path) -> None:
    """Give the manifest the checksums of what is there now."""
    edit_manifest(directory, contents=train.manifest.checksums(directory))


def edit_array(name: str, place: int, value: int) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        array = np.load(directory / name)
        array[place] = value
        np.save(directory / name, array)

    return damage


def edit_bytes(name: str, edit: Callable[[bytearray], None]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        content = bytearray((directory / name).read_bytes())
        edit(content)
        (directory / name).write_bytes(content)

    return damage


def zeroed(start: int, end: int) -> Callable[[bytearray], None]:
    def edit(content: bytearray) -> None:
        content[start:end] = bytes(end - start)

    return edit


def reversed_between(start: int, end: int) -> Callable[[bytearray], None]:
    def edit(content: bytearray) -> None:
        content[start:end] = content[start:end][::-1]

    return edit


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        path = directory / name
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    return damage


def swap(name: str, other: str) -> Callable[[Path], None]:
    return lambda directory: (directory / other).replace(directory / name) and None


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        *(
            (cut(f"{split}.{side}.{array}.npy", keep), "cut short")
            for split, side in (("train", "source"), ("valid", "target"))
            for array in ("tokens", "offsets")
            for keep in (0, 0.1, 0.99)
        ),
        (swap("train.source.tokens.npy", "train.target.tokens.npy"), "cut short|altered"),
        (swap("train.source.offsets.npy", "train.target.offsets.npy"), "altered"),
        (lambda d: (d / "valid.source.tokens.npy").unlink(), "cannot be read"),
        (edit_bytes("train.source.tokens.npy", zeroed(0, 64)), "altered"),
        (edit_bytes("train.source.tokens.npy", zeroed(200, 232)), "altered"),
        (edit_bytes("train.target.tokens.npy", reversed_between(200, 232)), "altered"),
        (edit_array("train.source.tokens.npy", 7, 3), "altered"),
        (edit_bytes("valid.source.txt", reversed_between(0, 5)), "valid.source.txt has been alt"),
        (cut("valid.target.txt", 0.5), "valid.target.txt is cut short"),
        (lambda d: (d / "valid.target.txt").unlink(), "valid.target.txt cannot be read"),
        (lambda d: (d / "tokenizer.spm").unlink(), "holds no tokenizer"),
        (cut("tokenizer.spm", 0.5), "altered"),
        (lambda d: Tokenizer.train(["abc"] * 9, 265).save(d / "tokenizer.spm"), "altered"),
        (edit_bytes("manifest.json", reversed_between(90, 95)), "altered|not valid JSON"),
        (cut("manifest.json", 0.5), "not valid JSON"),
        (cut("manifest.json", 0), "not valid JSON"),
        (lambda d: (d / "manifest.json").write_bytes(b"[" * 100_000), "nested too deeply"),
        (lambda d: (d / "manifest.json").unlink(), "holds no prepared corpus"),
        (lambda d: (d / "manifest.json").write_text("[1]"), "not a prepared corpus"),
        (lambda d: edit_manifest(d, format="other"), "not a prepared corpus"),
        (lambda d: edit_manifest(d, version=1), "version 1, .* prepare the corpus again"),
        (lambda d: edit_manifest(d, version=99), "version 99"),
        (lambda d: edit_manifest(d, version=2.0), "version 2.0"),
        (lambda d: edit_manifest(d, version=True), "version True"),
        (lambda d: edit_manifest(d, splits={}), "incomplete"),
        (lambda d: edit_manifest(d, splits={"train": 1, "valid": []}), "incomplete"),
        *(
            (lambda d, pairs=pairs: edit_splits(d, "train", pairs=pairs), "incomplete")
            for pairs in (None, True, 2.0, "36", [36], -1, 0, 1 << 60)
        ),
        (lambda d: edit_splits(d, "train", pairs=37), "does not belong"),
        (lambda d: edit_splits(d, "train", source_tokens=1 << 47), "does not belong"),
        (lambda d: edit_manifest(d, contents={}), "incomplete"),
        (lambda d: edit_manifest(d, contents=[1]), "incomplete"),
        *(
            (lambda d, c=c: edit_manifest(d, contents=dict.fromkeys(CONTENTS, c)), word)
            for c, word in (
                (None, "incomplete"),
                ({}, "incomplete"),
                ({"bytes": "1", "sha256": 1}, "cut short"),
            )
        ),
        (lambda d: edit_manifest(d, tokenizers=None), "incomplete"),
        (lambda d: edit_manifest(d, tokenizers=[]), "incomplete"),
        (lambda d: edit_manifest(d, tokenizers={}), "altered"),
        (lambda d: edit_manifest(d, tokenizers={"tokenizer.spm": 3}), "altered"),
        (lambda d: edit_manifest(d, tokenizers={"../../x": ""}), "altered"),
        (shutil.rmtree, "holds no prepared corpus"),
    ],
)
def test_a_damaged_corpus_is_refused_in_one_sentence(
    corpus: Corpus, damage: Callable[[Path], None], word: str
) -> None:
    directory = corpus.directory
    del corpus
    damage(directory)
    with pytest.raises(UserError, match=word) as caught:
        Corpus.open(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


def test_a_manifest_that_is_changed_by_hand_is_refused(corpus: Corpus) -> None:
    path = corpus.directory / "manifest.json"
    path.write_text(path.read_text().replace('"max_length": 256', '"max_length": 255'))
    with pytest.raises(UserError, match=r"manifest\.json has been altered"):
        Corpus.open(corpus.directory)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (edit_bytes("train.source.tokens.npy", zeroed(0, 64)), "does not belong"),
        (edit_bytes("train.source.offsets.npy", zeroed(16, 128)), "does not belong"),
        (cut("train.source.tokens.npy", 0.9), "cut short"),
        (edit_array("train.source.tokens.npy", 7, 300), "ids that its vocabulary has not"),
        (edit_array("valid.target.tokens.npy", 0, 65_535), "ids that its vocabulary has not"),
        (edit_array("train.source.offsets.npy", 3, -5), "not those of sentences"),
        (edit_array("train.source.offsets.npy", 3, 10_000), "not those of sentences"),
        (edit_array("train.source.offsets.npy", 3, np.iinfo(np.int64).min), "not those of"),
        (edit_array("train.source.offsets.npy", -1, 5), "not those of sentences"),
        (lambda d: np.save(d / "valid.source.offsets.npy", np.zeros(3, int)), "not those of"),
        (lambda d: np.save(d / "valid.source.offsets.npy", np.zeros(3)), "does not belong"),
        (lambda d: np.save(d / "valid.source.offsets.npy", np.zeros(3, ">i8")), "does not belong"),
        (lambda d: np.save(d / "valid.source.offsets.npy", [None] * 3), "does not belong"),
    ],
)
def test_arrays_that_no_corpus_has_are_refused_whatever_the_manifest_says(
    corpus: Corpus, damage: Callable[[Path], None], word: str
) -> None:
    damage(corpus.directory)
    bless(corpus.directory)
    with pytest.raises(UserError, match=word):
        Corpus.open(corpus.directory)


@given(st.data())
@settings(on_disk, max_examples=150)
def test_a_corpus_altered_anywhere_is_refused(corpus: Corpus, data: st.DataObject) -> None:
    names = sorted(os.listdir(corpus.directory))
    path = corpus.directory / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(altered)
        if path.name == "manifest.json" and says_the_same(altered, whole):
            return
        with pytest.raises(UserError) as caught:
            Corpus.open(corpus.directory)
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(whole)


def says_the_same(altered: bytes, whole: bytes) -> bool:
    """White space for white space alters nothing."""
    try:
        return bool(json.loads(altered) == json.loads(whole))
    except ValueError:
        return False


@pytest.mark.parametrize("name", sorted(train.manifest.OURS - {"source.spm", "target.spm"}))
def test_what_is_no_plain_file_is_refused_at_once(corpus: Corpus, name: str) -> None:
    path = corpus.directory / name
    path.unlink()
    for make in (os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p), huge):
        make(path)
        with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
            Corpus.open(corpus.directory)
        assert "\n" not in str(caught.value)
        path.rmdir() if path.is_dir() else path.unlink()


def huge(path: Path) -> None:
    """A file of two gigabytes: more than is hashed before it is known to be another's."""
    with open(path, "wb") as file:
        file.truncate(1 << 31)


def test_arrays_are_in_numpys_format(corpus: Corpus) -> None:
    for name in ("train.source.tokens.npy", "valid.target.offsets.npy"):
        path = corpus.directory / name
        array = np.load(path)
        np.save(path.with_name("again.npy"), array)
        assert path.with_name("again.npy").read_bytes() == path.read_bytes()


def test_text_of_any_name_can_be_prepared(texts: list[Path], tmp_path: Path) -> None:
    """Also one that is not UTF-8."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.en")
    os.rename(texts[0], name)
    corpus = prepare(name, *texts[1:], tmp_path / "corpus", vocab_size=300)
    assert corpus.manifest["files"]["train"]["source"][0]["path"] == name


def test_a_corpus_can_lie_behind_a_link(texts: list[Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/corpus")
    for _ in range(2):
        prepare(*texts, tmp_path / "link", vocab_size=300, overwrite=True)
        assert (tmp_path / "link").is_symlink()
        assert len(Corpus.open(tmp_path / "elsewhere" / "corpus").train) == len(PAIRS)


sentences_of_ids = st.lists(st.lists(st.integers(0, 60_000), max_size=5), max_size=8)


@given(sentences_of_ids, st.data())
@settings(deadline=None)
def test_sentences_can_be_taken_in_any_order(lists: list[list[int]], data: st.DataObject) -> None:
    sentences = Sentences.of(lists)
    assert [sentences[i].tolist() for i in range(len(sentences))] == lists
    order = data.draw(st.lists(st.integers(0, len(lists) - 1)) if lists else st.just([]))
    taken = sentences.take(np.array(order, dtype=np.int64))
    assert [s.tolist() for s in taken.sentences()] == [lists[i] for i in order]
    for outside in (-1, len(lists)):
        with pytest.raises(IndexError):
            sentences[outside]


def test_pairs_need_both_sides() -> None:
    with pytest.raises(ValueError, match="2 sources, but 1 targets"):
        ParallelTokens.of([[1], [2]], [[1]])
