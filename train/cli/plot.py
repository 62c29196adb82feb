"""Plots of attention. Needs matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npformer.errors import UserError
from npformer.translation import Translation
from npformer.translator import Translator
from train.cli.display import readable
from train.figures import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

# In inches: the side of a square, and the margins that labels need, horizontally and vertically.
_CELL, _AROUND = 0.145, (2.2, 1.2)


def plot_attention(translator: Translator, sentence: str, out: Path) -> None:
    """Translate a sentence, and plot how each target token attends to the source."""
    [translation] = translator.translate([sentence], attention=True)
    if translation.attention is None:
        raise UserError("there is nothing to draw: the sentence is empty")
    draw_attention(translation, out)


def draw_attention(translation: Translation, out: Path) -> None:
    """Plot the cross-attention of one layer: the mean of all heads, and each head.

    Each row is labelled with the token that it predicts, and sums to 1 over the source.
    """
    assert translation.attention is not None
    cross = translation.attention.cross  # [layers, heads, m, n]
    layer = translation.attention.alignment_layer
    heads, m, n = cross.shape[1:]
    rows = min(heads, max(2, math.isqrt(heads)))
    columns = -(-heads // rows)
    height = max(2, rows)  # in panels of heads; the mean takes 2 × 2
    panel = np.maximum(_CELL * np.array([n, m]), 0.8)
    figure = new_figure(panel * [2 + columns, height] + _AROUND)
    grid = figure.add_gridspec(height, 2 + columns)

    mean = figure.add_subplot(grid[:, :2])
    image = _draw_weights(mean, "mean of all heads", cross[layer].mean(axis=0))
    _label(mean, translation.source_pieces, translation.predicted_pieces, 9)
    for head, weights in enumerate(cross[layer]):
        row, column = divmod(head, columns)
        axis = figure.add_subplot(grid[row, 2 + column])
        _draw_weights(axis, f"head {head + 1}", weights)
        lowest, leftmost = head + columns >= heads, column == 0
        across = translation.source_pieces if lowest else ()
        _label(axis, across, translation.predicted_pieces if leftmost else (), 6)
    figure.colorbar(image, ax=figure.axes, shrink=0.6, pad=0.01, label="weight")
    figure.suptitle(f"attention to the source, layer {layer + 1} of {len(cross)}")
    save_figure(figure, out)


def _draw_weights(axes: Axes, title: str, weights: np.ndarray) -> AxesImage:
    """Draw weights as squares from white to dark, with thin lines between them."""
    axes.set_title(title, fontsize=9)
    axes.set_xticks(np.arange(1, weights.shape[1]) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, weights.shape[0]) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="both", length=0)
    return axes.imshow(weights, cmap="Blues", vmin=0, vmax=1)


def _label(axes: Axes, source: tuple[str, ...], target: tuple[str, ...], size: float) -> None:
    """Label the columns with the source pieces and the rows with the target pieces, if any."""
    axes.set_xticks(range(len(source)), _labels(source), rotation=90, fontsize=size)
    axes.set_yticks(range(len(target)), _labels(target), fontsize=size)


def _labels(pieces: tuple[str, ...]) -> list[str]:
    """The pieces as labels, with $ escaped, which matplotlib takes for mathematics."""
    return [readable(piece).replace("$", r"\$") for piece in pieces]
