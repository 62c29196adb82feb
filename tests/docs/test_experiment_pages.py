"""The kept pages of experiments are what the commands on them have written."""

import json
import re
import shlex

import pytest

from tests.pages import ROOT
from train.cli.parser import build_parser
from train.cli.words import underscored
from train.experiments.catalogue import ABOUT

FOLDER = ROOT / "docs" / "experiments"
PAGES = sorted(FOLDER.rglob("*.md"))
of_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.relative_to(FOLDER)}")


def test_every_experiment_has_its_page() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(ABOUT)


@of_pages
def test_a_page_begins_with_the_claim_and_whether_it_holds(page) -> None:
    text = page.read_text(encoding="utf-8")
    begins = ["# ", "**The paper:** ", "**Here:** ", "**Does it hold?** ", "`npformer experiment "]
    for paragraph, begin in zip(text.split("\n\n"), begins, strict=False):
        assert paragraph.startswith(begin)
        assert len(paragraph) > len(begin) + 5


@of_pages
def test_a_page_says_the_command_that_made_it(page) -> None:
    """Which the program understands, and which its JSON has too; and it has its pictures."""
    text = page.read_text(encoding="utf-8")
    result = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert f"`{shlex.join(result['command'])}`: " in text
    words = result["command"][1:]
    parsed = build_parser("experiment").parse_args(underscored(words))
    assert parsed.experiment.subcommand == result["settings"]["experiment"]
    assert not any(word.startswith("/") for word in words), "a path of one machine"
    for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (page.parent / name).stat().st_size > 1000
