"""The pictures of Table 1: costs, paths, and where attention costs less than recurrence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from train.experiments.compared_layers import ATTENTION, DILATED, LAYERS, PROJECTED, Size
from train.experiments.page import Picture
from train.experiments.table1_findings import (
    Costs,
    Quantity,
    chains,
    grid_widths,
    memory,
    operations,
    relative_costs,
    seconds,
)
from train.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {layer.name: f"C{i}" for i, layer in enumerate(LAYERS)} | {DILATED: "C7"}


def growth_pictures(costs: Costs, middle: Size) -> list[Picture]:
    return [
        Picture(
            "table1-operations",
            f"operations by n at d = {middle.d}, and by d at n = {middle.n}; dotted: n = d",
            partial(_draw_growth, costs, middle, [("operations", operations)]),
        ),
        Picture(
            "table1-time",
            f"seconds and bytes by n at d = {middle.d}, and by d at n = {middle.n}; dotted: n = d",
            partial(_draw_growth, costs, middle, [("seconds", seconds), ("bytes", memory)]),
        ),
    ]


def _draw_growth(costs: Costs, middle: Size, quantities: Sequence[tuple[str, Quantity]]) -> Figure:
    figure = new_figure((9, 3.4 * len(quantities) + 0.8))
    for row, (title, quantity) in enumerate(quantities):
        for column, variable in enumerate("nd"):
            axes = figure.add_subplot(len(quantities), 2, 2 * row + column + 1)
            for layer in LAYERS:
                points = sorted(
                    (getattr(size, variable), quantity(cost))
                    for size, cost in costs[layer.name, variable]
                )
                axes.plot(
                    *zip(*points, strict=True),
                    "o-",
                    color=_COLORS[layer.name],
                    markersize=4,
                    label=layer.name if row == column == 0 else None,
                )
            other = {"n": f"d = {middle.d}", "d": f"n = {middle.n}"}[variable]
            _logarithmic(axes, f"{title}, {other}", variable)
            equal = getattr(middle, "d" if variable == "n" else "n")
            axes.axvline(equal, color="gray", linewidth=1, linestyle=":")  # n = d
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def path_picture(costs: Costs, paths: Mapping[str, Any]) -> Picture:
    def draw() -> Figure:
        figure = new_figure((9, 3.6))
        left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
        for layer in LAYERS:
            points = sorted(zip(*chains(costs, layer), strict=True))
            left.plot(*zip(*points, strict=True), **_beside_others(layer.name))
        for name, found in paths["paths"].items():
            right.plot(paths["n"], found, **_beside_others(name))
        _logarithmic(left, "operations in sequence", "n")
        _logarithmic(right, "longest path", "n")
        for axes in (left, right):
            axes.legend(fontsize=7)
        return figure

    return Picture("table1-paths", "operations in sequence, and longest paths, by n", draw)


def draw_ratios(costs: Costs) -> Figure:
    figure = new_figure((9, 3.8))
    panels = [("operations", operations), ("seconds", seconds)]
    for number, (title, quantity) in enumerate(panels, 1):
        axes = figure.add_subplot(1, 2, number)
        for i, d in enumerate(grid_widths(costs)):
            for layer, style in ((ATTENTION, "o-"), (PROJECTED, "x--")):
                ratios = relative_costs(costs, layer, d, quantity)
                axes.plot(
                    [n / d for n, _ in ratios],
                    [ratio for _, ratio in ratios],
                    style,
                    color=f"C{i}",
                    markersize=4,
                    label=f"d = {d}" if layer is ATTENTION else None,
                )
        axes.axhline(1, color="gray", linewidth=1)
        axes.axvline(1, color="gray", linewidth=1, linestyle=":")
        _logarithmic(axes, f"{title}: self-attention / recurrent", "n / d")
    some = figure.axes[0]
    some.plot([], [], "x--", color="gray", label="with projections")
    some.legend(fontsize=8)
    return figure


def _beside_others(name: str) -> dict[str, Any]:
    """The style of a line that others may cover: each is narrower than those drawn before it."""
    number = list(_COLORS).index(name)
    return {"color": _COLORS[name], "linewidth": 6 - 0.7 * number, "label": name}


def _logarithmic(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
