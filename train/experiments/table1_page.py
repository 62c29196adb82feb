"""The page of Table 1: exponents beside the paper's, and where attention costs less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

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
from train.experiments.power_law import exponent
from train.experiments.table1_findings import (
    Costs,
    chains,
    crossing_of,
    equal_operations,
    expected_slope,
    fit,
    grid_widths,
    memory,
    operations,
    paths_hold,
    relative_costs,
    seconds,
    steps_hold,
    wins_where_said,
    wrong_exponents,
)
from train.experiments.table1_pictures import draw_ratios, growth_pictures, path_picture

GRID = (ATTENTION, PROJECTED, RECURRENT)
"""The layers that are measured at every length and width."""


def page(costs: Costs, middle: Size, paths: Mapping[str, Any]) -> Page:
    """The page; middle: the sizes that do not vary, and paths: by the number of positions."""
    wrong = wrong_exponents(costs)
    crossings = equal_operations(costs, ATTENTION)
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
        verdict=_verdict(costs, paths, wrong),
        scaled=_scaled(costs, middle),
        sections=[
            Section("Table 1, counted and measured", [_table(costs, paths), _EXPLAINED]),
            Section(
                "How costs grow", [_exponents(costs), _FITTED, *growth_pictures(costs, middle)]
            ),
            Section("Where attention wins", _where_it_wins(costs)),
            Section("Paths", [_path_table(paths), _PATHS, path_picture(costs, paths)]),
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
    "are installed, the layers compared with it as NumPy's matrix products, of the recurrent layer "
    "some for each position; a cost that does not grow with its formula is one that something else "
    "dominates at these sizes, such as calls."
)
_PATHS = (
    "The paper's O(log_k n) of convolutions is that of dilated ones: here dilations grow k-fold "
    "from layer to layer, and shrink again, for near the ends of a sentence one half alone does "
    "not connect all positions. A stack of plain ones needs O(n / k) layers, as section 4 says."
)


# Exponents


def _growth(costs: Costs, layer: Layer) -> str:
    """n^1.00 d^1.98."""
    return " ".join(f"{v}^{fit(costs, layer, v, operations).slope:.2f}" for v in layer.variables)


def _exponents(costs: Costs) -> Table:
    rows = [
        [
            layer.name,
            variable,
            f"{expected_slope(costs, layer, variable):.2f}",
            *(
                str(fit(costs, layer, variable, quantity))
                for quantity in (operations, seconds, memory)
            ),
        ]
        for layer in LAYERS
        for variable in layer.variables
    ]
    return Table(["layer", "in", "expected", "operations", "seconds", "bytes"], rows)


# Sequential operations and paths


def _chain(costs: Costs, layer: Layer) -> str:
    """The longest chain as a formula, if it is one: 3, or n + 3."""
    lengths, steps = chains(costs, layer)
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
    less = {n - path for n, path in zip(lengths, found, strict=True)}
    if len(less) == 1:
        return f"n - {less.pop()}"
    if name == DILATED:
        levels = np.log(lengths) / np.log(paths["k"])
        slope = np.polyfit(levels, found, 1)[0]
        return f"{slope:.2f} log_k n"
    return f"n^{exponent(lengths, found)}"


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


def _cell(ratios: Sequence[tuple[int, float]]) -> str:
    """From where on a ratio is 1 or more, or that there is no such length."""
    found = crossing_of(ratios)
    if found is not None:
        return f"{found:,.0f}"
    (first, low), (last, high) = ratios[0], ratios[-1]
    if all(ratio >= 1 for _, ratio in ratios):
        return f"always from {first:,} ({low:.2g} times there)"
    if all(ratio < 1 for _, ratio in ratios):
        return f"never up to {last:,} ({high:.2g} times there)"
    return f"none: less again at {last:,} ({high:.2g} times there)"


def _where_it_wins(costs: Costs) -> list[str | Table | Picture]:
    columns = [
        ("operations", ATTENTION, operations),
        ("operations, with projections", PROJECTED, operations),
        ("seconds", ATTENTION, seconds),
        ("seconds, with projections", PROJECTED, seconds),
    ]
    rows = [
        [f"d = {d:,}", *(_cell(relative_costs(costs, layer, d, of)) for _, layer, of in columns)]
        for d in grid_widths(costs)
    ]
    table = Table(["", *(name for name, _, _ in columns)], rows)
    return [
        "The length n from which on self-attention costs more than the recurrent layer:",
        table,
        Picture(
            "table1-wins",
            "the cost of self-attention over that of the recurrent layer, by n / d",
            partial(draw_ratios, costs),
        ),
    ]


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
    """From which length on attention takes longer, with its projections."""
    cells = ", ".join(
        f"{_cell(relative_costs(costs, PROJECTED, d, seconds))} for d = {d}"
        for d in grid_widths(costs)
    )
    return f"The length from which it takes longer, by the clock and with projections: {cells}."


def _verdict(
    costs: Costs,
    paths: Mapping[str, Any],
    wrong: Sequence[str],
) -> str:
    holds = {
        "operations grow as the table says": not wrong,
        "operations in sequence are those of the table": steps_hold(costs),
        "paths are those of the table": paths_hold(paths),
        "self-attention takes fewer operations than recurrence where n is at most half of d, and "
        "more where it is at least twice d": wins_where_said(costs),
    }
    yes, no, unseen = (
        [what for what, is_so in holds.items() if is_so is answer] for answer in (True, False, None)
    )
    parts = []
    if yes:
        begin = "In part. It holds that " if no or unseen else "Yes: "
        parts.append(begin + _listed(yes) + ".")
    if no:
        parts.append("It does not hold here that " + _listed(no) + ".")
    if unseen:
        parts.append("These sizes do not show whether " + _listed(unseen) + ".")
    if wrong:
        parts.append("Operations grow differently: " + _listed(wrong) + ".")
    return " ".join([*parts, _by_the_clock(costs), _projections(costs)])


def _by_the_clock(costs: Costs) -> str:
    """Whether attention is faster where the paper says so."""
    below = [
        (n, d, ratio)
        for d in grid_widths(costs)
        for n, ratio in relative_costs(costs, PROJECTED, d, seconds)
        if n < d
    ]
    if not below:
        return "No length below d was timed."
    slower = [f"n = {n} and d = {d}" for n, d, ratio in below if ratio >= 1]
    if slower:
        return "By the clock, with its projections, it is slower at " + _listed(slower) + "."
    return (
        f"By the clock it is faster at all {len(below)} sizes with n below d, projections included."
    )


def _projections(costs: Costs) -> str:
    """What the table leaves out."""
    ratios = [
        ratio
        for d in grid_widths(costs)
        for _, ratio in relative_costs(costs, PROJECTED, d, operations)
    ]
    least = min(ratios)
    if least < 1:
        return (
            "With the projections, which the table leaves out, a layer of self-attention takes "
            f"{least:.2f} to {max(ratios):.2f} times the operations of the recurrent one."
        )
    return (
        "But with the projections, which the table leaves out, a layer of self-attention takes "
        f"{least:.2f} times the operations of the recurrent one or more, at every size. What it "
        f"saves is operations in sequence: {_chain(costs, PROJECTED)} in place of "
        f"{_chain(costs, RECURRENT)}."
    )


def _listed(parts: Sequence[str]) -> str:
    """a; b; and c."""
    return parts[0] if len(parts) == 1 else "; ".join(parts[:-1]) + "; and " + parts[-1]


def _scaled(costs: Costs, middle: Size) -> Table:
    widths = grid_widths(costs)
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
