"""Random segmentations of text: BPE-dropout and subword regularisation.

SentencePiece has both, but draws from a generator of its own, whose numbers cannot be repeated in
another process. Here they are functions of the text and of the random numbers given.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from npformer.errors import UserError
from npformer.sentencepiece_model import Kind, SentencePieceModel

_IN_TEXT = (Kind.NORMAL, Kind.USER_DEFINED, Kind.UNUSED)  # what text is made of
_SPACE = "\u2581"
_WORD = re.compile(f"{_SPACE}?[^{_SPACE}]+|{_SPACE}")

# Most words are short and come again. What is found out about those is kept.
_LONGEST_KEPT = 24  # characters
_KEPT_TURNS = 1  # merges that are left out of a word
_KEPT_MERGES = 1 << 17
_KEPT_LATTICES = 1 << 15

_UNKNOWN_PENALTY = 10.0  # SentencePiece's: an unknown character, below the least probable piece

Ids = tuple[int, ...]

Ending = tuple[tuple[float, ...], tuple[int, ...], tuple[Ids, ...]]
"""The pieces of a word that may end at some place in it: the bounds between them in [0, 1), whose
distances are the pieces' probabilities; where each piece begins; the token ids of each."""

Lattice = tuple[Ending, ...]
"""For each place in a word, from 0 to its length. Plain tuples of numbers, because there are many,
and the garbage collector soon leaves those alone."""


class Segmentation(ABC):
    """Segments lines at random."""

    def __init__(self, model: SentencePieceModel) -> None:
        self._unknown = next(i for i, p in enumerate(model.pieces) if p.kind is Kind.UNKNOWN)
        self._bytes: list[Ids] = []
        if model.byte_fallback:
            ids = {p.text: (i,) for i, p in enumerate(model.pieces) if p.kind is Kind.BYTE}
            self._bytes = [ids[f"<0x{byte:02X}>"] for byte in range(256)]
        # Then no piece has characters of two words.
        self._words_are_apart = not any(
            _SPACE in p.text[1:] for p in model.pieces if p.kind in _IN_TEXT
        )

    def sample(self, text: str, random: np.random.Philox) -> list[int]:
        """The token ids of a normalized line.

        random: a stream for this line, of which only the raw numbers are used; NumPy guarantees
        them across versions.
        """
        words = _WORD.findall(text) if self._words_are_apart else [text][: len(text)]
        found = self._segment(words, len(text), random)
        if self._bytes:
            return found
        # Like SentencePiece, one unknown token for several characters.
        unknown = self._unknown
        return [i for k, i in enumerate(found) if not (k and i == found[k - 1] == unknown)]

    @abstractmethod
    def _segment(
        self, words: Sequence[str], characters: int, random: np.random.Philox
    ) -> list[int]: ...

    def _ids_of_unknown(self, text: str) -> Ids:
        if self._bytes:
            return tuple(i for byte in text.encode() for i in self._bytes[byte])
        return (self._unknown,)


class BPEDropout(Segmentation):
    """Merges neighbours as BPE does, but leaves merges out at random (Provilkov et al.).

    The possible merges come by their scores; each is left out with a probability when its turn
    comes, and comes no more until one of its two symbols has changed. As in SentencePiece, unused
    pieces are split again in the end, and user-defined ones are symbols from the beginning, which
    take part in no merge.
    """

    def __init__(self, model: SentencePieceModel, probability: float) -> None:
        super().__init__(model)
        self._probability = probability
        self._ids = {p.text: (i,) for i, p in enumerate(model.pieces) if p.kind in _IN_TEXT}
        # The merge with the lowest rank comes first.
        self._ranks = {p.text: -p.score for p in model.pieces if p.kind in _IN_TEXT}
        self._ids |= {p.text: (i,) for i, p in enumerate(model.pieces) if p.kind not in _IN_TEXT}
        self._unused = {p.text for p in model.pieces if p.kind is Kind.UNUSED}
        self._user_defined = {p.text for p in model.pieces if p.kind is Kind.USER_DEFINED}
        longest_first = sorted(map(re.escape, self._user_defined), key=len, reverse=True)
        self._symbol = re.compile("|".join([*longest_first, "."]), re.DOTALL)
        self._words_are_apart &= not self._unused  # the whole line decides how they are split
        self._kept = lru_cache(_KEPT_MERGES)(self._merged)

    def _segment(
        self, words: Sequence[str], characters: int, random: np.random.Philox
    ) -> list[int]:
        found: list[int] = []
        # A merge brings at most two new ones, so there are less than three for each character.
        turns = 3 * characters
        left_out = np.flatnonzero(_uniform(random, turns) < self._probability).tolist()
        left_out.append(turns)
        turn = first = 0
        for word in words:
            for count in range(_KEPT_TURNS + 1 if len(word) <= _LONGEST_KEPT else 0):
                ids, taken = self._kept(
                    word, tuple(t - turn for t in left_out[first : first + count])
                )
                if left_out[first + count] >= turn + taken:
                    break
            else:
                ids, taken = self._merged(word, {t - turn for t in left_out[first:]})
            found += ids
            turn += taken
            while left_out[first] < turn:
                first += 1
        return found

    def _merged(self, word: str, left_out: Collection[int]) -> tuple[Ids, int]:
        """The ids of a word without the merges whose turns are in `left_out`; the turns it took."""
        symbols = self._symbol.findall(word)
        halves: dict[str, tuple[str, str]] = {}
        ranks = [self._rank(*pair, halves) for pair in pairwise(symbols)]
        turn = 0
        while ranks and (lowest := min(ranks)) < math.inf:
            left = ranks.index(lowest)
            if turn in left_out:
                ranks[left] = math.inf
            else:
                symbols[left : left + 2] = [symbols[left] + symbols[left + 1]]
                del ranks[left]
                if left > 0:
                    ranks[left - 1] = self._rank(symbols[left - 1], symbols[left], halves)
                if left < len(ranks):
                    ranks[left] = self._rank(symbols[left], symbols[left + 1], halves)
            turn += 1
        return tuple(i for symbol in symbols for i in self._split(symbol, halves)), turn

    def _rank(self, left: str, right: str, halves: dict[str, tuple[str, str]]) -> float:
        """The rank of the merge of two symbols, infinite if there is none."""
        both = left + right
        if both not in self._ranks or left in self._user_defined or right in self._user_defined:
            return math.inf
        if both in self._unused:
            halves[both] = left, right
        return self._ranks[both]

    def _split(self, symbol: str, halves: dict[str, tuple[str, str]]) -> Ids:
        if symbol in halves:
            left, right = halves[symbol]
            return self._split(left, halves) + self._split(right, halves)
        return self._ids.get(symbol) or self._ids_of_unknown(symbol)


