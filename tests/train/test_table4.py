"""Table 4 at a toy scale: hand-made trees are learned, parsed and scored by one command."""

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from train.__main__ import main
from train.experiments.parsing_page import Results, parsing_page
from train.experiments.parsing_scores import Interval, Scores, judged
from train.experiments.table4 import EXPERIMENT
from train.parsing.trees import Node, read_trees

SUBJECTS = (
    "(NP (NNS Dogs))",
    "(NP (DT The) (NNS cats))",
    "(NP-SBJ-1 (NP (NNS Mice)) (PP (IN of) (NP (NN snow))))",
)
VERBS = ("(VBP bark)", "(VBP sleep) (NP (-NONE- *))", "(VBP see) (NP (DT the) (NN moon))")
ENDS = ("", " (ADVP (RB today))", " (PP (IN in) (NP (NN winter)))")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trees to learn from and to be scored on."""
    directory = tmp_path_factory.mktemp("bank")
    trees = [
        f"( (S {subject} (VP {verb}{end}) (. .)) )\n"
        for subject, verb, end in itertools.product(SUBJECTS, VERBS, ENDS)
    ]
    (directory / "train.trees").write_text("".join(trees[::2] + trees[1::4]) * 3)
    (directory / "dev.trees").write_text("".join(trees[3::4]))
    return directory


@pytest.fixture(scope="module")
def out(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves."""
    directory = tmp_path_factory.mktemp("table4") / "out"
    words = ["experiment", "table4", "--out", str(directory), "--scale", "toy"]
    assert main([*words, *files(bank)]) == 0
    return directory


def files(bank: Path) -> list[str]:
    return ["--train", str(bank / "train.trees"), "--dev", str(bank / "dev.trees")]


def test_the_page_has_all_parsers(out: Path) -> None:
    page = (out / "table4.md").read_text(encoding="utf-8")
    for parser in ("Transformer, beam 4", "Transformer, beam 2", "PCFG", "right-branching"):
        assert f"| {parser} |" in page
    assert "| 4 |" in page  # the paper's layers
    assert "91.3" in page
    assert (out / "table4-length.svg").is_file()


def test_what_was_measured_is_kept_by_sentence(out: Path, bank: Path) -> None:
    found = json.loads((out / "table4.json").read_text(encoding="utf-8"))["measured"]
    grammar = Scores.of([found["grammar from 1"]]).total
    assert grammar.sentences == len((bank / "dev.trees").read_text().splitlines())
    assert grammar.f1 > 90  # a grammar without choices
    straight = Scores.of([found["right-branching from 1"]]).total
    assert 0 < straight.f1 < grammar.f1
    assert found["training"]["perplexity"] < 10


def test_a_second_run_measures_nothing_again(out: Path, bank: Path) -> None:
    before = (out / "table4.md").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    words = ["experiment", "table4", "--out", str(out), "--scale", "toy"]
    assert main([*words, *files(bank)]) == 0
    assert (out / "table4.md").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == times


def test_training_goes_on_after_a_kill(out: Path, bank: Path) -> None:
    """A part that is lost is measured again, from the run and the corpus that are there."""
    part = out / "parts" / "training.json"
    before = json.loads(part.read_bytes())["value"]
    corpus = out / "work" / "model" / "corpus" / "manifest.json"
    made = corpus.stat().st_mtime_ns
    part.unlink()
    words = ["experiment", "table4", "--out", str(out), "--scale", "toy"]
    assert main([*words, *files(bank)]) == 0
    assert json.loads(part.read_bytes())["value"] == before
    assert corpus.stat().st_mtime_ns == made


