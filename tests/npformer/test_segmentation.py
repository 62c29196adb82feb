"""Random segmentations, against SentencePiece's own and against their probabilities."""

import io
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npformer.errors import UserError
from npformer.segmentation import SubwordRegularisation, segmentation
from npformer.sentencepiece_model import Kind, SentencePieceModel
from npformer.tokenizer import Tokenizer
from tests.npformer.test_tokenizer import AWKWARD, LINES

WORDS = [
    "garden",
    "Straße",
    "straßenbahn",
    "lookinglooking",
    "xyz",
    "日本",
    "🙂",
    "3",
    "..",
    "ab-c",
]
TEXT = [*LINES, *AWKWARD, *("".join(pair) for pair in product(WORDS, repeat=2))]
TEXT += [" ".join(pair) for pair in product(WORDS, repeat=2)] + ["a" * 90, "gardenstreet" * 9]
VARIANTS: dict[str, dict[str, Any]] = {
    "usual": {},
    "without bytes": {"byte_fallback": False},
    "user-defined": {"user_defined_symbols": ["gard", "garde", "▁look", "n▁a", "日", "."]},
    "across words": {"split_by_whitespace": False},
    "suffixes": {"treat_whitespace_as_suffix": True},
    "spaces kept": {"remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
    "unused": {},
}


@cache
def model(algorithm: str, variant: str = "usual") -> Tokenizer:
    """A vocabulary with settings of SentencePiece's that `Tokenizer.train` does not offer."""
    chosen = {"byte_fallback": True, "normalization_rule_name": "identity", **VARIANTS[variant]}
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*LINES * 3, *WORDS]),
        model_writer=made,
        model_type=algorithm,
        vocab_size=400 if chosen["byte_fallback"] else 140,
        minloglevel=2,
        hard_vocab_limit=False,
        **chosen,
    )
    content = made.getvalue()
    if variant == "unused":
        pieces = SentencePieceModel.of(content).pieces
        for piece in [p.text for p in pieces if p.kind is Kind.NORMAL and len(p.text) > 1][::3]:
            content = unused(content, piece)
    return Tokenizer(content)


def unused(content: bytes, piece: str) -> bytes:
    """The model with a piece that has the kind "unused" (field 3 is 5)."""
    text = piece.encode()
    name = bytes([0x0A, len(text)]) + text
    size = len(name) + 5  # and its score
    begin = content.index(bytes([0x0A, size]) + name)
    message = content[begin + 2 : begin + 2 + size] + b"\x18\x05"
    return content[:begin] + bytes([0x0A, len(message)]) + message + content[begin + 2 + size :]


def stream(line: int = 0, key: int = 5) -> np.random.Philox:
    return np.random.Philox(key=np.array([key, 0], np.uint64), counter=[0, 0, 0, line])


def sampled(tokenizer: Tokenizer, lines: list[str], strength: float) -> list[list[int]]:
    segments = segmentation(tokenizer.model, strength)
    return [segments.sample(text, stream(i)) for i, text in enumerate(tokenizer.normalized(lines))]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "char", "word"])
def test_the_contents_of_a_model_are_read(algorithm: str, variant: str) -> None:
    content = model(algorithm, variant).model
    found = SentencePieceModel.of(content)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=content)
    assert (found.algorithm, found.byte_fallback) == (algorithm, variant != "without bytes")
    assert len(found.pieces) == theirs.vocab_size()
    for i, piece in enumerate(found.pieces):
        assert (piece.text, piece.score) == (theirs.id_to_piece(i), theirs.get_score(i))
        assert theirs.is_unknown(i) == (piece.kind is Kind.UNKNOWN)
        assert theirs.is_control(i) == (piece.kind is Kind.CONTROL)
        assert theirs.is_unused(i) == (piece.kind is Kind.UNUSED)
        assert theirs.is_byte(i) == (piece.kind is Kind.BYTE)
    # SentencePiece adds each of them with a space before it too.
    user_defined = {p.text.strip("▁") for p in found.pieces if p.kind is Kind.USER_DEFINED}
    assert user_defined == {s.strip("▁") for s in VARIANTS[variant].get("user_defined_symbols", [])}


