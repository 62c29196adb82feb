"""A prepared corpus is opened if it is intact, and otherwise refused with one line."""

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train.corpora.arrays
import train.corpora.manifest
import train.corpora.preparation
import train.corpora.writer
from npformer.errors import UserError
from npformer.tokenizer import Tokenizer
from train.corpora.corpus import Corpus
from train.corpora.manifest import CONTENTS

on_disk = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def edit_manifest(directory: Path, **changes: object) -> None:
    """Change the manifest, and update its checksum."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(manifest | {"sha256": train.corpora.manifest.signature(manifest)}))


def edit_splits(directory: Path, split: str, **counts: object) -> None:
    splits = json.loads((directory / "manifest.json").read_text())["splits"]
    edit_manifest(directory, splits=splits | {split: splits[split] | counts})


def update_checksums(directory: Path) -> None:
    """Update the checksums in the manifest."""
    edit_manifest(directory, contents=train.corpora.manifest.checksums(directory))


def edit_array(name: str, index: int, value: int) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        array = np.load(directory / name)
        array[index] = value
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
def test_a_damaged_corpus_is_refused_with_one_line(
    prepared: Corpus, damage: Callable[[Path], None], word: str
) -> None:
    directory = prepared.directory
    del prepared
    damage(directory)
    with pytest.raises(UserError, match=word) as caught:
        Corpus.open(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


def test_a_manifest_edited_by_hand_is_refused(prepared: Corpus) -> None:
    path = prepared.directory / "manifest.json"
    path.write_text(path.read_text().replace('"max_length": 256', '"max_length": 255'))
    with pytest.raises(UserError, match=r"manifest\.json has been altered"):
        Corpus.open(prepared.directory)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (edit_bytes("train.source.tokens.npy", zeroed(0, 64)), "does not belong"),
        (edit_bytes("train.source.offsets.npy", zeroed(16, 128)), "does not belong"),
        (cut("train.source.tokens.npy", 0.9), "cut short"),
        (edit_array("train.source.tokens.npy", 7, 300), "token ids beyond its vocabulary"),
        (edit_array("valid.target.tokens.npy", 0, 65_535), "token ids beyond its vocabulary"),
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
def test_invalid_arrays_are_refused_even_with_matching_checksums(
    prepared: Corpus,
    damage: Callable[[Path], None],
    word: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(prepared.directory)
    update_checksums(prepared.directory)
    for at_a_time in (1 << 20, 3):  # values, so that the parts of an array are checked together
        monkeypatch.setattr(train.corpora.arrays, "_AT_A_TIME", at_a_time)
        with pytest.raises(UserError, match=word):
            Corpus.open(prepared.directory)


@given(st.data())
@settings(on_disk, max_examples=150)
def test_a_corpus_altered_anywhere_is_refused(prepared: Corpus, data: st.DataObject) -> None:
    names = sorted(os.listdir(prepared.directory))
    path = prepared.directory / data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(altered)
        if path.name == "manifest.json" and says_the_same(altered, whole):
            return
        with pytest.raises(UserError) as caught:
            Corpus.open(prepared.directory)
        assert "\n" not in str(caught.value)
    finally:
        path.write_bytes(whole)


def says_the_same(altered: bytes, whole: bytes) -> bool:
    """Whether the two texts are the same JSON: changed white space is not damage."""
    try:
        return bool(json.loads(altered) == json.loads(whole))
    except ValueError:
        return False


@pytest.mark.parametrize("name", [*CONTENTS, "tokenizer.spm", "manifest.json"])
def test_pipes_devices_and_directories_in_the_place_of_files_are_refused_at_once(
    prepared: Corpus, name: str
) -> None:
    path = prepared.directory / name
    path.unlink()
    for make in (os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p), huge):
        make(path)
        with pytest.raises(UserError, match=name.replace(".", r"\.")) as caught:
            Corpus.open(prepared.directory)
        assert "\n" not in str(caught.value)
        path.rmdir() if path.is_dir() else path.unlink()


def huge(path: Path) -> None:
    """A file of two gigabytes, which must be refused without being hashed."""
    with open(path, "wb") as file:
        file.truncate(1 << 31)


def test_arrays_are_saved_in_numpys_format(prepared: Corpus) -> None:
    for name in ("train.source.tokens.npy", "valid.target.offsets.npy"):
        path = prepared.directory / name
        array = np.load(path)
        np.save(path.with_name("again.npy"), array)
        assert path.with_name("again.npy").read_bytes() == path.read_bytes()


def test_a_corpus_that_cannot_be_opened_is_not_called_damaged(prepared: Corpus) -> None:
    """With any number of files that may be open, so that each of them is once too many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open(os.devnull, "rb") as file:
        free = file.fileno()
    refusals = []
    opened = None
    try:
        for limit in range(free, before[0]):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            try:
                opened = Corpus.open(prepared.directory)
                break
            except UserError as error:
                refusals.append(str(error))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert opened is not None
    assert len(refusals) > 4
    for refusal in refusals:
        assert refusal.endswith("Too many open files; raise the limit (ulimit -n)")
        assert "damaged" not in refusal
