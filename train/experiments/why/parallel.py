"""Parallel computation: what must wait for what, and the time that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from train.experiments.compared_layers import PROJECTED, RECURRENT, Size, cost
from train.experiments.page import Picture, Table
from train.experiments.why.finding import Finding
from train.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEADS = 256, 8
_TIMED = 5  # seconds of passes, of which the fastest counts


def compared(n: int) -> dict[str, Any]:
    """Self-attention over n tokens, and a recurrent layer that is so wide that it costs the same.

    Both forward and backward, as `cost` returns it.
    """
    size = Size(n, _WIDTH, k=1, r=1, heads=_HEADS)
    attention = cost(PROJECTED, size, _TIMED, seed=0)
    # A recurrence's operations grow with the square of its width.
    narrow = cost(RECURRENT, size, 0, seed=0)
    ratio = _operations(attention) / _operations(narrow)
    width = max(1, round(_WIDTH * math.sqrt(ratio)))
    recurrent = cost(RECURRENT, size._replace(d=width), _TIMED, seed=0)
    return {"self-attention": attention, "recurrence": recurrent, "width": width}


def _operations(cost: Mapping[str, Any]) -> int:
    return int(cost["forward"] + cost["backward"])


def finding(found: Mapping[int, Mapping[str, Any]]) -> Finding:
    """Whether self-attention needs fewer steps and less time. found: `compared`, by n."""

    def draw() -> Figure:
        figure = new_figure((8, 3.2))
        for place, (key, label) in enumerate(
            (("steps", "sequential operations"), ("seconds", "seconds")), start=1
        ):
            axes = figure.add_subplot(1, 2, place)
            for name in ("self-attention", "recurrence"):
                axes.plot([*found], [of_n[name][key] for of_n in found.values()], "o-", label=name)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("n, tokens")
            axes.set_title(label, fontsize=10)
            axes.legend()
        return figure

    ratios = {
        n: of_n["recurrence"]["seconds"] / of_n["self-attention"]["seconds"]
        for n, of_n in found.items()
    }
    longest = max(found)
    steps = [found[longest][name]["steps"] for name in ("self-attention", "recurrence")]
    faster = [n for n, ratio in ratios.items() if ratio > 1]
    return Finding(
        "Parallel computation",
        "all positions are computed at once, where a recurrence waits at each for the one before.",
        f"over {longest:,} tokens self-attention is a chain of {steps[0]} operations, the "
        f"recurrence one of {steps[1]:,}; for as many floating-point operations the recurrence "
        f"takes {min(ratios.values()):.1f} to {max(ratios.values()):.1f} times as long",
        "yes" if len(faster) == len(ratios) else "in part" if faster else "no",
        [
            f"Forward and backward over one sentence of n tokens: self-attention of width {_WIDTH} "
            f"and {_HEADS} heads, with its projections, and a recurrent layer that is so wide that "
            "it costs as many operations. Sequential operations are the longest chain of the tape, "
            "forward; the time is the fastest of several. Each step of the recurrence is a call of "
            "NumPy's matrix product, and two on the way back: the calls themselves are a part of "
            "its time.",
            Picture("why-parallel", "sequential operations and time by length", draw),
            Table(
                ["n", "operations", "width", "steps", "ms", "width", "steps", "ms"],
                [
                    [
                        f"{n:,}",
                        f"{_operations(of_n['self-attention']) / 1e6:,.0f} M",
                        str(_WIDTH),
                        f"{of_n['self-attention']['steps']}",
                        f"{of_n['self-attention']['seconds'] * 1000:.1f}",
                        str(of_n["width"]),
                        f"{of_n['recurrence']['steps']:,}",
                        f"{of_n['recurrence']['seconds'] * 1000:.1f}",
                    ]
                    for n, of_n in found.items()
                ],
            ),
            "The first three columns after the operations are of self-attention, the others of the "
            "recurrence.",
        ],
    )
