"""Fill in what docs/*.md quote: code, numbers, a table, lines of symbols; draw their figures.

    python -m docs.fill

Between a mark and its end is what the filler of that kind makes of the mark's arguments:

    <!-- code: autograd.ops.softmax.vjp -->
    <!-- end -->

- `code: SYMBOL` is the symbol's source. `code: SYMBOL without docstring` leaves that out, and
  `code: SYMBOL body` leaves out the signature, too.
- `example: NAME` is what `docs/worked.py` computes under that name.
- `gradients: PACKAGE OPERATION=SECTION ...` is the table of a package's operations, of which some
  have a section of their own on the page.
- `table: NAME` is a table of `benchmarks/scaling_tables.py`, of what was measured and projected, or
  of `benchmarks/service_table.py`.

A link whose title is a symbol, `[softmax](... "autograd.ops.softmax")`, leads to its lines.
The tutorial's notebook is made of its script, too, and the figures are drawn from the code; see
`docs/notebook.py` and `docs/draw/`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import scaling_tables, service_table
from docs import worked
from docs.draw import FIGURES
from docs.gradients_table import gradients_table
from docs.notebook import NOTEBOOK, SCRIPT, notebook
from docs.source import ROOT, find

TABLES = {**scaling_tables.TABLES, **service_table.TABLES}

_OPENING = r"^<!-- (\w+): ([^<>]*?) -->$"
_BLOCK = re.compile(_OPENING + r"\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
_PACKAGES = "autograd|npformer|train|tests|benchmarks|docs|examples"
_LINK = re.compile(rf'\]\([^()\s]* "((?:{_PACKAGES})\.[\w.]+)"\)')


def code(words: str) -> str:
    """A symbol's source, below a link to its file."""
    symbol, _, part = words.partition(" ")
    parts = {
        "": {},
        "without docstring": {"docstring": False},
        "body": {"docstring": False, "signature": False},
    }
    if part not in parts:
        raise LookupError(f"{part!r} is not a part of code; the parts are {', '.join(parts)[2:]}")
    source = find(symbol)
    path = source.path.as_posix()
    return f"[`{path}`](../{path}):\n\n{_fenced(source.text(**parts[part]), 'python')}"


def example(name: str) -> str:
    """The numbers of a worked example."""
    if name not in worked.EXAMPLES:
        raise LookupError(f"there is no example {name}; there are {', '.join(worked.EXAMPLES)}")
    return _fenced(worked.table(worked.EXAMPLES[name]()), "text")


def gradients(words: str) -> str:
    """The table of a package's operations."""
    package, *pairs = words.split()
    sections = dict(pair.split("=", 1) for pair in pairs)
    return gradients_table(package, sections) + "\n"


def table(name: str) -> str:
    """A table of what was measured and projected."""
    if name not in TABLES:
        raise LookupError(f"there is no table {name}; there are {', '.join(TABLES)}")
    return "".join(f"{line}\n" for line in TABLES[name]())


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"


FILLERS: dict[str, Callable[[str], str]] = {
    "code": code,
    "example": example,
    "gradients": gradients,
    "table": table,
}


def fill(text: str) -> str:
    """A page with its blocks and links filled in. LookupError where a mark names nothing."""
    openings = len(re.findall(_OPENING, text, re.MULTILINE))
    blocks = _BLOCK.findall(text)
    if not openings == len(blocks) == len(re.findall(r"^<!-- end -->$", text, re.MULTILINE)):
        raise LookupError("a mark has no end, or an end no mark")

    def filled(block: re.Match[str]) -> str:
        kind, words, _ = block.groups()
        if kind not in FILLERS:
            raise LookupError(f"there is no filler {kind}; there are {', '.join(FILLERS)}")
        content = FILLERS[kind](" ".join(words.split()))
        return f"<!-- {kind}: {words} -->\n{content}\n<!-- end -->"

    text = _BLOCK.sub(filled, text)
    return _LINK.sub(lambda link: f']({find(link[1]).link} "{link[1]}")', text)


def files() -> dict[Path, Callable[[], str]]:
    """What is made: each file, and the function that makes its text."""
    docs = ROOT / "docs"
    return {
        **{page: partial(_filled, page) for page in sorted(docs.glob("*.md"))},
        NOTEBOOK: lambda: notebook(SCRIPT.read_text(encoding="utf-8")),
        **{docs / "figures" / f"{name}.svg": draw for name, draw in FIGURES.items()},
    }


def _filled(page: Path) -> str:
    return fill(page.read_text(encoding="utf-8"))


def main() -> None:
    for path, make in files().items():
        name = path.relative_to(ROOT).as_posix()
        try:
            text = make()
        except LookupError as error:
            sys.exit(f"{name}: {error}")
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"filled {name}")


if __name__ == "__main__":
    main()
