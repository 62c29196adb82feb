"""Trees as lines of symbols, which a translation model writes, and back (Vinyals et al., 2015)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from train.parsing.alignment import aligned
from train.parsing.evalb import PUNCTUATION
from train.parsing.trees import DEEPEST, TOP, Leaf, Node, Tree, leaves


def linearised(tree: Node) -> list[str]:
    """The symbols of a tree: (S (NP NNS )NP (VP VBP )VP )S.

    As in tensor2tensor, words are left out, a tag stands for each, and the top is left out too.
    """
    found: list[str] = []
    waiting: list[Tree | str] = [*reversed(tree.children)]
    while waiting:
        of = waiting.pop()
        if isinstance(of, str):
            found.append(of)
        elif isinstance(of, Leaf):
            found.append(of.tag)
        else:
            found.append(f"({of.label}")
            waiting += [f"){of.label}", *reversed(of.children)]
    return found


_MISTAKES = 0.01  # of the tags of a word
_BRACKETS = ("(", ")")


@dataclass(frozen=True)
class Known:
    """What a treebank has: the labels of constituents, and the tags of each word, with counts."""

    labels: frozenset[str]
    tags: Mapping[str, Counter[str]]

    @classmethod
    def of(cls, trees: Iterable[Node]) -> Known:
        """What these trees have; at least one word."""
        labels: set[str] = set()
        tags: dict[str, Counter[str]] = defaultdict(Counter)
        for tree in trees:
            labels.update(s[1:] for s in linearised(tree) if s.startswith("("))
            for tag, word in leaves(tree):
                tags[word][tag] += 1
        return cls(frozenset(labels), dict(tags))

    def tag(self, word: str, written: str = "") -> str:
        """The tag of a word for which a model has written this one, or nothing.

        A word of the treebank has one of its own tags there, but for the rarest, which may be
        mistakes: the written one, or else its most frequent. Another word has the written one,
        unless that is punctuation's or no tag; then it has the most frequent of words that occur
        once.
        """
        own = self.tags.get(word)
        if own:
            is_usual = own[written] > _MISTAKES * own.total()
            return written if is_usual else own.most_common(1)[0][0]
        if written in self.all_tags and written not in PUNCTUATION:
            return written
        return self._usual

    def fits(self, written: str, word: str) -> bool:
        """Whether the word has the tag that a model has written."""
        return self.tag(word, written) == written

    def has(self, symbol: str) -> bool:
        """Whether it is a tag, or a bracket of a label, of the treebank."""
        return symbol in self.all_tags or (symbol[:1] in _BRACKETS and symbol[1:] in self.labels)

    @cached_property
    def all_tags(self) -> frozenset[str]:
        return frozenset(tag for own in self.tags.values() for tag in own)

    @cached_property
    def _usual(self) -> str:
        once = Counter(tag for own in self.tags.values() if own.total() == 1 for tag in own)
        return (once or sum(self.tags.values(), Counter())).most_common(1)[0][0]


def repaired(words: Sequence[str], symbols: Iterable[str], known: Known) -> Node:
    """The tree over these words, at least one, that a model has meant with these symbols.

    Whatever the symbols are, the tree has exactly the words:

    - A bracket whose label the treebank lacks is ignored, and so is any other symbol that it lacks,
      and an opening bracket within very many others.
    - A closing bracket closes the innermost open constituent of its label, and all within it; if
      none is open, it is ignored. At the end, all are closed.
    - Tags are aligned with the words so that they fit them best, for one may be missing and another
      too many. A tag without a word is ignored; a word without a tag stands beside the word before
      it, or else before the first.
    - Constituents without words are left out.
    """
    usable = [symbol for symbol in symbols if known.has(symbol)]
    tags = [symbol for symbol in usable if symbol in known.all_tags]
    in_place = iter(_leaves_in_place(tags, words, known))
    opened: list[tuple[str, list[Tree]]] = [(TOP, [])]

    def close() -> None:
        label, children = opened.pop()
        if children:
            opened[-1][1].append(Node(label, tuple(children)))

    for symbol in usable:
        if symbol in known.all_tags:
            opened[-1][1].extend(next(in_place))
        elif symbol.startswith("("):
            if len(opened) < DEEPEST - 1:  # a word has a bracket too
                opened.append((symbol[1:], []))
        else:
            inwards = [i for i, (label, _) in enumerate(opened) if i and label == symbol[1:]]
            while inwards and len(opened) > inwards[-1]:
                close()
    while len(opened) > 1:
        close()
    [(_, children)] = opened
    return Node(TOP, tuple(children or [Leaf(known.tag(word), word) for word in words]))


def _leaves_in_place(tags: Sequence[str], words: Sequence[str], known: Known) -> list[list[Leaf]]:
    """For each tag the leaves that stand in its place."""
    places = aligned(tags, words, known.fits)
    _, *begins = [place for place in places if place is not None] or [0]
    spans = zip([0, *begins], [*begins, len(words)], strict=True)
    found: list[list[Leaf]] = []
    for tag, place in zip(tags, places, strict=True):
        around = range(0) if place is None else range(*next(spans))
        found.append([Leaf(known.tag(words[i], tag * (i == place)), words[i]) for i in around])
    return found
