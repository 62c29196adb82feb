"""The words of sentences as the model reads them: rare ones as classes of what they look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from train.parsing.unknown_words import endings


class SourceWords(NamedTuple):
    """The vocabulary of sentences: frequent words, and classes of rare ones.

    A rare word is read as the class of its shape and ending, with the longest ending that is not
    rare itself, as parsers do that have no subwords (Petrov et al., 2006). So each word is one
    token, and the model's n-th tag is of its n-th token.
    """

    frequent: frozenset[str]
    classes: frozenset[str]

    @classmethod
    def of(cls, words: Iterable[str], at_least: int) -> SourceWords:
        """The vocabulary of a treebank's words. at_least: occurrences of what is not rare."""
        counts = Counter(words)
        frequent = {word for word, count in counts.items() if count >= at_least}
        classes: Counter[str] = Counter()
        for word in counts.keys() - frequent:
            classes.update(_classes(word))
        return cls(frozenset(frequent), frozenset(c for c, n in classes.items() if n >= at_least))

    def __call__(self, words: Sequence[str]) -> list[str]:
        """The symbol of each word."""
        return [word if word in self.frequent else self._class(word) for word in words]

    def _class(self, word: str) -> str:
        found = [name for name in _classes(word) if name in self.classes]
        return found[-1] if found else _OTHER


_OTHER = "_other_"


def _classes(word: str) -> list[str]:
    """The classes of a word, from that of its shape alone to that of its longest ending."""
    return [f"_{shape}_{ending}_" for shape, ending in endings(word)]