@pytest.mark.parametrize("variant", VARIANTS)
def test_bpe_that_leaves_out_no_merge_is_sentencepieces(variant: str) -> None:
    tokenizer = model("bpe", variant)
    assert len(TEXT) > 280
    assert sampled(tokenizer, TEXT, 0.0) == tokenizer.encode_lines(TEXT)


anything = st.text(st.characters(categories=None), max_size=40) | st.text("▁ \0ae<>0x日.\n")
bytes_as_text = st.binary(max_size=30).map(lambda raw: raw.decode(errors="surrogateescape"))


@given(anything | bytes_as_text, st.sampled_from(list(VARIANTS)))
@example("gardens and gardgarden", "user-defined")
@settings(deadline=None)
def test_bpe_of_any_text_is_sentencepieces(text: str, variant: str) -> None:
    tokenizer = model("bpe", variant)
    assert sampled(tokenizer, [text], 0.0) == [tokenizer.encode(text)]


def best_path(segments: SubwordRegularisation, text: str) -> tuple[float, list[int]]:
    best: list[tuple[float, list[int]]] = [(0.0, [])] + [(-math.inf, [])] * len(text)
    for begin in range(len(text)):
        so_far, path = best[begin]
        for end, ids, score in segments.arcs(text, begin):
            if so_far + score > best[end][0]:
                best[end] = so_far + score, [*path, *ids]
    return best[-1]


def paths(segments: SubwordRegularisation, text: str, begin: int = 0) -> Iterator[Any]:
    """All segmentations of a word, with the sums of their scores."""
    if begin == len(text):
        yield (), 0.0
        return
    for end, ids, score in segments.arcs(text, begin):
        for rest, scores in paths(segments, text, end):
            yield ids + rest, score + scores


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "without bytes"])
def test_the_most_probable_path_is_sentencepieces(variant: str) -> None:
    tokenizer = model("unigram", variant)
    segments = segmentation(tokenizer.model, 1.0)
    assert isinstance(segments, SubwordRegularisation)
    same = 0
    for line, text in zip(TEXT, tokenizer.normalized(TEXT), strict=True):
        found = tokenizer.encode(line)
        score, path = best_path(segments, text)
        if path == found:
            same += 1
        else:  # its sums have 24 bits, so that paths which are about as probable may change places
            assert score_of(segments, text, found) == pytest.approx(score, rel=1e-5)
    assert same > 0.9 * len(TEXT)


def score_of(segments: SubwordRegularisation, text: str, ids: list[int]) -> float:
    """The best score of the paths with these ids; minus infinity if there is none."""
    states = {(0, 0): 0.0}  # by place in the text and in the ids
    for begin in range(len(text)):
        for (place, known), so_far in [s for s in states.items() if s[0][0] == begin]:
            for end, piece, score in segments.arcs(text, place):
                if tuple(ids[known : known + len(piece)]) == piece:
                    key = (end, known + len(piece))
                    states[key] = max(so_far + score, states.get(key, -math.inf))
    return states.get((len(text), len(ids)), -math.inf)


