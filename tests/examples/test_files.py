"""The examples are short, are all tested, and run as they say."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from autograd import DropoutStream, Tensor, ops
from examples import compare, text
from examples.gated_feed_forward import GatedFeedForward
from npformer import Parts, Transformer
from npformer.layers import FeedForward
from tests.examples.small import SETTINGS, small_config, trained, write_text

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples").glob("[a-z]*.py"))
SHARED = ("compare", "text")
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@every_file
def test_an_example_has_at_most_80_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


@every_file
def test_an_example_says_how_it_is_run(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path.stem not in SHARED:
        assert re.search(rf"^    python -m examples\.{path.stem}\b", source, re.MULTILINE)
        assert re.search(r"\(.*, \d{4}\)", source.split('"""')[1], re.DOTALL)  # whose idea it is
        assert 'if __name__ == "__main__":' in source


def test_the_idea_in_contributing_can_be_tried() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.split("## Trying an idea\n")[1].split("\n## ")[0]
    for path in FILES:
        assert f"(examples/{path.name})" in section
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {
        "FeedForward": FeedForward,
        "Parts": Parts,
        "Tensor": Tensor,
        "Transformer": Transformer,
        "DropoutStream": DropoutStream,
        "ops": ops,
        "config": small_config(),
    }
    exec(code, names)
    network: Any = names["Squared"]
    _, losses = trained(Parts(feed_forward=network))
    assert losses[-1] < 0.7


def test_what_was_learned_is_printed_beside_the_papers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "VOCABULARY", 300)
    parts = Parts(feed_forward=GatedFeedForward)
    compare.compare("SwiGLU", parts, files=write_text(tmp_path), settings=SETTINGS)
    shown = capsys.readouterr().out
    assert re.findall(r"^(.*): [\d,]+ parameters$", shown, re.MULTILINE) == [
        "the paper's",
        "SwiGLU",
    ]
    assert len(re.findall(r"^  perplexity \d+\.\d\d, BLEU \d+\.\d$", shown, re.MULTILINE)) == 2
    assert len(re.findall(r"^  step 4: loss", shown, re.MULTILINE)) == 2
    assert shown.count("→") == 4


def test_the_grammar_is_written_as_four_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "PAIRS", {"pairs": 400, "held_out": 40})
    paths = text.write_grammar(tmp_path)
    counts = [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]
    assert counts == [400, 400, 20, 20]


def run(name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Run an example as a program whose user made a mistake; returns what it says."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    monkeypatch.delitem(sys.modules, f"examples.{name}", raising=False)  # or runpy warns of it
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(f"examples.{name}", run_name="__main__")
    assert isinstance(caught.value.code, str)
    return caught.value.code


PROGRAMS = [path.stem for path in FILES if path.stem not in SHARED]
MISTAKES = {
    "missing": "cannot read .*: No such file",
    "folder": "cannot read .*: Is a directory",
    "empty": "is empty; it must hold one sentence a line",
    "blank": "no text to learn a vocabulary from",
    "small": "too large for this text.* or give more text",
    "latin": "line 1: byte 2 of the line .* is not UTF-8",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_an_invalid_file_gets_a_one_line_error(
    name: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    texts = {"empty": b"", "blank": b"\n\n", "small": b"one two\n", "latin": b"a\xe4\n"}
    for file, given in texts.items():
        (tmp_path / file).write_bytes(given)
    count = 1 if name == "language_model" else 4
    said = run(name, [str(tmp_path / mistake)] * count, monkeypatch)
    assert re.match(f"error: .*{MISTAKES[mistake]}", said)
    assert "\n" not in said


@pytest.mark.parametrize("name", PROGRAMS)
def test_too_many_or_too_few_files_get_a_one_line_error(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(name, ["a", "b"], monkeypatch)
    assert re.fullmatch(r"error: give .*, or nothing", said)
