"""Pairs that are dropped from a corpus are counted, reported, and shown by examples."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import train.corpora.blocks
import train.corpora.duplicates
from npformer.errors import UserError
from tests.train.small_corpus import PAIRS, VALID, write
from train.corpora.blocks import pair_hash, read_blocks
from train.corpora.corpus import Corpus
from train.corpora.duplicates import find_duplicates
from train.corpora.filters import Filters
from train.corpora.preparation import prepare
from train.corpora.scripts import Scripts
from train.corpora.text import survey_parallel


@pytest.mark.parametrize(
    ("names", "text", "has"),
    [
        (["Latin"], "A dog runs.", True),
        (["Latin"], "Größe, naïve, Łódź", True),
        (["Latin"], "Собака бежит.", False),
        (["Cyrillic"], "Собака бежит.", True),
        (["Cyrillic"], "A dog runs.", False),
        (["Latin"], "3.14 + 2 = ?", True),  # no letters
        (["Latin"], "", True),
        (["Latin"], "abc где", True),  # half and half
        (["Latin"], "abc гдеж", False),
        (["Greek"], "ΑΒΓ abc", True),
        (["Han"], "犬が走る。", True),
        (["Hiragana"], "漢字漢字が", False),
        (["Han", "Hiragana", "Katakana"], "漢字とコーヒー", True),
        (["Han"], "コーヒー店", False),
        (["Hangul"], "개가 달린다", True),
        (["Devanagari"], "कुत्ता दौड़ता है", True),
        (["Arabic"], "الكلب يركض", True),
    ],
)
def test_a_text_has_the_script_of_most_of_its_letters(
    names: list[str], text: str, has: bool
) -> None:
    assert Scripts(names).has(text) is has


@pytest.mark.parametrize("name", ["Latein", "", "L", "Latin}", "Latin|Han", "\\"])
def test_an_unknown_script_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"there is no script .* in Unicode") as caught:
        Scripts([name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"max_length": 0}, "max_length must be at least 1, not 0"),
        ({"max_ratio": 0.5}, "max_ratio must be at least 1, not 0.5"),
        ({"max_ratio": float("nan")}, "max_ratio must be at least 1, not nan"),
        ({"max_ratio": float("inf")}, "max_ratio must be at least 1, not inf"),
        ({"source_script": ["Latein"]}, "Latein"),
        ({"target_script": ["Latein"]}, "Latein"),
    ],
)
def test_invalid_filters_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        Filters(**{"max_length": 9, **values})


MORE = [
    ("A dog", "A dog"),  # equal sides, which are dropped only on request
    PAIRS[3],
    PAIRS[5],
    PAIRS[3],
    ("Собака бежит.", "Ein Hund rennt."),
    ("Here", "Ein Hund rennt im Garten zu Hause hier im Garten zu Hause"),
    ("", ""),
    ("", ""),
    ("no target", " "),
    ("word " * 300, "Wort " * 200),
    ("A dog", "A dog"),
]


def prepared_with(folder: Path, pairs: Sequence[tuple[str, str]], **settings_: Any) -> Corpus:
    files = [
        write(folder / "train.en", [s for s, _ in pairs]),
        write(folder / "train.de", [t for _, t in pairs]),
        write(folder / "valid.en", [s for s, _ in VALID]),
        write(folder / "valid.de", [t for _, t in VALID]),
    ]
    return prepare(*files, folder / "corpus", **{"vocab_size": 320, **settings_})


def test_a_dropped_pair_counts_for_its_first_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "npformer"):
        corpus = prepared_with(
            tmp_path,
            [*PAIRS, *MORE],
            max_ratio=3,
            drop_copies=True,
            drop_duplicates=True,
            source_script=["Latin"],
            target_script=["Latin"],
        )
    train = corpus.manifest["splits"]["train"]
    expected = {"empty": 3, "copy": 2, "duplicate": 3, "script": 1, "too_long": 1, "ratio": 1}
    assert train["dropped"] == expected
    assert train["pairs"] == len(corpus.train) == len(PAIRS)
    told = [r.getMessage() for r in caplog.records if r.getMessage().startswith("train: ")]
    assert [line.split(" dropped ")[1] for line in told] == [
        "3 empty on a side",
        "1 longer than 256 tokens",
        "2 the same on both sides",
        "3 the same as an earlier pair",
        "1 source not in Latin, target not in Latin",
        "1 more than 3 to 1 in length",
    ]
    assert corpus.manifest["splits"]["valid"]["dropped"] == {"empty": 1, "too_long": 0}


def test_by_default_only_unusable_pairs_are_dropped(tmp_path: Path) -> None:
    corpus = prepared_with(tmp_path, [*PAIRS, *MORE])
    train = corpus.manifest["splits"]["train"]
    assert train["dropped"] == {"empty": 3, "too_long": 1}
    assert train["pairs"] == len(PAIRS) + len(MORE) - 4


def test_the_manifest_shows_the_first_pairs_of_each_reason(tmp_path: Path) -> None:
    blanks = [("", f"nichts {i}") for i in range(7)]
    corpus = prepared_with(tmp_path, [*PAIRS, *blanks, *MORE])
    examples = corpus.manifest["splits"]["train"]["examples"]
    assert examples.keys() == {"empty", "too_long"}
    assert examples["empty"] == [
        {
            "file": str(tmp_path / "train.en"),
            "line": len(PAIRS) + 1 + i,
            "source": "",
            "target": f"nichts {i}",
        }
        for i in range(5)
    ]
    (long,) = examples["too_long"]
    assert long["line"] == len(PAIRS) + 7 + 10
    assert long["source"].startswith("word word")
    assert len(long["source"]) == len(long["target"]) == 100


@pytest.mark.parametrize("lines", [1, 7, 4096])
def test_filters_do_not_depend_on_blocks_or_processes(
    tmp_path: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"max_ratio": 3.0, "drop_copies": True, "drop_duplicates": True}
    (tmp_path / "one").mkdir()
    one = prepared_with(tmp_path, [*PAIRS, *MORE, *PAIRS], **wanted)
    expected = one.manifest["splits"], one.manifest["contents"]
    monkeypatch.setattr(train.corpora.blocks, "LINES", lines)
    other = prepared_with(tmp_path, [*PAIRS, *MORE, *PAIRS], **wanted, overwrite=True)
    assert (other.manifest["splits"], other.manifest["contents"]) == expected


lines_of_few_words = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y"])), min_size=1, max_size=60
)


@given(lines_of_few_words, st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_duplicate_is_a_pair_that_occurred_earlier(
    tmp_path: Path, pairs: list[tuple[str, str]], lines: int, in_memory: int
) -> None:
    files = survey_parallel(
        [write(tmp_path / "s", [s for s, _ in pairs])],
        [write(tmp_path / "t", [t for _, t in pairs], "\r\n")],
    )
    work = tmp_path / "work"
    work.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.corpora.blocks, "LINES", lines)
        patch.setattr(train.corpora.duplicates, "_IN_MEMORY", in_memory)
        found = find_duplicates(read_blocks(files), len(pairs), work, lambda done: None)
    assert found.tolist() == [pair in pairs[:i] for i, pair in enumerate(pairs)]
    assert [path.name for path in work.iterdir()] == ["duplicates"]


def test_the_marks_of_duplicates_have_their_place_on_the_disk_before_they_are_made(
    tmp_path: Path,
) -> None:
    """In a file with holes, a full disk would end the process without a word."""
    pairs = 20_000
    sides = [write(tmp_path / side, [str(i) for i in range(pairs)]) for side in ("s", "t")]
    files = survey_parallel(sides[:1], sides[1:])
    (tmp_path / "work").mkdir()
    find_duplicates(read_blocks(files), pairs, tmp_path / "work", lambda done: None)
    found = (tmp_path / "work" / "duplicates").stat()
    assert found.st_blocks * 512 >= found.st_size == pairs


def test_the_hash_of_a_pair_depends_on_where_source_and_target_are_divided() -> None:
    pairs = [("a", "b"), ("b", "a"), ("ab", ""), ("", "ab"), ("a b", ""), ("a", "b ")]
    assert len({pair_hash(*pair) for pair in pairs}) == len(pairs)
    assert len(pair_hash("a", "b")) == 16


def test_validation_text_in_the_training_text_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source, target), [_, symbols] = VALID[0], VALID[1]
    train = [p for p in PAIRS if p[0] != source and p[1] != target]

    def shared_by(*more: tuple[str, str]) -> dict[str, int]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "npformer"):
            corpus = prepared_with(tmp_path, [*train, *more], overwrite=True)
        counts = corpus.manifest["splits"]["valid"]["in_training_text"]
        assert isinstance(counts, dict)
        return counts

    assert shared_by(VALID[0], ("", "nichts")) == {"sources": 1, "targets": 1, "pairs": 1}
    told = "of the 3 validation pairs, the training text also has: "
    assert f"{told}sources 1, targets 1, pairs 1; scores on them say little" in caplog.text
    found = shared_by((source, "Ein anderer Satz."), ("Symbols.", symbols))
    assert found == {"sources": 1, "targets": 1, "pairs": 0}
    assert f"{told}sources 1, targets 1; scores" in caplog.text
    # A source among the targets is none.
    assert shared_by((target, source)) == {"sources": 0, "targets": 0, "pairs": 0}
    assert "validation pairs" not in caplog.text


def test_lengths_are_compared_in_tokens() -> None:
    filters = Filters(10, max_ratio=2.0)
    found = dict(filters.of_lengths(np.array([0, 3, 2, 2, 11]), np.array([1, 6, 5, 4, 11])))
    assert {reason: np.flatnonzero(dropped).tolist() for reason, dropped in found.items()} == {
        "empty": [0],
        "too_long": [4],
        "ratio": [0, 2],
    }
