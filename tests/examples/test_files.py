"""The examples are short, are all tested, and run as they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from autograd import DropoutStream, Tensor, ops
from examples import compare
from examples.gated_feed_forward import GatedFeedForward
from npformer import Parts, Transformer
from npformer.layers import FeedForward
from tests.examples.small import SETTINGS, small_config, trained, write_text

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples").glob("[a-z]*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@every_file
def test_an_example_has_at_most_80_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


@every_file
def test_an_example_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.stem != "compare":
        assert re.search(rf"^    python -m examples\.{path.stem}\b", text, re.MULTILINE)
        assert re.search(r"\(.*, \d{4}\)", text.split('"""')[1], re.DOTALL)  # whose idea it is
        assert 'if __name__ == "__main__":' in text


def test_the_idea_in_contributing_can_be_tried() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Trying an idea\n")[1].split("\n## ")[0]
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


def test_what_was_learnt_is_printed_beside_the_papers(
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
    monkeypatch.setattr(compare, "PAIRS", {"pairs": 400, "held_out": 40})
    paths = compare.write_grammar(tmp_path)
    counts = [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]
    assert counts == [400, 400, 20, 20]


@pytest.mark.parametrize(
    ("files", "message"),
    [(["only.en"], "give TRAIN_SOURCE"), (["a", "b", "c", "d"], "error: cannot read a: ")],
)
def test_wrong_files_get_one_line(files: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        compare.compare("SwiGLU", files=files)
