"""The page of Table 1: exponents beside the paper's, and where attention costs less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from train.experiments.compared_layers import (
    ATTENTION,
    CONVOLUTION,
    DILATED,
    LAYERS,
    PROJECTED,
    RECURRENT,
    RESTRICTED,
    SEPARABLE,
    Layer,
    Size,
)
from train.experiments.page import Page, Picture, Section, Table
from train.experiments.power_law import Exponent, crossing, exponent
from train.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = (ATTENTION, PROJECTED, RECURRENT)
"""The layers that are measured at every length and width."""

_CLOSE = 0.15  # between the exponents of operations and of the paper's formula
_WINS = 0.5  # attention should win below this n / d, and lose above its inverse

# What was measured of each layer and variable, at each size; "grid" is every length and width.
Costs = Mapping[tuple[str, str], Sequence[tuple[Size, dict[str, Any]]]]
Quantity = Callable[[Mapping[str, Any]], float]


def _operations(cost: Mapping[str, Any]) -> float:
    return float(cost["forward"] + cost["backward"])


def _seconds(cost: Mapping[str, Any]) -> float:
    return float(cost["seconds"])


def _bytes(cost: Mapping[str, Any]) -> float:
    return float(cost["bytes"])


def page(costs: Costs, middle: Size, paths: Mapping[str, Any]) -> Page:
    """The page; middle: the sizes that do not vary, and paths: by the number of positions."""
    wrong = _wrong_exponents(costs)
    crossings = _crossings(costs, ATTENTION)
    return Page(
        title="Table 1: why self-attention",
        claim=(
            "a layer of self-attention takes O(n² d) operations for n positions of width d, O(1) "
            "of them one after another, and connects all positions by paths of length O(1). A "
            "recurrent layer takes O(n d²), O(n) and O(n); a convolution of kernel k O(k n d²), "
            "O(1) and O(log_k n), or O(n / k) without dilation; attention restricted to r "
            "positions O(r n d), O(1) and O(n / r). So self-attention is faster than recurrence "
            "where n is smaller than d (section 4)."
        ),
        measured=_measured(costs, paths, crossings),
        verdict=_verdict(costs, paths, wrong, crossings),
        scaled=_scaled(costs, middle),
        sections=[
            Section("Table 1, counted and measured", [_table(costs, paths), _EXPLAINED]),
            Section(
                "How costs grow", [_exponents(costs), _FITTED, *_growth_pictures(costs, middle)]
            ),
            Section("Where attention wins", _where_it_wins(costs)),
            Section("Paths", [_path_table(paths), _PATHS, _path_picture(costs, paths)]),
        ],
    )


_EXPLAINED = (
    "Operations are floating-point operations of a forward and a backward pass, counted by the "
    "references while they run; sequential operations are the longest chain of dependent "
    "operations on the tape of the forward pass; a path is the number of layers after which no "
    "output depends on more inputs, found from the non-zeros of a layer's Jacobian, multiplied "
    "with itself. Of a recurrent layer it is the number of steps. The paper's table leaves out "
    "the projections of queries, keys, values and outputs; the second row has them."
)
_FITTED = (
    "Slopes of straight lines through the logarithms of cost and size, with their standard errors, "
    "while one size varies. Expected is the slope of the paper's formula at the same sizes. "
    "Seconds and bytes are of a forward and a backward pass: the fastest pass, and the most "
    "memory at a time without parameters and input. Attention runs in compiled loops where they "
    "are installed, the layers compared with it as NumPy's matrix products; a cost that does not "
    "grow with its formula is one that something else dominates at these sizes."
)
_PATHS = (
    "The paper's O(log_k n) of convolutions is that of dilated ones, each with k times the "
    "dilation of the one below; a stack of plain ones needs O(n / k) layers. Layers are separable "
    "or not with the same paths."
)


# Exponents


def _fit(costs: Costs, layer: Layer, variable: str, quantity: Quantity) -> Exponent:
    points = costs[layer.name, variable]
    return exponent([getattr(s, variable) for s, _ in points], [quantity(c) for _, c in points])


def _expected(costs: Costs, layer: Layer, variable: str) -> float:
    """The slope of the paper's formula at the sizes that were measured."""
    sizes = [size for size, _ in costs[layer.name, variable]]
    return exponent([getattr(s, variable) for s in sizes], [layer.formula(s) for s in sizes]).slope


def _wrong_exponents(costs: Costs) -> list[str]:
    """Where operations do not grow as the paper says."""
    wrong = []
    for layer in LAYERS:
        for v in layer.variables:
            found, expected = _fit(costs, layer, v, _operations).slope, _expected(costs, layer, v)
            if abs(found - expected) > _CLOSE:
                wrong.append(f"those of {layer.name} as {v}^{found:.2f} in place of {expected:.2f}")
    return wrong


