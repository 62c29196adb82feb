"""The tutorial's script as a notebook: `python -m docs.fill` writes it.

`# %%` begins a cell of code, and `# %% [markdown]` one of text, in comments. The notebook has no
outputs: whoever runs it makes them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from docs.source import ROOT

SCRIPT, NOTEBOOK = ROOT / "docs" / "tutorial.py", ROOT / "docs" / "tutorial.ipynb"
_MARK = re.compile(r"^# %%(?: \[(markdown)\])?\n", re.MULTILINE)


def notebook(script: str) -> str:
    """A script as a notebook in JSON. ValueError where something is before the first cell."""
    before, *parts = _MARK.split(script)
    if before:
        raise ValueError("a script that becomes a notebook begins with `# %%`")
    cells = [
        _cell(kind, text.strip("\n")) for kind, text in zip(parts[::2], parts[1::2], strict=True)
    ]
    contents = {
        "cells": cells,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 4,  # from 5 on, each cell needs an id
    }
    return json.dumps(contents, indent=1, ensure_ascii=False) + "\n"


def _cell(kind: str | None, text: str) -> dict[str, Any]:
    if kind == "markdown":
        source = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
        return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": text.splitlines(keepends=True),
    }
