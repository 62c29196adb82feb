"""Settings of the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from autograd.backend import Array

_LARGEST_PENALTY = 30  # with more, the divisor of a long translation overflows
# More is probably a typo, and would take hours or all memory: the cache is allocated at once, with
# room for every token of every hypothesis.
LARGEST_BEAM = 1_000
_LARGEST_LENGTH = 10_000
_LARGEST_RATIO = 1_000
_LARGEST_TEMPERATURE = _LARGEST_DIVERSITY = 1_000


@dataclass(frozen=True)
class SearchSettings:
    """Settings of the search. The defaults are the paper's.

    A translation has at most as many tokens, its end included, as each of `extra_length`,
    `max_length` and `max_ratio` allows. It has at least as many, its end not included, as each of
    `min_length` and `min_ratio` demands, but always fewer than the most.

    Attributes:
        beam: hypotheses kept per sentence; 1 is greedy search
        length_penalty: α, 0 to 30; the larger, the longer the translations
        penalty: "gnmt", log P / ((5 + n) / 6)^α (the paper; Wu et al., 2016), "power",
            log P / n^α (fairseq's --lenpen, CTranslate2's length_penalty), or "none", log P. n
            counts the end token.
        coverage_penalty: β of Wu et al. (2016), equation 14: β Σ log min(a, 1) is added to the
            score. a is the attention that a source token has had in all, in the layer that aligns
            words best; the end does not count.
        extra_length: a translation has at most this many tokens more than its source
        alternatives: translations returned per sentence, at most `beam`
        min_length: a translation has at least this many tokens
        min_ratio: and at least this many for each token of its source
        max_length: it has at most this many tokens
        max_ratio: and at most this many for each token of its source
        no_repeat_ngram: no as many tokens in a row occur twice in a translation; 0 allows it. Where
            this leaves no token to choose, as before a minimum that is longer than the vocabulary,
            it is allowed.
        groups: the beam is divided into as many; at each step, one after the other chooses, and
            avoids what those before it have chosen (Vijayakumar et al., 2018)
        diversity: what a token loses for each hypothesis of an earlier group that it was chosen
            for, in nats; scores do not change
        sampling: draw `alternatives` translations at random, each token by its probability. `beam`
            does not count then.
        seed: of the random numbers; with the same, the same are drawn whatever the batch
        temperature: probabilities are taken to the power of 1 / temperature. This, `seed`, `top_k`
            and `top_p` are refused without `sampling`, and so is `diversity` without `groups`.
        top_k: draw from as many of the likeliest tokens; 0 is all
        top_p: draw from the likeliest tokens that together have this share of the probability
        stop: when a sentence is done: "bound", once no hypothesis can reach a better score than
            those that have ended, or "beam", once there are as many as the beam has. Then only
            those have ended whose end was among as many best continuations of its step. That is
            the rule of fairseq and CTranslate2. It is faster, and may miss the best translation.
    """

    beam: int = 4
    length_penalty: float = 0.6
    penalty: Literal["gnmt", "power", "none"] = "gnmt"
    extra_length: int = 50
    alternatives: int = 1
    min_length: int = 0
    min_ratio: float = 0.0
    max_length: int | None = None
    max_ratio: float | None = None
    no_repeat_ngram: int = 0
    groups: int = 1
    diversity: float = 0.5
    sampling: bool = False
    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    coverage_penalty: float = 0.0
    stop: Literal["bound", "beam"] = "bound"

    def __post_init__(self) -> None:
        """Raises ValueError for invalid settings."""
        self._check_whole("beam", 1, LARGEST_BEAM)
        self._check_whole("extra_length", 1, _LARGEST_LENGTH)
        self._check_number("length_penalty", _LARGEST_PENALTY)
        if self.penalty not in ("gnmt", "power", "none"):
            raise ValueError(f"penalty must be gnmt, power or none, got {self.penalty!r}")
        if self.stop not in ("bound", "beam"):
            raise ValueError(f"stop must be bound or beam, got {self.stop!r}")
        if self.sampling and self.stop != "bound":
            raise ValueError("stop must be bound with sampling, which draws each to its end")
        if self.sampling:
            self._check_whole("alternatives", 1, LARGEST_BEAM)
        self._check_whole("alternatives")
        if not (self.sampling or 1 <= self.alternatives <= self.beam):
            raise ValueError(
                f"alternatives must lie between 1 and beam ({self.beam}), got {self.alternatives}"
            )
        self._check_whole("min_length", 0, _LARGEST_LENGTH)
        self._check_number("min_ratio", _LARGEST_RATIO)
        if self.max_length is not None:
            self._check_whole("max_length", 1, _LARGEST_LENGTH)
            if self.max_length <= self.min_length:
                raise ValueError(
                    f"max_length must be more than min_length ({self.min_length}), because it "
                    f"counts the end, got {self.max_length}"
                )
        if self.max_ratio is not None:
            self._check_number("max_ratio", _LARGEST_RATIO)
            if not 0 < self.max_ratio >= self.min_ratio:
                raise ValueError(
                    f"max_ratio must be more than 0 and at least min_ratio ({self.min_ratio:g}), "
                    f"got {self.max_ratio:g}"
                )

        self._check_whole("no_repeat_ngram", 0, _LARGEST_LENGTH)
        self._check_whole("groups", 1, self.beam)
        if self.beam % self.groups:
            raise ValueError(f"groups must divide the beam ({self.beam}) evenly, got {self.groups}")
        if self.groups > 1 and self.sampling:
            raise ValueError("groups must be 1 with sampling, which has no beam")
        self._check_number("diversity", _LARGEST_DIVERSITY)
        self._check_number("coverage_penalty", _LARGEST_PENALTY)
        self._check_whole("seed", 0, 2**64 - 1)
        self._check_number("temperature", _LARGEST_TEMPERATURE)
        self._check_whole("top_k", 0, 2**31 - 1)
        self._check_number("top_p", 1)
        for name in ("temperature", "top_p"):
            if getattr(self, name) == 0:
                raise ValueError(f"{name} must be more than 0; with beam 1, a search is greedy")
        # What would change nothing was meant to change something.
        if not self.sampling:
            for name in ("temperature", "top_k", "top_p", "seed"):
                self._check_unchanged(name, "sampling")
        if self.groups == 1:
            self._check_unchanged("diversity", "groups")

    @property
    def rows(self) -> int:
        """The hypotheses of a sentence that are computed together."""
        return self.alternatives if self.sampling else self.beam

    @property
    def kept_scores(self) -> int:
        """How many scores of hypotheses that have ended decide when a sentence is done."""
        return self.beam if self.stop == "beam" else self.alternatives

    def _check_whole(self, name: str, least: int = 0, most: int | None = None) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ValueError(f"{name} must be a whole number, got {value!r}")
        if most is not None and not least <= value <= most:
            raise ValueError(f"{name} must be {least} to {most:,}, got {value:,}")

    def _check_number(self, name: str, most: float) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise ValueError(f"{name} must be a number, got {value!r}")
        if not 0 <= value <= most:
            raise ValueError(f"{name} must be 0 to {most:,}, got {value}")

    def _check_unchanged(self, name: str, without: str) -> None:
        value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
        if value != default:
            raise ValueError(f"{name} must be {default:g} without {without}, got {value:g}")

    def divisor(self, length: Array) -> Array:
        """The length penalty: log P of a translation of `length` tokens is divided by it."""
        alpha = 0.0 if self.penalty == "none" else self.length_penalty
        base = (5 + length) / 6 if self.penalty == "gnmt" else 1.0 * length
        return base**alpha

    def most_tokens(self, source_lengths: np.ndarray) -> np.ndarray:
        """[sentences]: the most tokens of each translation, its end included.

        source_lengths: [sentences], without the end.
        """
        most = source_lengths + self.extra_length
        if self.max_length is not None:
            most = np.minimum(most, self.max_length)
        if self.max_ratio is not None:
            of_ratio = np.floor(self.max_ratio * source_lengths).astype(most.dtype)
            most = np.minimum(most, np.maximum(of_ratio, 1))
        return most

    def fewest_tokens(self, source_lengths: np.ndarray) -> np.ndarray:
        """[sentences]: the fewest tokens of each translation, its end not included."""
        fewest = np.ceil(self.min_ratio * source_lengths).astype(source_lengths.dtype)
        return np.maximum(fewest, self.min_length)