def unlikely(found: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> bool:
    """Whether chi-squared is so large that it would be by chance once in a million times."""
    count = found.total()
    assert set(found) <= set(expected)
    rare = {ids for ids, chance in expected.items() if chance * count < 5}
    cells = [(found[ids], chance * count) for ids, chance in expected.items() if ids not in rare]
    left = (sum(found[ids] for ids in rare), count * sum(expected[ids] for ids in rare))
    if left[1] >= 5:
        cells.append(left)
    assert len(cells) > 3
    freedom = len(cells) - 1
    squared = sum((seen - mean) ** 2 / mean for seen, mean in cells)
    # Wilson and Hilferty: its third root is about normal. 4.75 deviations are one in a million.
    spread = 2 / (9 * freedom)
    return (squared / freedom) ** (1 / 3) > 1 - spread + 4.75 * math.sqrt(spread)


@pytest.mark.parametrize(
    ("word", "exponent"), [("▁after", 0.2), ("▁brother", 0.1), ("▁🙂after", 0.1)]
)
def test_segmentations_are_as_frequent_as_they_are_probable(word: str, exponent: float) -> None:
    segments = segmentation(model("unigram").model, exponent)
    assert isinstance(segments, SubwordRegularisation)
    weights: Counter[tuple[int, ...]] = Counter()
    for ids, score in paths(segments, word):
        weights[ids] += math.exp(exponent * score)  # type: ignore[assignment]
    expected = {ids: weight / weights.total() for ids, weight in weights.items()}
    found = Counter(tuple(segments.sample(word, stream(i))) for i in range(5_000))
    assert not unlikely(found, expected)
    uneven = Counter({ids: found[ids] * (1 + i % 2) for i, ids in enumerate(found)})
    assert unlikely(uneven, expected)


def dropped(tokenizer: Tokenizer, word: str, probability: float) -> dict[tuple[int, ...], float]:
    """The probability of each segmentation: both outcomes of every merge, one after another."""
    pieces = SentencePieceModel.of(tokenizer.model).pieces
    scores = {piece.text: piece.score for piece in pieces}
    ids = {piece.text: i for i, piece in enumerate(pieces)}
    result: Counter[tuple[int, ...]] = Counter()

    def go(
        bounds: tuple[int, ...], refused: frozenset[tuple[int, int, int]], chance: float
    ) -> None:
        spans = zip(bounds, bounds[1:], bounds[2:], strict=False)
        merges = [s for s in spans if word[s[0] : s[2]] in scores and s not in refused]
        if not merges:
            symbols = (word[a:b] for a, b in pairwise(bounds))
            result[tuple(ids[symbol] for symbol in symbols)] += chance  # type: ignore[assignment]
            return
        merge = min(merges, key=lambda s: (-scores[word[s[0] : s[2]]], s))
        go(tuple(b for b in bounds if b != merge[1]), refused, chance * (1 - probability))
        go(bounds, refused | {merge}, chance * probability)

    go(tuple(range(len(word) + 1)), frozenset(), 1.0)
    return dict(result)


@pytest.mark.parametrize(("word", "probability"), [("▁garden", 0.3), ("▁looking", 0.1)])
def test_merges_are_left_out_as_often_as_they_should(word: str, probability: float) -> None:
    tokenizer = model("bpe")
    segments = segmentation(tokenizer.model, probability)
    expected = dropped(tokenizer, word, probability)
    found = Counter(tuple(segments.sample(word, stream(i))) for i in range(5_000))
    assert not unlikely(found, expected)
    assert unlikely(found, dropped(tokenizer, word, probability * 1.2))


def test_all_merges_may_be_left_out() -> None:
    tokenizer = model("bpe")
    assert tokenizer.pieces(sampled(tokenizer, ["a garden"], 1.0)[0]) == list("▁a▁garden")


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_the_text_stays_the_same(algorithm: str, variant: str, strength: float) -> None:
    tokenizer = model(algorithm, variant)
    found = sampled(tokenizer, TEXT, strength)
    usual = tokenizer.encode_lines(TEXT)
    assert found != usual
    assert [tokenizer.decode(i) for i in found] == [tokenizer.decode(i) for i in usual]


@given(anything | bytes_as_text, st.sampled_from(["bpe", "unigram"]), st.sampled_from([0.1, 0.9]))
@settings(deadline=None)
def test_any_text_stays_the_same(text: str, algorithm: str, strength: float) -> None:
    tokenizer = model(algorithm)
    (found,) = sampled(tokenizer, [text], strength)
    assert tokenizer.decode(found) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_what_was_sampled_before_does_not_matter(algorithm: str) -> None:
    """What is kept of words changes nothing."""
    tokenizer = model(algorithm)
    texts = tokenizer.normalized(TEXT)
    segments = segmentation(tokenizer.model, 0.3)
    for _ in range(2):
        for line in reversed(range(len(TEXT))):
            alone = segmentation(tokenizer.model, 0.3) if line % 40 == 0 else segments
            assert segments.sample(texts[line], stream(line)) == alone.sample(
                texts[line], stream(line)
            )


def test_other_vocabularies_are_refused() -> None:
    with pytest.raises(UserError, match=r"no other segmentations .* 'char'"):
        segmentation(model("char").model, 0.1)


def test_another_process_samples_the_same() -> None:
    code = (
        "from tests.npformer.test_segmentation import *\n"
        "for name in ('bpe', 'unigram'):\n"
        "    print(sampled(model(name), TEXT[::9], 0.3))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.splitlines() == [
        str(sampled(model(name), TEXT[::9], 0.3)) for name in ("bpe", "unigram")
    ]
