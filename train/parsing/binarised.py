"""Trees as a binary grammar has them: at most two children, and markovised labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from train.parsing.trees import Leaf, Node, Tree


class Symbol(NamedTuple):
    """A symbol of the grammar.

    labels: of constituents that have a single child each, from the top, as one symbol: so there are
        no unary rules. The last of a word's is its tag.
    parent: the label of the constituent above, if symbols remember it
    after: of a part of a constituent, the siblings before it that it remembers; else None
    """

    labels: tuple[str, ...]
    parent: str
    after: tuple[str, ...] | None = None


class Word(NamedTuple):
    """A word."""

    symbol: Symbol
    word: str


class Pair(NamedTuple):
    """Two subtrees."""

    symbol: Symbol
    left: Binary
    right: Binary


Binary = Word | Pair


@dataclass(frozen=True)
class Markovisation:
    """How much of its surroundings a symbol remembers (Klein and Manning, 2003).

    Attributes:
        vertical: generations of labels: 1 is its own, 2 also its parent's
        horizontal: siblings before it that a part of a constituent remembers. A constituent with
            more than two children is its first one, and a part with the others.
    """

    vertical: int
    horizontal: int

    def binarised(self, tree: Tree, parent: str = "") -> Binary:
        """The tree with at most two children at each node."""
        labels = []
        while isinstance(tree, Node) and len(tree.children) == 1:
            labels.append(tree.label)
            [tree] = tree.children
        if isinstance(tree, Leaf):
            remembered = parent if labels and self.vertical > 1 else ""
            return Word(Symbol((*labels, tree.tag), remembered), tree.word)
        symbol = Symbol((*labels, tree.label), parent if self.vertical > 1 else "")
        names = [_name(child) for child in tree.children]
        *firsts, right = [self.binarised(child, tree.label) for child in tree.children]
        for i in range(len(firsts) - 1, 0, -1):
            after = tuple(names[max(0, i - self.horizontal) : i])
            right = Pair(symbol._replace(after=after), firsts[i], right)
        return Pair(symbol, firsts[0], right)


def unbinarised(tree: Binary) -> list[Tree]:
    """What was binarised: one tree, or those of a part."""
    labels = tree.symbol.labels
    if isinstance(tree, Word):
        *labels_above, tag = labels
        found: list[Tree] = [Leaf(tag, tree.word)]
    else:
        labels_above = list(labels)
        found = [*unbinarised(tree.left), *unbinarised(tree.right)]
        if tree.symbol.after is not None:
            return found
    for label in reversed(labels_above):
        found = [Node(label, tuple(found))]
    return found


def _name(tree: Tree) -> str:
    return tree.tag if isinstance(tree, Leaf) else tree.label
