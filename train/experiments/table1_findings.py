"""What the measurements of Table 1 say: exponents, chains, paths, and where costs cross."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from train.experiments.compared_layers import (
    ATTENTION,
    CONVOLUTION,
    DILATED,
    LAYERS,
    RECURRENT,
    RESTRICTED,
    SEPARABLE,
    Layer,
    Size,
)
from train.experiments.power_law import Exponent, crossing, exponent

_CLOSE = 0.15  # between the exponents of operations and of the paper's formula
_WINS = 0.5  # attention should win up to this n / d, and lose from its inverse on

# What was measured of each layer and variable, at each size; "grid" is every length and width.
Costs = Mapping[tuple[str, str], Sequence[tuple[Size, dict[str, Any]]]]
Quantity = Callable[[Mapping[str, Any]], float]


def operations(cost: Mapping[str, Any]) -> float:
    return float(cost["forward"] + cost["backward"])


def seconds(cost: Mapping[str, Any]) -> float:
    return float(cost["seconds"])


def memory(cost: Mapping[str, Any]) -> float:
    return float(cost["bytes"])


def fit(costs: Costs, layer: Layer, variable: str, quantity: Quantity) -> Exponent:
    points = costs[layer.name, variable]
    return exponent([getattr(s, variable) for s, _ in points], [quantity(c) for _, c in points])


def expected_slope(costs: Costs, layer: Layer, variable: str) -> float:
    """The slope of the paper's formula at the sizes that were measured."""
    sizes = [size for size, _ in costs[layer.name, variable]]
    return exponent([getattr(s, variable) for s in sizes], [layer.formula(s) for s in sizes]).slope


def wrong_exponents(costs: Costs) -> list[str]:
    """Where operations do not grow as the paper says."""
    wrong = []
    for layer in LAYERS:
        for v in layer.variables:
            found, expected = (
                fit(costs, layer, v, operations).slope,
                expected_slope(costs, layer, v),
            )
            if abs(found - expected) > _CLOSE:
                wrong.append(f"those of {layer.name} as {v}^{found:.2f} in place of {expected:.2f}")
    return wrong


def chains(costs: Costs, layer: Layer) -> tuple[list[int], list[int]]:
    """The lengths, and the longest chain of each."""
    points = costs[layer.name, "n"]
    return [size.n for size, _ in points], [cost["steps"] for _, cost in points]


def steps_hold(costs: Costs) -> bool:
    lengths, steps = chains(costs, RECURRENT)
    order = np.argsort(lengths)
    grows = (np.diff(np.array(steps)[order]) == np.diff(np.array(lengths)[order])).all()
    others = [layer for layer in LAYERS if layer is not RECURRENT]
    return bool(grows) and all(len(set(chains(costs, layer)[1])) == 1 for layer in others)


def paths_hold(paths: Mapping[str, Any]) -> bool:
    """Whether they are what the paper says."""
    lengths, k, r, found = paths["n"], paths["k"], paths["r"], paths["paths"]
    longest = {
        ATTENTION.name: [1] * len(lengths),
        RECURRENT.name: [n - 1 for n in lengths],
        # From one end to the other, in steps of the shorter side of a kernel or window.
        CONVOLUTION.name: [-(-(n - 1) // (k // 2)) for n in lengths],
        SEPARABLE.name: [-(-(n - 1) // (k // 2)) for n in lengths],
        RESTRICTED.name: [-(-(n - 1) // ((r - 1) // 2)) for n in lengths],
    }
    # L layers reach (k^L - 1) / 2 positions to each side; near the ends others are needed as well.
    logarithmic = all(
        path <= 2 * math.ceil(math.log(2 * n - 1, k))
        for n, path in zip(lengths, found[DILATED], strict=True)
    )
    return logarithmic and all(found[name] == expected for name, expected in longest.items())


def relative_costs(
    costs: Costs, layer: Layer, d: int, quantity: Quantity
) -> list[tuple[int, float]]:
    """By n: the cost of attention over that of the recurrent layer, at width d."""
    recurrent = {size: quantity(cost) for size, cost in costs[RECURRENT.name, "grid"]}
    return sorted(
        (size.n, quantity(cost) / recurrent[size])
        for size, cost in costs[layer.name, "grid"]
        if size.d == d
    )


def grid_widths(costs: Costs) -> list[int]:
    return sorted({size.d for size, _ in costs[ATTENTION.name, "grid"]})


def crossing_of(ratios: Sequence[tuple[int, float]]) -> float | None:
    return crossing(*zip(*ratios, strict=True))


def equal_operations(costs: Costs, layer: Layer) -> dict[int, float]:
    """By width, the n from which on attention takes more operations, where it was reached."""
    found = {
        d: crossing_of(relative_costs(costs, layer, d, operations)) for d in grid_widths(costs)
    }
    return {d: n for d, n in found.items() if n is not None}


def wins_where_said(costs: Costs) -> bool | None:
    """Whether attention takes fewer operations up to n = d / 2, and more from n = 2 d on.

    None if one of the two was not measured.
    """
    points = [
        (n / d, ratio)
        for d in grid_widths(costs)
        for n, ratio in relative_costs(costs, ATTENTION, d, operations)
    ]
    below = [ratio for relative, ratio in points if relative <= _WINS]
    above = [ratio for relative, ratio in points if relative >= 1 / _WINS]
    return max(below) < 1 < min(above) if below and above else None