def _growth(costs: Costs, layer: Layer) -> str:
    """n^1.00 d^1.98."""
    return " ".join(f"{v}^{_fit(costs, layer, v, _operations).slope:.2f}" for v in layer.variables)


def _exponents(costs: Costs) -> Table:
    rows = [
        [
            layer.name,
            variable,
            f"{_expected(costs, layer, variable):.2f}",
            *(
                str(_fit(costs, layer, variable, quantity))
                for quantity in (_operations, _seconds, _bytes)
            ),
        ]
        for layer in LAYERS
        for variable in layer.variables
    ]
    return Table(["layer", "in", "expected", "operations", "seconds", "bytes"], rows)


# Sequential operations and paths


def _steps(costs: Costs, layer: Layer) -> tuple[list[int], list[int]]:
    """The lengths, and the longest chain of each."""
    points = costs[layer.name, "n"]
    return [size.n for size, _ in points], [cost["steps"] for _, cost in points]


def _chain(costs: Costs, layer: Layer) -> str:
    """The longest chain as a formula, if it is one: 3, or n + 3."""
    lengths, steps = _steps(costs, layer)
    if len(set(steps)) == 1:
        return str(steps[0])
    above = {s - n for n, s in zip(lengths, steps, strict=True)}
    if len(above) == 1:
        return f"n + {above.pop()}"
    return f"n^{exponent(lengths, steps).slope:.2f}"


def _path_name(layer: Layer) -> str:
    return ATTENTION.name if layer is PROJECTED else layer.name


def _longest_path(paths: Mapping[str, Any], name: str) -> int:
    path: int = paths["paths"][name][-1]
    return path


def _path_growth(paths: Mapping[str, Any], name: str) -> str:
    """How the longest path grows with the number of positions."""
    lengths, found = paths["n"], paths["paths"][name]
    if len(set(found)) == 1:
        return "1" if found[0] == 1 else f"constant, {found[0]}"
    if name == DILATED:
        levels = np.log(lengths) / np.log(paths["k"])
        slope = np.polyfit(levels, found, 1)[0]
        return f"{slope:.2f} log_k n"
    return f"n^{exponent(lengths, found)}"


def _steps_hold(costs: Costs) -> bool:
    lengths, steps = _steps(costs, RECURRENT)
    order = np.argsort(lengths)
    grows = (np.diff(np.array(steps)[order]) == np.diff(np.array(lengths)[order])).all()
    others = [layer for layer in LAYERS if layer is not RECURRENT]
    return bool(grows) and all(len(set(_steps(costs, layer)[1])) == 1 for layer in others)


