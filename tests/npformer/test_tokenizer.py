"""Tokenization, and its inverse."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npformer.errors import UserError
from npformer.tokenizer import Tokenizer, TokenizerPair

LINES = [
    f"{who} {does} {what} in the {where}."
    for who in ("A dog", "Two young girls", "Ein älterer Mann", "The child's brother")
    for does in ("runs after", "is looking at", "schläft neben")
    for what in ("a red ball", "it", "the 3 cats", "einem Hund")
    for where in ("garden", "big city", "Straße")
]
AWKWARD = [
    "",
    " ",
    "  two  spaces ",
    "@@",
    "&amp; &quot;",
    "a\x85b\u2028c\u2029d",
    "form\x0cfeed\x0bvt\x1c\x1d\x1e",
    "nul\0tab\tcr\rlf\n",
    "\ufeffmark",
    "▁already ▁ marked",
    "▅ reserved",
    "<s> </s> <unk> <0x41>",
    "日本語 🙂 \U0010ffff \ue000 a\u0301",
    "\ud800 lone",
    " ⁇ ",
]
texts = st.text(st.characters(categories=None), max_size=30) | st.sampled_from(AWKWARD)


@cache
def tokenizer(algorithm: str = "bpe", normalization: str = "identity") -> Tokenizer:
    return Tokenizer.train(LINES, 305, algorithm=algorithm, normalization=normalization)


def squeezed(text: str) -> str:
    """The text that the documentation promises for "identity"."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", text)
    return re.sub(
        "[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", " ", re.sub(" +", " ", text.strip(" "))
    )


def awkward_examples(test):  # type: ignore[no-untyped-def]
    for text in AWKWARD:
        test = example(text)(test)
    return test


@awkward_examples
@given(texts)
@settings(deadline=None)
def test_text_has_no_unknown_and_no_control_ids(text: str) -> None:
    for algorithm in ("bpe", "unigram"):
        for normalization in ("identity", "nmt_nfkc"):
            ids = tokenizer(algorithm, normalization).encode(text)
            assert all(2 < i < 305 for i in ids)


@awkward_examples
@given(texts)
@settings(deadline=None)
def test_without_normalization_decoding_restores_the_text(text: str) -> None:
    for algorithm in ("bpe", "unigram"):
        back = tokenizer(algorithm).decode(tokenizer(algorithm).encode(text))
        if "▁" in text:  # SentencePiece treats it as a space
            assert back.replace(" ", "") == squeezed(text).replace("▁", "").replace(" ", "")
        else:
            assert back == squeezed(text)


@given(st.lists(st.integers(0, 304), max_size=40))
@settings(deadline=None)
def test_any_ids_decode_to_one_line(ids: list[int]) -> None:
    text = tokenizer().decode(ids)
    assert len(text.splitlines()) <= 1
    assert not text.endswith(("\n", "\r"))
    text.encode()


@given(st.binary(max_size=20))
@settings(deadline=None)
def test_any_bytes_decode_to_one_line(raw: bytes) -> None:
    first_byte = tokenizer().pieces(range(305)).index("<0x00>")
    text = tokenizer().decode([first_byte + byte for byte in raw])
    assert len(text.splitlines()) <= 1
    assert len((text + "x").splitlines()) == 1


@given(st.lists(texts, max_size=5))
@settings(deadline=None)
def test_encoding_many_lines_equals_encoding_each_line(lines: list[str]) -> None:
    assert tokenizer().encode_lines(lines) == [tokenizer().encode(line) for line in lines]


