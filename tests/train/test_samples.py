"""Translations of a few fixed sentences, appended line by line."""

import json
from pathlib import Path

import pytest

from npformer.errors import UserError
from train.runs.samples import (
    Sample,
    append_samples,
    chosen_sentences,
    drop_samples_after,
    samples_path,
)


@pytest.mark.parametrize(
    ("count", "of", "chosen"),
    [(0, 5, []), (1, 5, [0]), (3, 9, [0, 3, 6]), (3, 2, [0, 1]), (3, 0, [])],
)
def test_evenly_spaced_sentences_are_chosen(count: int, of: int, chosen: list[int]) -> None:
    assert chosen_sentences(count, of) == chosen


def test_only_later_translations_are_dropped(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        append_samples(tmp_path, step, [Sample("a\u2028b", "ä", "c"), Sample("", "", "")])
    path = samples_path(tmp_path)
    with open(path, "ab") as file:
        file.write(b"a note\n" + b'{"step": 15, "sou')
    drop_samples_after(tmp_path, 20)
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line)["step"] for line in lines[:4]] == [10, 10, 20, 20]
    assert json.loads(lines[0])["reference"] == "ä"
    assert lines[4:] == [b"a note", b""]
    drop_samples_after(tmp_path / "none", 20)
    assert not (tmp_path / "none").exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    samples_path(tmp_path).mkdir()
    with pytest.raises(UserError, match=r"cannot write .*translations\.jsonl"):
        append_samples(tmp_path, 10, [Sample("a", "b", "c")])
    with pytest.raises(UserError, match=r"cannot read .*translations\.jsonl"):
        drop_samples_after(tmp_path, 10)