class SubwordRegularisation(Segmentation):
    """Draws a segmentation by its probability to the power of `exponent` (Kudo, 2018).

    Forward filtering, backward sampling: the sums over all segmentations of each beginning of a
    word give the probabilities of the pieces that end there, and pieces are drawn from the last
    to the first.
    """

    def __init__(self, model: SentencePieceModel, exponent: float) -> None:
        super().__init__(model)
        self._exponent = exponent
        scores = [p.score for p in model.pieces if p.kind is Kind.NORMAL]
        self._unknown_score = min(scores, default=0.0) - _UNKNOWN_PENALTY
        largest = max([0.0, *scores])  # SentencePiece's begins at 0
        self._pieces = {
            p.text: ((i,), len(p.text) * largest - 0.1 if p.kind is Kind.USER_DEFINED else p.score)
            for i, p in enumerate(model.pieces)
            if p.kind in (Kind.NORMAL, Kind.USER_DEFINED)
        }
        self._longest = max(map(len, self._pieces), default=0)
        self._kept = lru_cache(_KEPT_LATTICES)(self.lattice)

    def _segment(
        self, words: Sequence[str], characters: int, random: np.random.Philox
    ) -> list[int]:
        uniform = iter(_uniform(random, characters).tolist())
        found: list[Ids] = []
        for word in reversed(words):
            lattice = self._kept(word) if len(word) <= _LONGEST_KEPT else self.lattice(word)
            end = len(word)
            while end:
                bounds, begins, ids = lattice[end]
                drawn = bisect_right(bounds, next(uniform))
                end = begins[drawn]
                found.append(ids[drawn])
        return [i for piece in reversed(found) for i in piece]

    def arcs(self, word: str, begin: int) -> Iterator[tuple[int, Ids, float]]:
        """The pieces that a word has at `begin`: the end, token ids and score of each."""
        get = self._pieces.get
        if word[begin] not in self._pieces:
            yield begin + 1, self._ids_of_unknown(word[begin]), self._unknown_score
        for end in range(begin + 1, min(begin + self._longest, len(word)) + 1):
            if piece := get(word[begin:end]):
                ids, score = piece
                yield end, ids, score

    def lattice(self, word: str) -> Lattice:
        """For each place in a word, 0 to its length, the pieces that may end there."""
        total = 0.0  # the logarithm of the sum over all segmentations that end at a place
        ending: list[list[tuple[float, int, Ids]]] = [[] for _ in range(len(word) + 1)]
        lattice: list[Ending] = [((), (), ())]
        for place in range(len(word)):
            for end, piece, score in self.arcs(word, place):
                ending[end].append((total + self._exponent * score, place, piece))
            weights, begins, ids = zip(*ending[place + 1], strict=True)
            top = max(weights)
            *bounds, last = accumulate([math.exp(weight - top) for weight in weights])
            lattice.append((tuple([bound / last for bound in bounds]), begins, ids))
            total = top + math.log(last)
        return tuple(lattice)


def segmentation(model: bytes, strength: float) -> Segmentation:
    """Random segmentations with a vocabulary.

    model: the contents of a SentencePiece model file. strength: of a BPE vocabulary, the
    probability that a merge is left out (BPE-dropout); of a unigram vocabulary, the exponent of the
    probabilities of all segmentations, from which one is drawn (subword regularisation). Raises
    UserError for a vocabulary of another kind.
    """
    contents = SentencePieceModel.of(model)
    if contents.algorithm == "bpe":
        return BPEDropout(contents, strength)
    if contents.algorithm == "unigram":
        return SubwordRegularisation(contents, strength)
    raise UserError(
        f"there are no other segmentations with a vocabulary of the kind {contents.algorithm!r}: "
        "train without sampling, or prepare the corpus with one of the kind bpe or unigram"
    )


def _uniform(random: np.random.Philox, count: int) -> NDArray[np.float64]:
    """[count]: numbers in [0, 1) with 53 bits."""
    return (random.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