def test_ids_are_those_of_sentencepiece_and_control_ids_decode_to_nothing() -> None:
    tok = tokenizer()
    assert (tok.unknown_id, tok.begin_id, tok.end_id, tok.vocab_size) == (0, 1, 2, 305)
    assert tok.pieces([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert tok.decode([1, *tok.encode("A dog runs"), 2]) == "A dog runs"
    assert "".join(tok.pieces(tok.encode("A dog"))) == "▁A▁dog"
    with pytest.raises(IndexError):
        tok.decode([305])


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_training_twice_gives_the_same_vocabulary(algorithm: str) -> None:
    again = Tokenizer.train(LINES, 305, algorithm=algorithm, normalization="identity")
    assert again.model == tokenizer(algorithm).model


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_the_error_for_an_impossible_vocabulary_size_names_one_that_works(algorithm: str) -> None:
    for size, word in ((100_000, "too large"), (20, "too small")):
        with pytest.raises(UserError, match=word) as caught:
            Tokenizer.train(LINES, size, algorithm=algorithm)
        works = int(re.search(r"to (\d+) or", str(caught.value))[1])
        assert Tokenizer.train(LINES, works, algorithm=algorithm).vocab_size == works


@pytest.mark.parametrize(
    ("settings_", "word"),
    [
        ({"algorithm": "wordpiece"}, "algorithm"),
        ({"normalization": "none"}, "normalization"),
        ({"character_coverage": 0.5}, "coverage"),
        ({"vocab_size": 0}, "at least 1"),
        ({"vocab_size": 2**31 - 1}, "at most"),  # unigram's sums would overflow and never end
        ({"vocab_size": 2**63}, "at most"),
        ({"vocab_size": 300.5}, "whole number"),
        ({"vocab_size": True}, "whole number"),
        ({"lines": []}, "no text"),
        ({"lines": ["", " "]}, "no text"),
        ({"lines": ["too long " * 1000]}, "no text"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings_: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        Tokenizer.train(**{"lines": LINES, "vocab_size": 305, **settings_})
    assert "\n" not in str(caught.value)


def test_training_on_an_open_file_equals_training_on_its_lines(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    with open(tmp_path / "text", encoding="utf-8") as file:
        learned = Tokenizer.train(file, 305, normalization="identity")
    assert learned.model == tokenizer().model


def test_an_error_of_the_lines_is_passed_on() -> None:
    def lines() -> Iterator[str]:
        yield "one"
        raise UserError("line 2 is not UTF-8")

    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        Tokenizer.train(lines(), 300)


def test_training_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    Tokenizer.train(LINES, 305)
    with pytest.raises(UserError):
        Tokenizer.train(LINES, 99_999)
    assert capfd.readouterr() == ("", "")


def test_a_tokenizer_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    tokenizer().save(tmp_path / "t.spm")
    assert Tokenizer.load(tmp_path / "t.spm").model == tokenizer().model


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_truncated_model_is_refused(data: st.DataObject) -> None:
    for normalization in ("identity", "nmt_nfkc"):
        model = tokenizer(normalization=normalization).model
        with pytest.raises(UserError):
            Tokenizer(model[: data.draw(st.integers(0, len(model) - 1))])


def test_a_model_without_its_last_part_is_refused() -> None:
    model = tokenizer().model
    trainer_end = model.rindex(b"\x1a\x0c\x0a\x08identity")
    with pytest.raises(UserError, match="cut short"):
        Tokenizer(model[:trainer_end])


@pytest.mark.parametrize(
    "content", [b"", b"not a model\n", b"\x00" * 100, b"\x0a\x00\x12\x00\x1a\x00"]
)
def test_a_file_that_is_not_a_tokenizer_is_named(
    tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.spm").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.spm: .* not a SentencePiece model"):
        Tokenizer.load(tmp_path / "t.spm")
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.spm: No such file"):
        Tokenizer.load(tmp_path / "t.spm")


def test_a_shared_or_separate_pair_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    one, other = tokenizer("bpe"), tokenizer("unigram")
    TokenizerPair(one, other).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.spm", "target.spm"]
    pair = TokenizerPair.load(tmp_path)
    assert not pair.shared
    assert (pair.source.model, pair.target.model) == (one.model, other.model)

    TokenizerPair(one, one).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.spm"]
    pair = TokenizerPair.load(tmp_path)
    assert pair.shared
    assert pair.target.model == one.model


def test_an_incomplete_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no tokenizer"):
        TokenizerPair.load(tmp_path)
    tokenizer().save(tmp_path / "source.spm")
    with pytest.raises(UserError, match=r"target\.spm"):
        TokenizerPair.load(tmp_path)


def test_a_damaged_tokenizer_is_refused_on_loading(
    tmp_path: Path,
) -> None:
    """SentencePiece loads a piece that is not UTF-8 without an error."""
    model = tokenizer().model
    refused = 0
    for position in range(0, min(len(model), 4_000), 7):
        damaged = bytearray(model)
        damaged[position] ^= 128
        (tmp_path / "t.spm").write_bytes(damaged)
        try:
            found = Tokenizer.load(tmp_path / "t.spm")
        except UserError:
            refused += 1
            continue
        everything = range(found.vocab_size)
        found.decode(everything)
        found.encode(" ".join(found.pieces(everything)))
        for i in everything:
            found.decode([i])
        found.encode("A dog, 你好")
    assert refused > 100


def test_a_pair_is_verified_by_its_checksums(tmp_path: Path) -> None:
    one, other = tokenizer("bpe"), tokenizer("unigram")
    pair = TokenizerPair(one, other)
    pair.save(tmp_path)
    assert TokenizerPair.load(tmp_path, pair.sha256).target.model == other.model
    wrong = {**pair.sha256, "target.spm": pair.sha256["source.spm"]}
    with pytest.raises(UserError, match=r"target\.spm has been altered"):
        TokenizerPair.load(tmp_path, wrong)
    for sha256 in ({}, TokenizerPair(one, one).sha256):
        with pytest.raises(UserError, match="have been altered"):
            TokenizerPair.load(tmp_path, sha256)


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("vocab_size", [1, 2, 3, 100, 262])
def test_the_error_for_a_vocabulary_too_small_names_the_least_that_works(
    vocab_size: int, algorithm: Literal["bpe", "unigram"]
) -> None:
    lines = ["a b c"] * 3
    with pytest.raises(UserError, match="set the vocabulary size to 263 or more"):
        Tokenizer.train(lines, vocab_size, algorithm=algorithm)
    assert Tokenizer.train(lines, 263, algorithm=algorithm).vocab_size == 263


def test_a_lower_character_coverage_is_suggested_only_if_possible() -> None:
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 500)))
    with pytest.raises(UserError, match=r"lower the character coverage from 1 \(to 0.98"):
        Tokenizer.train([characters], 300)
    with pytest.raises(UserError) as caught:
        Tokenizer.train([characters], 300, character_coverage=0.98)
    assert "coverage" not in str(caught.value)
