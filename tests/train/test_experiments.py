"""The frame of experiments: parts are measured once, and a page says what was found."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import pytest
from matplotlib.figure import Figure

from npformer.errors import UserError
from tests.kills import kills_itself_at
from train.__main__ import main
from train.experiments import catalogue
from train.experiments.experiment import Experiment, run
from train.experiments.measurements import Measurements, file_name, measurements
from train.experiments.page import Page, Picture, Section, Table
from train.figures import new_figure


@dataclass(frozen=True)
class Squares:
    """Settings of an experiment that measures squares."""

    numbers: Annotated[tuple[int, ...], "numbers to square"]
    text: Annotated[Path | None, "a file that counts for nothing"]
    offset: Annotated[float, "what is added"]


class Measured:
    """The experiment; `calls` has what was measured, in order."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.experiment = Experiment(
            "squares", {"toy": Squares((2,), None, 0.0), "small": Squares((3, 4), None, 0.5)}, self
        )

    def __call__(self, settings: Squares, found: Measurements) -> Page:
        def square(n: int) -> Callable[[], Any]:
            def measure() -> dict[str, float]:
                self.calls.append(n)
                return {"square": n * n + settings.offset}

            return measure

        values = found.all_of({f"n = {n}": square(n) for n in settings.numbers})
        rows = [[name, f"{value['square']:.1f}"] for name, value in values.items()]

        def draw() -> Figure:
            figure = new_figure((2, 2))
            figure.add_subplot().plot(*zip(*enumerate(settings.numbers), strict=True))
            return figure

        return Page(
            title="Squares",
            claim="They grow.",
            measured=f"{len(rows)} of them.",
            verdict="Yes.",
            scaled=Table(["what", "the paper", "here"], [["numbers", "all", str(len(rows))]]),
            sections=[Section("Found", [Table(["n", "n²"], rows), Picture("curve", "n²", draw)])],
        )


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """An experiment that the command line knows."""
    measured = Measured()
    module: Any = ModuleType("squares")
    module.EXPERIMENT = measured.experiment
    monkeypatch.setitem(sys.modules, "train.experiments.squares", module)
    monkeypatch.setitem(catalogue.ABOUT, "squares", "Squares of numbers.")
    return measured


def page_of(squares: Measured, out: Path, settings: Squares) -> str:
    return run(squares.experiment, settings, out, lambda line: None, ["npformer"])


def test_a_command_prints_the_page_and_writes_it(
    squares: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["experiment", "squares", "--out", str(out), "--scale", "toy", "--numbers", "3", "5"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| n = 5 | 25.0 |" in printed
    assert "npformer experiment squares --scale toy --numbers 3 5" in printed
    assert printed.index("They grow.") < printed.index("Yes.") < printed.index("| numbers | all |")
    assert (out / "squares.md").read_text(encoding="utf-8") == printed
    assert (out / "curve.svg").read_text(encoding="utf-8").lstrip().startswith("<?xml")
    result = json.loads((out / "squares.json").read_text(encoding="utf-8"))
    assert result["measured"] == {"n = 3": {"square": 9.0}, "n = 5": {"square": 25.0}}
    assert result["settings"] == {
        "experiment": "squares",
        "numbers": [3, 5],
        "text": None,
        "offset": 0.0,
    }
    assert result["machines"][0]["versions"]["python"]


def test_a_scale_says_what_flags_do_not(squares: Measured, tmp_path: Path) -> None:
    words = ["experiment", "squares", "--out", str(tmp_path / "out"), "--offset", "1"]
    assert main([*words, "--text", "a: b"]) == 0
    assert squares.calls == [3, 4]
    about = json.loads((tmp_path / "out" / "settings.json").read_text(encoding="utf-8"))
    assert (about["offset"], about["text"]) == (1.0, "a: b")


def test_what_was_measured_is_not_measured_again(squares: Measured, tmp_path: Path) -> None:
    """A part that failed leaves nothing; those before it stay, and so do the times."""
    settings, calls = Squares((1, 2, 3), None, 0.0), squares.calls

    def fails() -> None:
        raise KeyboardInterrupt

    about = {"experiment": "squares", "numbers": [1, 2, 3], "text": None, "offset": 0.0}
    with measurements(tmp_path / "out", about, lambda line: None) as found:
        found.of("n = 1", lambda: {"square": 1.0})
        with pytest.raises(KeyboardInterrupt):
            found.of("n = 2", fails)
    first = page_of(squares, tmp_path / "out", settings)
    assert calls == [2, 3]
    assert page_of(squares, tmp_path / "out", settings) == first
    assert calls == [2, 3]


def test_a_kill_leaves_what_was_measured(squares: Measured, tmp_path: Path) -> None:
    settings = Squares((1, 2), None, 0.0)
    page_of(squares, tmp_path / "whole", settings)
    changes = 1
    while True:
        out = tmp_path / f"killed-{changes}"
        if not kills_itself_at(changes, lambda out=out: page_of(squares, out, settings)):
            break
        page_of(squares, out, settings)
        value = json.loads((out / "squares.json").read_text(encoding="utf-8"))["measured"]
        assert value == {"n = 1": {"square": 1.0}, "n = 2": {"square": 4.0}}
        changes += 1
    assert changes > 5


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda out: page_of(Measured(), out, Squares((7,), None, 1.0)),
            r"begun with numbers \[7\]",
        ),
        (lambda out: (out / "notes.txt").write_text("mine"), "is not empty, and holds no"),
        (lambda out: (out / "settings.json").write_text("[]"), "was not written by an experiment"),
        (lambda out: (out / "settings.json").write_text("{"), "settings.json"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    damage: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    damage(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        page_of(Measured(), tmp_path, Squares((1,), None, 1.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_folder_in_which_nothing_was_measured_takes_other_settings(tmp_path: Path) -> None:
    """As after a mistake among the flags."""
    with measurements(tmp_path, {"experiment": "squares", "numbers": [1]}, lambda line: None):
        pass
    page_of(Measured(), tmp_path, Squares((2,), None, 1.0))
    about = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))
    assert about["numbers"] == [2]


def test_a_second_process_is_refused(squares: Measured, tmp_path: Path) -> None:
    with (
        measurements(tmp_path, {"experiment": "squares"}, lambda line: None),
        pytest.raises(UserError, match="another process"),
    ):
        page_of(squares, tmp_path, Squares((1,), None, 0.0))


def test_without_matplotlib_nothing_is_measured(
    squares: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match="matplotlib"):
        page_of(squares, tmp_path / "out", Squares((1,), None, 0.0))
    assert squares.calls == []
    assert not (tmp_path / "out").exists()


def test_progress_says_how_much_is_left(tmp_path: Path) -> None:
    told: list[str] = []
    with measurements(tmp_path, {}, told.append) as found:
        found.all_of(dict.fromkeys(["part 0", "part 1", "part 2"], lambda: 1))
    assert told[0] == "part 0 ..."
    assert sum("of 3 done, about 0 s left" in line for line in told) == 2


def test_names_of_parts_become_names_of_files() -> None:
    assert file_name("self-attention, n = 64") == "self-attention-n-64"
    assert file_name("../x") == "x"


def test_cells_cannot_break_a_table() -> None:
    assert str(Table(["a|b"], [["x\n\ny"]])) == "| a\\|b |\n|---|\n| x y |"
    with pytest.raises(ValueError, match="2 cells in 1 columns"):
        str(Table(["a"], [["1", "2"]]))
