"""The text that the examples train on: the generated grammar, or files that are given."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from npformer import UserError
from train.corpora.text import read_lines
from train.grammar import generate

PAIRS = {"pairs": 10_000, "held_out": 400}


@contextmanager
def mistakes_in_a_line() -> Iterator[None]:
    """End the program with one line for a user's mistake inside a `with`."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")


def sentences(files: Sequence[str]) -> list[str]:
    """The lines of the one file, or the English of the grammar if there is none.

    Raises UserError if the file cannot be read, or there are more.
    """
    if len(files) > 1:
        raise UserError("give one file, TEXT, with a sentence a line, or nothing")
    return [*read_lines(files[0])] if files else [pair.source for pair in generate().train]


def four_files(files: Sequence[str | Path], folder: Path) -> Sequence[str | Path]:
    """The four files, or the grammar written to `folder` if there are none.

    Raises UserError if there are some, but not four.
    """
    if len(files) not in (0, 4):
        raise UserError("give TRAIN_SOURCE TRAIN_TARGET VALID_SOURCE VALID_TARGET, or nothing")
    return files or write_grammar(folder)


def write_grammar(folder: Path) -> list[Path]:
    """The generated grammar as four files."""
    generated = generate(**PAIRS)
    paths = []
    for part, pairs in (("train", generated.train), ("valid", generated.valid)):
        for side in ("source", "target"):
            paths.append(folder / f"{part}.{side}")
            paths[-1].write_text("".join(f"{getattr(pair, side)}\n" for pair in pairs), "utf-8")
    return paths
