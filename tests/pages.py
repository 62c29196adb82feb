"""Reading pages in Markdown."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def text_of(name: str) -> str:
    """A file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(language: str, text: str) -> list[str]:
    """The contents of the code blocks of a language; those of no language have the name ""."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def lines_of(program: str, text: str) -> list[str]:
    """The lines of all shell blocks that call a program."""
    lines = [line for block in blocks("sh", text) for line in block.split("\n")]
    return [line for line in lines if line.startswith(f"{program} ")]


def tables_of(text: str) -> list[str]:
    """Tables, one after another."""
    return re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)


def prose_of(text: str) -> str:
    """A page without blocks, tables, code, the targets of links and versions of Python."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\|.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`|\]\([^)]*\)|Python [\d.]+", "", text)
