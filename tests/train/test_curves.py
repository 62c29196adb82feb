"""The curves of runs: a panel for each measure that was logged, a colour for each run."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest

from npformer.errors import UserError
from train.cli import curves
from train.cli.curves import plot_curves

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def run(directory: Path, scored: bool = False, first: float = 9.0) -> Path:
    """The directory of a run of 100 steps, with validations that are `scored` or not."""
    entries: list[dict[str, Any]] = []
    for step in range(10, 101, 10):
        loss = first / step
        entries.append(
            {
                "step": step,
                "loss": loss,
                "perplexity": math.exp(loss),
                "rate": step / 1e4,
                "gradient_norm": 1.0,
                "tokens_per_second": 5000.0,
                "seconds": float(step),
            }
        )
    for step in (50, 100):
        validation = {"step": step, "valid_loss": 3.0, "valid_perplexity": 20.0, "seconds": 1.0}
        scores = {"bleu": step / 4, "chrf": step / 2} if scored else {}
        entries.append({**validation, **scores})
    directory.mkdir(parents=True)
    lines = (json.dumps(entry) + "\n" for entry in entries)
    (directory / "metrics.jsonl").write_text("".join(lines))
    return directory


def drawn(monkeypatch: pytest.MonkeyPatch, *runs: Path) -> Any:
    figures: list[Any] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, out: figures.append(figure))
    plot_curves(runs, Path("curves.png"))
    return figures[0]


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_each_panel_has_a_line_for_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(monkeypatch, run(tmp_path / "a"), run(tmp_path / "b", scored=True))
    lines = {
        axes.get_title(): [line for line in axes.lines if len(line.get_xdata())]
        for axes in figure.axes
    }
    assert {title: len(of_panel) for title, of_panel in lines.items()} == {
        "loss a token, smoothed": 4,
        "perplexity a token, unsmoothed": 4,
        "validation BLEU": 1,
        "validation chrF": 1,
        "learning rate": 2,
        "norm of the gradient": 2,
        "target tokens a second": 2,
    }
    assert {line.get_color() for line in lines["learning rate"]} == {"C0", "C1"}
    for name, values in (("BLEU", [12.5, 25]), ("chrF", [25, 50])):
        [scores] = lines[f"validation {name}"]
        assert scores.get_color() == "C1"
        assert list(zip(*scores.get_data(), strict=True)) == [*zip((50, 100), values, strict=True)]
    assert legend(figure) == ["a", "b", "validation"]


def test_a_panel_without_anything_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(monkeypatch, run(tmp_path / "a"))
    assert "validation BLEU" not in [axes.get_title() for axes in figure.axes]


def test_runs_with_the_same_name_are_distinguished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = run(tmp_path / "x" / "run"), run(tmp_path / "y" / "run")
    third = run(tmp_path / "_$5")
    assert legend(drawn(monkeypatch, one, other, third))[:2] == [str(one), str(other)]
    with pytest.raises(UserError, match=f"^{one} is given twice"):
        plot_curves([one, one, third], tmp_path / "curves.png")


def test_a_run_without_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none has no curve to draw"):
        plot_curves([run(tmp_path / "a"), tmp_path / "none"], tmp_path / "curves.png")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_numbers_that_are_not_finite_leave_gaps(suffix: str, tmp_path: Path) -> None:
    """A perplexity may be infinite, and a run that diverged may log NaN."""
    diverged = run(tmp_path / "_$5 b", scored=True)
    with open(diverged / "metrics.jsonl", "a") as file:
        entry = {"step": 110, "loss": math.nan, "perplexity": math.inf, "rate": 0.1, "seconds": 1}
        file.write(json.dumps(entry) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_curves([diverged], tmp_path / f"curves.{suffix}")
    assert (tmp_path / f"curves.{suffix}").stat().st_size > 1000