def test_other_trees_in_the_same_file_are_refused(
    out: Path, bank: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = bank / "dev.trees"
    before = dev.read_text()
    dev.write_text(before.replace("winter", "summer"))
    words = ["experiment", "table4", "--out", str(out), "--scale", "toy"]
    try:
        assert main([*words, *files(bank)]) == 2
    finally:
        dev.write_text(before)
    assert "was begun with other trees; give another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --train and --dev, files of bracketed trees, or --wsj"),
        (["--train", "BANK/train.trees"], "give --train and --dev"),
        (["--wsj", "BANK", "--dev", "BANK/dev.trees"], "--wsj is in place of --train and --dev"),
        (["--wsj", "BANK"], "has no section 02"),
        (["--train", "BANK/none", "--dev", "BANK/dev.trees"], "cannot read"),
        (["--train", "BANK/train.trees", "--dev", "BANK/dev.trees", "--norm", "no"], "model.norm"),
        (["--train", "BANK/train.trees", "--dev", "BANK/dev.trees", "--beam", "0"], "beam must be"),
        (["--train", "BANK/train.trees", "--dev", "BANK/dev.trees", "--vertical", "0"], "vertical"),
        (["--train", "BANK/train.trees", "--dev", "BANK/dev.trees", "--longest", "0"], "longest"),
        (
            ["--train", "BANK/train.trees", "--dev", "BANK/dev.trees", "--search_tokens", "0"],
            "search_tokens must be at least 1",
        ),
        (["--train", "BANK/train.trees", "--dev", "BANK/dev.trees", "--steps", "9"], "steps"),
    ],
)
def test_mistakes_are_told_in_a_line(
    flags: list[str],
    message: str,
    bank: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["experiment", "table4", "--out", str(tmp_path / "out"), "--scale", "toy"]
    assert main([*words, *(flag.replace("BANK", str(bank)) for flag in flags)]) == 2
    last = capsys.readouterr().err.strip().split("\n")[-1]
    assert last.startswith("npformer: error: ")
    assert message in last


# Verdicts

GOLD = list(read_trees(["(S (NP (N a) (N b)) (VP (V c) (N d)))"], "text")) * 50
FLAT = next(iter(read_trees(["(S (N a) (N b) (V c) (N d))"], "text")))


def scores(right: int) -> Scores:
    """Of a parser that has the first `right` sentences right, and the others flat."""
    found: list[Node | None] = [*GOLD[:right], *[FLAT] * (len(GOLD) - right)]
    return Scores.of([judged(GOLD, found, [True] * len(GOLD))])


def test_sentences_are_joined_from_parts() -> None:
    some = judged(GOLD[:20], GOLD[:20], [True] * 20)
    none = judged(GOLD[20:], [None] * 30, [False] * 30)
    found = Scores.of([some, none])
    assert (found.total.exact, found.total.errors) == (20, 30)
    assert found.total.recall == pytest.approx(40)
    assert found.whole.sum() == 20


def test_an_interval_holds_the_difference() -> None:
    low, value, high = scores(40).better_than(scores(20))
    assert low < value < high
    assert value == pytest.approx(scores(40).total.f1 - scores(20).total.f1)
    assert low > 0
    assert scores(20).better_than(scores(20)) == Interval(0, 0, 0)


@pytest.mark.parametrize(
    ("translation", "grammar", "straight", "verdict"),
    [
        (45, 20, 5, "Yes, at this size"),
        (20, 45, 5, "In part: it learns to parse"),
        (20, 20, 5, "from the grammar it cannot be told"),
        (20, 45, 15, "points of F1 above right-branching trees, but at this size"),
        (5, 45, 20, "Not here"),
        (20, 45, 20, "Not here"),
    ],
)
def test_the_verdict_follows_from_the_figures(
    translation: int, grammar: int, straight: int, verdict: str
) -> None:
    results = Results(
        treebank="trees",
        trees=50,
        lengths=np.arange(1, 51),
        seen=np.arange(50) < 7,
        training={
            "parameters": 1000,
            "seconds": 60.0,
            "learned": 49,
            "source vocabulary": 10,
            "symbols": 20,
            "epochs": 2,
        },
        scores={
            "translation, beam 4": scores(translation),
            "grammar": scores(grammar),
            "right-branching": scores(straight),
        },
        seconds=dict.fromkeys(("translation, beam 4", "grammar", "right-branching"), 1.0),
    )
    page = parsing_page(results, asdict(EXPERIMENT.scales["small"]))
    begin = verdict if verdict[0].isupper() else "In part"
    assert page.verdict.startswith(begin)
    assert "far above" not in page.verdict
    if straight < translation:
        difference = scores(translation).total.f1 - scores(straight).total.f1
        assert f"{difference:.2f} points of F1 above right-branching trees" in page.verdict
    assert verdict in page.verdict
    unseen = scores(translation).among(np.arange(50) >= 7).f1
    assert (
        f"7 are also among those to learn from; without them the Transformer has {unseen:.2f}"
        in (page.markdown(""))
    )
    assert f"F1 of {scores(translation).total.f1:.2f}" in page.measured
    assert "| 8,000 steps, the last in epoch 3 |" in str(page.scaled)  # the first is epoch 0
    assert ("the grammar is better by" in page.verdict) == (straight < translation < grammar)
