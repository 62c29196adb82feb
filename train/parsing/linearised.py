"""Trees as lines of symbols, which a translation model writes, and back (Vinyals et al., 2015)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

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

        A word of the treebank has one of its own tags there: the written one, or else its most
        frequent. Another word has the written one, unless that is punctuation's or no tag; then it
        has the most frequent of words that occur once.
        """
        own = self.tags.get(word)
        if own:
            return written if written in own else own.most_common(1)[0][0]
        if written in self.all_tags and written not in PUNCTUATION:
            return written
        return self._usual

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
    - Each tag takes the next word; after the last word, tags are ignored. Words that are left are
      put at the end of the last constituent below the top.
    - Constituents without words are left out.
    """
    waiting = list(reversed(words))
    opened: list[tuple[str, list[Tree]]] = [(TOP, [])]

    def close() -> None:
        label, children = opened.pop()
        if children:
            opened[-1][1].append(Node(label, tuple(children)))

    for symbol in symbols:
        mark, label = symbol[:1], symbol[1:]
        if mark == "(":
            if label in known.labels and len(opened) < DEEPEST:
                opened.append((label, []))
        elif mark == ")":
            inwards = [i for i, (of, _) in enumerate(opened) if i and of == label]
            while inwards and len(opened) > inwards[-1]:
                close()
        elif waiting and symbol in known.all_tags:
            word = waiting.pop()
            opened[-1][1].append(Leaf(known.tag(word, symbol), word))
    while len(opened) > 1:
        close()
    [(_, children)] = opened
    left = [Leaf(known.tag(word), word) for word in reversed(waiting)]
    if children and isinstance(last := children[-1], Node):
        children[-1] = Node(last.label, (*last.children, *left))
    else:
        children += left
    return Node(TOP, tuple(children))
