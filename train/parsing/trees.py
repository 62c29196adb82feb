"""Constituency trees, and their brackets as the Penn Treebank writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from npformer.errors import UserError
from train.wording import counted

TOP = "TOP"
"""The label above a whole sentence, which scores leave out."""

DEEPEST = 200  # brackets within each other; treebanks have some 50
_TOPS = ("", TOP, "ROOT", "S1")  # the Penn Treebank's own is empty
_TOKEN = re.compile(r"[()]|[^\s()]+")


class Leaf(NamedTuple):
    """A word under its part-of-speech tag: (NN dog)."""

    tag: str
    word: str


class Node(NamedTuple):
    """A constituent: (NP (DT the) (NN dog))."""

    label: str
    children: tuple[Tree, ...]


Tree = Leaf | Node


def leaves(tree: Tree) -> list[Leaf]:
    """The words of a tree with their tags, from left to right."""
    found, waiting = [], [tree]
    while waiting:
        of = waiting.pop()
        if isinstance(of, Leaf):
            found.append(of)
        else:
            waiting.extend(reversed(of.children))
    return found


def words(tree: Tree) -> list[str]:
    """The words of a tree."""
    return [leaf.word for leaf in leaves(tree)]


def bracketed(tree: Tree) -> str:
    """The tree in one line: (TOP (S (NP (NNS Dogs)) (VP (VBP bark))))."""
    written: list[str] = []
    waiting: list[Tree | None] = [tree]
    while waiting:
        of = waiting.pop()
        if of is None:
            written.append(")")
        elif isinstance(of, Leaf):
            written.append(f" ({of.tag} {of.word})")
        else:
            written.append(f" ({of.label}")
            waiting += [None, *reversed(of.children)]
    return "".join(written).lstrip()


def read_trees(lines: Iterable[str], name: str) -> Iterator[Node]:
    """The trees in lines of text; a tree may take several, and a line may have several.

    name: of the text, for messages. The root of each is called TOP, whether the text writes it as
    "( (S ...))", "(TOP (S ...))", "(ROOT ...)", "(S1 ...)" or leaves it out. The parts of a word
    that has spaces in it, as some of CRAFT's, are joined by "_". Raises UserError, with the line,
    for text that is not trees.
    """
    opened: list[_Open] = []
    after_bracket = False
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}"
        for token in _TOKEN.findall(line):
            if token == "(":
                if len(opened) == DEEPEST:
                    raise UserError(f"{where}: more than {DEEPEST} brackets are open")
                opened.append(_Open(number))
            elif not opened:
                what = "a bracket closes" if token == ")" else f"{token[:40]!r} stands"
                raise UserError(f"{where}: {what} outside of every tree")
            elif token == ")":
                tree = opened.pop().closed(where)
                if opened:
                    opened[-1].children.append(tree)
                elif isinstance(tree, Leaf):
                    raise UserError(f"{where}: the word {tree.word[:40]!r} belongs to no tree")
                else:
                    yield _rooted(tree)
            elif after_bracket:
                opened[-1].label = token
            else:
                opened[-1].words.append(token)
            after_bracket = token == "("
    if opened:
        raise UserError(
            f"{name}, line {opened[0].line}: the tree that begins here lacks "
            f"{counted(len(opened), 'closing bracket')}"
        )


class _Open:
    """A bracket that is not closed yet. line: on which it was opened."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.label = ""
        self.words: list[str] = []
        self.children: list[Tree] = []

    def closed(self, where: str) -> Tree:
        if bool(self.words) == bool(self.children) or (self.words and not self.label):
            raise UserError(
                f"{where}: the bracket ({self.label[:40]} that closes here must have either one "
                "word or brackets within it"
            )
        if self.words:
            return Leaf(self.label, "_".join(self.words))
        return Node(self.label, tuple(self.children))


def _rooted(tree: Node) -> Node:
    return Node(TOP, tree.children if tree.label in _TOPS else (tree,))
