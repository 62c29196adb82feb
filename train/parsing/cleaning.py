"""What parsers leave out of a treebank's trees: traces, functions, and the parts of a document."""

from __future__ import annotations

import re

from train.parsing.trees import TOP, Leaf, Node, Tree

_FUNCTIONS = re.compile("[-=]")
_TRACE = "-NONE-"
_OF_DOCUMENTS = ("TITLE", "HEADING", "CAPTION", "CIT")


def cleaned(tree: Node) -> Node | None:
    """A tree of words alone, as parsers learn it and are scored on it; None if it has no words.

    - Traces (-NONE-) are left out, and constituents that have nothing else.
    - Labels lose their functions and indices: NP-SBJ-1 and NP=2 become NP. Tags such as -LRB- stay.
    - Just below the top, CRAFT says what part of a document a line is: TITLE, HEADING, CAPTION or
      CIT. The Penn Treebank has no such labels and a sentence does not tell, so these are left out
      as the top is: their constituents are the top's.
    """
    lifted: list[Tree] = []
    for child in _all_cleaned(tree):
        if isinstance(child, Node) and child.label in _OF_DOCUMENTS:
            lifted += child.children
        else:
            lifted.append(child)
    return Node(TOP, tuple(lifted)) if lifted else None


def without_functions(label: str) -> str:
    """A constituent's label without functions and indices: NP of NP-SBJ-1 and of NP=2."""
    return _FUNCTIONS.split(label, maxsplit=1)[0] or label


def _cleaned(tree: Tree) -> Tree | None:
    if isinstance(tree, Leaf):
        return None if tree.tag == _TRACE else tree
    children = _all_cleaned(tree)
    return Node(without_functions(tree.label), tuple(children)) if children else None


def _all_cleaned(tree: Node) -> list[Tree]:
    return [found for child in tree.children if (found := _cleaned(child)) is not None]
