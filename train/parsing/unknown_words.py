"""Which tags a word may have, known or not: by what it looks like (Brants, 2000)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from train.parsing.trees import Leaf

_LONGEST_SUFFIX = 5  # letters
_RARE = 3  # words that occur at most as often are like unknown ones
_PRIOR = 1.0  # as many occurrences of a word, or a suffix, as what is more general counts for


class Tagger:
    """The tags of words.

    What is known of a word is its tags in the treebank; then, of rare words, the tags of those of
    the same shape (capitals, digits, other signs) and ending, from the longest ending to none.
    """

    def __init__(self, words: Iterable[Leaf]) -> None:
        """words: of a treebank, with their tags; at least one."""
        known: dict[str, Counter[str]] = defaultdict(Counter)
        for tag, word in words:
            known[word][tag] += 1
        self.tags: Sequence[str] = sorted({tag for tags in known.values() for tag in tags})
        self._ids = {tag: i for i, tag in enumerate(self.tags)}
        self._known = {word: self._counts(tags) for word, tags in known.items()}
        self._all = sum(self._known.values(), np.zeros(len(self.tags)))
        like: dict[tuple[str, str], NDArray[np.float64]] = {}
        for word, counts in self._known.items():
            if counts.sum() <= _RARE:
                for ending in endings(word):
                    like[ending] = like.get(ending, 0.0) + counts
        self._like = like

    def log_p(self, word: str) -> NDArray[np.float64]:
        """[tags]: the logarithm of P(word | tag), but for a constant: P(tag | word) / P(tag)."""
        p = self._all / self._all.sum()
        prior = p
        for ending in endings(word):
            if ending not in self._like:
                break
            p = _mixed(self._like[ending], p)
        if word in self._known:
            p = _mixed(self._known[word], p)
        return np.asarray(np.log(p) - np.log(prior))

    def _counts(self, tags: Counter[str]) -> NDArray[np.float64]:
        counts = np.zeros(len(self.tags))
        for tag, count in tags.items():
            counts[self._ids[tag]] = count
        return counts


def _mixed(counts: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Relative frequencies, with the more general p as some occurrences."""
    return (counts + _PRIOR * p) / (counts.sum() + _PRIOR)


def endings(word: str) -> Iterable[tuple[str, str]]:
    """The shape of a word with endings, from none to the longest."""
    kinds = (
        "A" if c.isupper() else "a" if c.isalpha() else "0" if c.isdigit() else c for c in word
    )
    shape = "".join(sorted(set(kinds)))
    shape = f"{'A' if word[:1].isupper() else ''}:{shape}"
    for length in range(min(_LONGEST_SUFFIX, len(word)) + 1):
        yield shape, word[len(word) - length :].lower()
