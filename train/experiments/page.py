"""The page of an experiment: what the paper claims, what was measured, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from train.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows of text, under the names of columns; every row has a cell for each column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [_line(self.columns), "|" + "---|" * len(self.columns)]
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{len(row)} cells in {len(self.columns)} columns: {row}")
            lines.append(_line(row))
        return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |"


@dataclass(frozen=True)
class Picture:
    """A plot in a file of its own: its name without an ending, what it shows, and its drawing.

    kinds: the endings of the files; the page shows the first.
    """

    name: str
    about: str
    draw: Callable[[], Figure]
    kinds: tuple[str, ...] = ("svg",)

    def __str__(self) -> str:
        return f"![{self.about}]({self.name}.{self.kinds[0]})"


@dataclass(frozen=True)
class Section:
    """A part of a page: paragraphs, tables and pictures under a heading."""

    heading: str
    content: Sequence[str | Table | Picture]

    def __str__(self) -> str:
        return "\n\n".join([f"## {self.heading}", *map(str, self.content)])


@dataclass(frozen=True)
class Page:
    """What an experiment has found.

    Attributes:
        title: such as "Table 1: why self-attention"
        claim: what the paper says, in a sentence or two
        measured: what was measured here, with the figures that decide
        verdict: whether the claim holds, here and at this size
        scaled: what is smaller than in the paper: a row for each, with the paper's value and ours
        sections: tables and plots
    """

    title: str
    claim: str
    measured: str
    verdict: str
    scaled: Table | None
    sections: Sequence[Section]

    def markdown(self, made: str) -> str:
        """The page; `made`: by which command, on which machine."""
        parts = [
            f"# {self.title}",
            f"**The paper:** {self.claim}",
            f"**Here:** {self.measured}",
            f"**Does it hold?** {self.verdict}",
            made,
        ]
        if self.scaled is not None:
            parts.append(str(Section("What was scaled down", [self.scaled])))
        return "\n\n".join([*parts, *map(str, self.sections)]) + "\n"

    def draw(self, directory: Path) -> None:
        """Write the pictures. Raises UserError if matplotlib is missing."""
        for picture in self._pictures():
            figure = picture.draw()
            for kind in picture.kinds:
                save_figure(figure, directory / f"{picture.name}.{kind}")

    def _pictures(self) -> Iterator[Picture]:
        for section in self.sections:
            yield from (part for part in section.content if isinstance(part, Picture))
