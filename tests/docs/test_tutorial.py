"""The tutorial runs, and its notebook is made of its script."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from autograd import references
from docs.notebook import NOTEBOOK, SCRIPT, notebook

SMALLER = {"PAIRS, STEPS = 20_000, 1_500": "PAIRS, STEPS = 2_000, 8", "held_out=200": "held_out=20"}
TEXT = SCRIPT.read_text(encoding="utf-8")


def test_the_notebook_is_that_of_the_script() -> None:
    assert NOTEBOOK.read_text(encoding="utf-8") == notebook(TEXT), "run `python -m docs.fill`"


def test_the_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)  # where its picture goes
    script = TEXT
    for size, smaller in SMALLER.items():
        assert size in script
        script = script.replace(size, smaller)
    names: dict[str, Any] = {}
    with references():
        exec(compile(script, SCRIPT, "exec"), names)
    shown = capsys.readouterr().out
    assert "wrong gradient" in shown
    assert "\nTrue\n" in shown  # attention, compared with the library's
    assert "\nBLEU = " in shown
    assert (tmp_path / "tutorial.png").stat().st_size > 1000
    first, last = (float(shown.split(f"step {i}: loss ")[1].split()[0]) for i in (0, 2000))
    assert last < 0.1 * first  # of the small network
    assert names["loss"].item() < 7  # of the Transformer, which has only begun


def test_its_links_lead_to_files() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", TEXT)
    assert links
    for link in links:
        assert (SCRIPT.parent / link).exists(), link


def test_a_notebook_has_cells_of_text_and_code() -> None:
    made = json.loads(
        notebook("# %% [markdown]\n# # One\n#\n# two\n\n# %%\nx = 1\n\n\n# %%\ny = 2\n")
    )
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 4)
    text, first, second = made["cells"]
    assert text == {"cell_type": "markdown", "metadata": {}, "source": ["# One\n", "\n", "two"]}
    assert first["source"] == ["x = 1"]
    assert second == {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": ["y = 2"],
    }


def test_what_stands_before_the_first_cell_would_be_lost() -> None:
    with pytest.raises(ValueError, match="begins with"):
        notebook("import numpy\n# %%\n")
