"""Pictures of heads in the manner of the paper's Figures 3 to 5: lines between words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from train.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORD, _HEIGHT, _MARGIN = 0.32, 3.4, 0.6  # inches: a word, a panel and the space beside it
_NARROWEST, _ENTRY = 3.0, 0.9  # inches: a figure, and an entry of its legend
_BESIDE = 0.06  # words: between the lines of different heads
_LEAST = 0.02  # weights below are not drawn


def lines_between_words(
    panels: Mapping[str, Mapping[int, np.ndarray]],
    words: Sequence[str],
    names: Mapping[int, str],
    of: int | None = None,
) -> Figure:
    """Words twice, above each other, with a line from each to those that it attends to.

    panels: for each title the weights [n, n] by the number of a head, which is its colour. names:
    what the legend says of each number. of: the place of the only word whose lines are drawn.
    """
    width = max(len(words) * _WORD + _MARGIN, _NARROWEST)
    figure = new_figure((width, _HEIGHT * len(panels)))
    for number, (title, heads) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(len(panels), 1, number)
        axes.set_title(title, fontsize=10)
        _draw(axes, words, heads, of)
    handles = [
        figure.axes[0].plot([], [], color=_colour(head), linewidth=3, label=name)[0]
        for head, name in names.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=int(width / _ENTRY),
        fontsize=8,
        frameon=False,
    )
    return figure


def _draw(
    axes: Axes, words: Sequence[str], heads: Mapping[int, np.ndarray], of: int | None
) -> None:
    queries = range(len(words)) if of is None else [of]
    for number, (head, weights) in enumerate(heads.items()):
        aside = _BESIDE * (number - (len(heads) - 1) / 2)
        for query in queries:
            for key, weight in enumerate(weights[query]):
                if weight >= _LEAST:
                    axes.plot(
                        [key + aside, query + aside],
                        [0, 1],
                        color=_colour(head),
                        alpha=float(min(weight, 1.0)),
                        linewidth=2,
                        solid_capstyle="butt",
                    )
    for place, word in enumerate(words):
        label = word.replace("$", r"\$")
        style: dict[str, Any] = {"rotation": 90, "ha": "center", "fontsize": 9}
        weight = "bold" if place == of else "normal"
        axes.text(place, 1.04, label, va="bottom", fontweight=weight, **style)
        axes.text(place, -0.04, label, va="top", **style)
    longest = max(map(len, words))
    room = 0.04 + 0.055 * longest  # of the words, in heights of the lines
    axes.set_ylim(-room, 1 + room)
    axes.set_xlim(-0.7, len(words) - 0.3)
    axes.set_axis_off()


def _colour(head: int) -> str:
    return f"C{head % 10}"
