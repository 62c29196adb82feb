"""The baseline that looks at no word: a constituent is a word and all that follow it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from train.parsing.evalb import PUNCTUATION, Brackets
from train.parsing.linearised import Known
from train.parsing.trees import TOP, Leaf, Node, Tree


class RightBranching:
    """Right-branching trees with the labels that do best: (S w (NP w (NP w w)) .).

    Punctuation at the end belongs to the whole sentence. The whole has one label, and all within it
    another: each the most frequent in the treebank of constituents that end with their sentence.
    """

    def __init__(self, trees: Iterable[Node], known: Known) -> None:
        """trees: of the treebank that `known` is of."""
        self._known = known
        whole: Counter[str] = Counter()
        within: Counter[str] = Counter()
        for found in map(Brackets.of, trees):
            for (label, begin, end), count in found.brackets.items():
                if end == len(found.words) and end - begin > 1:
                    (within if begin else whole)[label] += count
        self._whole, self._within = _most_frequent(whole), _most_frequent(within)

    def parse(self, words: Sequence[str]) -> Node:
        """The tree over these words, at least one."""
        given: list[Tree] = [Leaf(self._known.tag(word), word) for word in words]
        end = len(given)
        while end > 1 and given[end - 1][0] in PUNCTUATION:
            end -= 1
        rest = given[end - 1 : end]
        for leaf in reversed(given[: end - 1]):
            inner = [Node(self._within, tuple(rest))] if len(rest) > 1 else rest
            rest = [leaf, *inner]
        return Node(TOP, (Node(self._whole, (*rest, *given[end:])),))


def _most_frequent(labels: Counter[str]) -> str:
    return labels.most_common(1)[0][0] if labels else "S"
