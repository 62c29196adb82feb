"""Treebanks: the files of trees, and those of the Wall Street Journal's usual division."""

from __future__ import annotations

from pathlib import Path

from npformer.errors import UserError
from train.corpora.text import read_lines
from train.parsing.cleaning import cleaned
from train.parsing.trees import Node, read_trees


def read_treebank(path: Path) -> list[Node]:
    """The trees in a file, or in all files of a folder and those in it, by name; cleaned.

    A tree without words is left out. Raises UserError for what cannot be read, is not trees, or
    has none.
    """
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    found = []
    for file in files:
        for tree in map(cleaned, read_trees(read_lines(file), str(file))):
            if tree is not None:
                found.append(tree)
    if not found:
        raise UserError(f"{path} holds no trees; give a file or a folder of bracketed trees")
    return found


def read_sections(path: Path, first: int, last: int) -> list[Node]:
    """The trees of sections of the Penn Treebank's Wall Street Journal.

    path: the folder that holds the folders 00 to 24 (parsed/mrg/wsj). Raises UserError if one is
    missing.
    """
    found = []
    for number in range(first, last + 1):
        section = path / f"{number:02d}"
        if not section.is_dir():
            raise UserError(
                f"{path} has no section {number:02d}; give the folder of the Penn Treebank that "
                "holds 00 to 24, such as parsed/mrg/wsj"
            )
        found += read_treebank(section)
    return found
