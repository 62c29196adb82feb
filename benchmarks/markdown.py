"""Tables in Markdown."""

from __future__ import annotations

Table = list[str]
"""The lines of a table in Markdown."""

NOTHING = "–"


def head(names: list[str]) -> Table:
    return [line(names), "|" + "---|" * len(names)]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
