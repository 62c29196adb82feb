"""Plots of training curves, of one run or of several over each other. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from npformer.errors import UserError
from train.figures import new_figure, save_figure
from train.runs.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Panel(NamedTuple):
    """What one panel shows over steps: of log entries, and of validations (dashed)."""

    title: str
    logged: str | None
    validated: str | None
    scale: str = "linear"


_PANELS = (
    _Panel("loss a token, smoothed", "loss", "valid_loss"),
    _Panel("perplexity a token, unsmoothed", "perplexity", "valid_perplexity", "log"),
    _Panel("validation BLEU", None, "bleu"),
    _Panel("validation chrF", None, "chrf"),
    _Panel("learning rate", "rate", None),
    _Panel("norm of the gradient", "gradient_norm", None),
    _Panel("target tokens a second", "tokens_per_second", None),
)
_COLUMNS = 3
_WIDTH, _HEIGHT, _LEGEND = 4.4, 3.2, 0.3  # inches: of a panel, and of a line of the legend


def plot_curves(runs: Sequence[Path], out: Path) -> None:
    """Plot what the metrics of runs hold over steps, a colour for each run.

    A panel for which there is nothing is left out. Raises UserError for a run without metrics.
    """
    entries = {name: _entries(run) for name, run in zip(_names(runs), runs, strict=True)}
    everything = [entry for of_run in entries.values() for entry in of_run]
    panels = [
        panel
        for panel in _PANELS
        if any(key in entry for entry in everything for key in (panel.logged, panel.validated))
    ]
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    figure = new_figure(
        (_WIDTH * columns, _HEIGHT * rows + _LEGEND * (1 + len(runs) // (columns + 1)))
    )
    for index, panel in enumerate(panels):
        _draw(figure.add_subplot(rows, columns, index + 1), panel, entries)
    lines = {_escaped(name): _style(number) for number, name in enumerate(entries)}
    if any("valid_loss" in entry for entry in everything):
        lines["validation"] = {**_VALIDATION, "color": "gray"}
    some = figure.axes[0]  # takes the legend's lines, which have no points
    handles = [some.plot([], [], label=label, **style)[0] for label, style in lines.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns + 1)
    save_figure(figure, out)


_VALIDATION: dict[str, Any] = {"linestyle": "--", "marker": "."}


def _style(number: int) -> dict[str, Any]:
    return {"color": f"C{number % 10}", "alpha": 0.9}


def _draw(axes: Axes, panel: _Panel, entries: dict[str, list[dict[str, Any]]]) -> None:
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("step")
    axes.set_yscale(panel.scale)
    axes.grid(alpha=0.3, which="both")
    for number, of_run in enumerate(entries.values()):
        for key, more in ((panel.logged, {}), (panel.validated, _VALIDATION)):
            points = [(entry["step"], entry[key]) for entry in of_run if key in entry]
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, **_style(number), **more)


def _entries(run: Path) -> list[dict[str, Any]]:
    entries = read_metrics(run)
    if not entries:
        raise UserError(f"{run} has no curve to draw: its metrics.jsonl is missing or empty")
    return entries


def _names(runs: Sequence[Path]) -> list[str]:
    """The runs by the names of their directories, or by their paths where names are the same."""
    names = [run.resolve().name for run in runs]
    chosen = [
        str(run) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)
    ]
    for name in chosen:
        if chosen.count(name) > 1:
            raise UserError(f"{name} is given twice; give each run once")
    return chosen


def _escaped(name: str) -> str:
    """A name as a label: without mathematics, and shown even if it begins with an underscore."""
    return ("\N{ZERO WIDTH SPACE}" if name.startswith("_") else "") + name.replace("$", r"\$")