def _paths_hold(paths: Mapping[str, Any]) -> bool:
    """Whether they are what the paper says: exactly, but for the edges of a window."""
    lengths, k, r, found = paths["n"], paths["k"], paths["r"], paths["paths"]
    longest = {
        ATTENTION.name: [1] * len(lengths),
        RECURRENT.name: [n - 1 for n in lengths],
        # From one end to the other, in steps of the shorter side of a kernel or window.
        **dict.fromkeys(
            (CONVOLUTION.name, SEPARABLE.name), [-(-(n - 1) // ((k - 1) // 2)) for n in lengths]
        ),
        RESTRICTED.name: [-(-(n - 1) // ((r - 1) // 2)) for n in lengths],
        # L layers reach (k^L - 1) / 2 positions to each side.
        DILATED: [int(np.ceil(np.log(2 * n - 1) / np.log(k) - 1e-9)) for n in lengths],
    }
    return all(found[name] == expected for name, expected in longest.items())


def _path_table(paths: Mapping[str, Any]) -> Table:
    sizes = {
        CONVOLUTION.name: f"k = {paths['k']}",
        SEPARABLE.name: f"k = {paths['k']}",
        DILATED: f"k = {paths['k']}",
        RESTRICTED.name: f"r = {paths['r']}",
    }
    rows = [
        [name, sizes.get(name, ""), *map(str, found), _path_growth(paths, name)]
        for name, found in paths["paths"].items()
    ]
    return Table(["layers", "", *(f"n = {n}" for n in paths["n"]), "grows as"], rows)


def _table(costs: Costs, paths: Mapping[str, Any]) -> Table:
    """The paper's table with a column of ours beside each of its own."""
    longest = paths["n"][-1]
    rows = []
    for layer in LAYERS:
        path = str(_longest_path(paths, _path_name(layer)))
        said = layer.path
        if layer in (CONVOLUTION, SEPARABLE):
            path += f"; dilated {_longest_path(paths, DILATED)}"
            said = f"O({said}); dilated O(log_k n)"
        else:
            said = f"O({said})"
        rows.append(
            [
                layer.name,
                f"O({layer.complexity})",
                _growth(costs, layer),
                f"O({layer.sequential})",
                _chain(costs, layer),
                said,
                path,
            ]
        )
    return Table(
        [
            "layer",
            "operations: the paper",
            "counted",
            "in sequence: the paper",
            "counted",
            "longest path: the paper",
            f"n = {longest}",
        ],
        rows,
    )


# Where attention wins


def _ratios(costs: Costs, layer: Layer, d: int, quantity: Quantity) -> list[tuple[int, float]]:
    """By n: the cost of attention over that of the recurrent layer, at width d."""
    recurrent = {size: quantity(cost) for size, cost in costs[RECURRENT.name, "grid"]}
    return sorted(
        (size.n, quantity(cost) / recurrent[size])
        for size, cost in costs[layer.name, "grid"]
        if size.d == d
    )


def _widths(costs: Costs) -> list[int]:
    return sorted({size.d for size, _ in costs[ATTENTION.name, "grid"]})


def _crossing(ratios: Sequence[tuple[int, float]]) -> float | None:
    return crossing(*zip(*ratios, strict=True))


def _crossings(costs: Costs, layer: Layer) -> dict[int, float]:
    """By width, the n from which on attention takes more operations, where it was reached."""
    found = {d: _crossing(_ratios(costs, layer, d, _operations)) for d in _widths(costs)}
    return {d: n for d, n in found.items() if n is not None}


def _wins_where_said(costs: Costs) -> bool:
    """Whether attention takes fewer operations where n is well below d, and more well above it."""
    points = [
        (n / d, ratio)
        for d in _widths(costs)
        for n, ratio in _ratios(costs, ATTENTION, d, _operations)
    ]
    return all(
        ratio < 1 if relative <= _WINS else ratio > 1
        for relative, ratio in points
        if relative <= _WINS or relative >= 1 / _WINS
    )


def _cell(ratios: Sequence[tuple[int, float]]) -> str:
    """Where a ratio crosses 1, or that it does not."""
    found = _crossing(ratios)
    if found is not None:
        return f"{found:,.0f}"
    (first, low), (last, high) = ratios[0], ratios[-1]
    if high < 1:
        return f"above {last:,} ({high:.2g} times there)"
    if low >= 1:
        return f"below {first:,} ({low:.2g} times there)"
    return "not one length"


def _where_it_wins(costs: Costs) -> list[str | Table | Picture]:
    columns = [
        ("operations", ATTENTION, _operations),
        ("operations, with projections", PROJECTED, _operations),
        ("seconds", ATTENTION, _seconds),
        ("seconds, with projections", PROJECTED, _seconds),
    ]
    rows = [
        [f"d = {d:,}", *(_cell(_ratios(costs, layer, d, of)) for _, layer, of in columns)]
        for d in _widths(costs)
    ]
    table = Table(["", *(name for name, _, _ in columns)], rows)
    return [
        "The length n from which on self-attention costs more than the recurrent layer:",
        table,
        Picture(
            "table1-wins",
            "the cost of self-attention over that of the recurrent layer, by n / d",
            partial(_draw_ratios, costs),
        ),
    ]


def _draw_ratios(costs: Costs) -> Figure:
    figure = new_figure((9, 3.8))
    panels = [("operations", _operations), ("seconds", _seconds)]
    for number, (title, quantity) in enumerate(panels, 1):
        axes = figure.add_subplot(1, 2, number)
        for i, d in enumerate(_widths(costs)):
            for layer, style in ((ATTENTION, "o-"), (PROJECTED, "x--")):
                ratios = _ratios(costs, layer, d, quantity)
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


# Pictures of growth


_COLORS = {layer.name: f"C{i}" for i, layer in enumerate(LAYERS)} | {DILATED: "C7"}


def _growth_pictures(costs: Costs, middle: Size) -> list[Picture]:
    return [
        Picture(
            "table1-operations",
            f"operations by n at d = {middle.d}, and by d at n = {middle.n}",
            partial(_draw_growth, costs, middle, [("operations", _operations)]),
        ),
        Picture(
            "table1-time",
            f"seconds and bytes by n at d = {middle.d}, and by d at n = {middle.n}",
            partial(_draw_growth, costs, middle, [("seconds", _seconds), ("bytes", _bytes)]),
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


def _path_picture(costs: Costs, paths: Mapping[str, Any]) -> Picture:
    def draw() -> Figure:
        figure = new_figure((9, 3.6))
        left, right = (figure.add_subplot(1, 2, i) for i in (1, 2))
        for layer in LAYERS:
            points = sorted(zip(*_steps(costs, layer), strict=True))
            left.plot(
                *zip(*points, strict=True),
                "o-",
                color=_COLORS[layer.name],
                markersize=4,
                label=layer.name,
            )
        for name, found in paths["paths"].items():
            right.plot(paths["n"], found, "o-", color=_COLORS[name], markersize=4, label=name)
        _logarithmic(left, "operations in sequence", "n")
        _logarithmic(right, "longest path", "n")
        for axes in (left, right):
            axes.legend(fontsize=7)
        return figure

    return Picture("table1-paths", "operations in sequence, and longest paths, by n", draw)


def _logarithmic(axes: Axes, title: str, x: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)


# Sentences


def _measured(costs: Costs, paths: Mapping[str, Any], crossings: Mapping[int, float]) -> str:
    growth = ", ".join(f"{_growth(costs, layer)} for {layer.name}" for layer in LAYERS)
    longest = paths["n"][-1]
    path = ", ".join(f"{_longest_path(paths, name)} for {name}" for name in paths["paths"])
    return (
        f"counted operations grow as {growth}. In sequence, self-attention takes "
        f"{_chain(costs, ATTENTION)} and the recurrent layer {_chain(costs, RECURRENT)}. The "
        f"longest path of {longest} positions is {path} (k = {paths['k']}, r = {paths['r']}). "
        f"{_crossed(crossings)} {_faster(costs)}"
    )


def _crossed(crossings: Mapping[int, float]) -> str:
    if not crossings:
        return "At these sizes, operations of self-attention and recurrence do not become equal."
    at = ", ".join(f"n = {n:,.0f} for d = {d}" for d, n in crossings.items())
    relative = [n / d for d, n in crossings.items()]
    span = f"{min(relative):.2f} d"
    if len(relative) > 1:
        span += f" to {max(relative):.2f} d"
    return f"Self-attention takes as many operations as recurrence at {at}: at {span}."


def _faster(costs: Costs) -> str:
    """What a wall clock says, of layers with their projections."""
    cells = ", ".join(
        f"{_cell(_ratios(costs, PROJECTED, d, _seconds))} for d = {d}" for d in _widths(costs)
    )
    return (
        f"By the clock, and with its projections, it takes longer than recurrence from n: {cells}."
    )


def _verdict(
    costs: Costs,
    paths: Mapping[str, Any],
    wrong: Sequence[str],
    crossings: Mapping[int, float],
) -> str:
    holds = {
        "operations grow as the table says": not wrong,
        "operations in sequence are those of the table": _steps_hold(costs),
        "paths are those of the table": _paths_hold(paths),
        "self-attention takes fewer operations than recurrence where n is below half of d, and "
        "more where it is above twice d": _wins_where_said(costs),
    }
    yes = [what for what, is_so in holds.items() if is_so]
    no = [what for what, is_so in holds.items() if not is_so]
    parts = []
    if yes:
        parts.append(("Yes: " if not no else "In part. It holds that ") + _listed(yes) + ".")
    if no:
        parts.append("It does not hold here that " + _listed(no) + ".")
    if wrong:
        parts.append("Operations grow differently: " + _listed(wrong) + ".")
    parts.append(_projections(costs))
    return " ".join(parts)


def _projections(costs: Costs) -> str:
    """What the table's footing leaves out."""
    ratios = [
        ratio for d in _widths(costs) for _, ratio in _ratios(costs, PROJECTED, d, _operations)
    ]
    least = min(ratios)
    if least < 1:
        return (
            "With the projections, which the table leaves out, a layer of self-attention takes "
            f"{least:.2f} to {max(ratios):.2f} times the operations of the recurrent one."
        )
    return (
        "But with the projections, which the table leaves out, a layer of self-attention takes "
        f"{least:.2f} times the operations of the recurrent one or more, at every size: what it "
        "saves is not operations but waiting, for none of them is in sequence."
    )


def _listed(parts: Sequence[str]) -> str:
    """a; b; and c."""
    return parts[0] if len(parts) == 1 else "; ".join(parts[:-1]) + "; and " + parts[-1]


def _scaled(costs: Costs, middle: Size) -> Table:
    widths = _widths(costs)
    lengths = [size.n for size, _ in costs[ATTENTION.name, "n"]]
    return Table(
        ["what", "the paper", "here"],
        [
            ["width d of its models", "512 and 1,024", f"{widths[0]:,} to {widths[-1]:,}"],
            ["heads", "8 and 16", str(middle.heads)],
            ["positions n", "any", f"{min(lengths):,} to {max(lengths):,}"],
            ["sentences at a time", "25,000 tokens of them", "one"],
        ],
    )
