"""Pictures of a run's curves and of attention. Needs matplotlib: pip install 'npformer[plot]'."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.translator import Translation, Translator
from train.display import readable
from train.run import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg", "pdf")


def plot_curves(run: Path, out: Path) -> None:
    """Perplexity in training and validation, with BLEU where it was measured, over steps."""
    entries = read_metrics(run)
    logged = [e for e in entries if "perplexity" in e]
    validated = [e for e in entries if "valid_perplexity" in e]
    if not logged and not validated:
        raise UserError(f"{run} has no curve to draw: its metrics.jsonl is missing or empty")
    figure, axes = _figure(1, 2, (11, 4))
    for label, points, key in (
        ("training, with dropout", logged, "perplexity"),
        ("validation", validated, "valid_perplexity"),
    ):
        if points:
            axes[0].plot([e["step"] for e in points], [e[key] for e in points], label=label)
    axes[0].set(xlabel="step", ylabel="perplexity a subword, unsmoothed", yscale="log")
    axes[0].legend()
    axes[0].grid(alpha=0.3, which="both")

    axes[1].plot([e["step"] for e in logged], [e["rate"] for e in logged], color="tab:green")
    axes[1].set(xlabel="step", ylabel="learning rate")
    axes[1].grid(alpha=0.3)
    scored = [e for e in validated if "bleu" in e]
    if scored:
        right = axes[1].twinx()
        right.plot([e["step"] for e in scored], [e["bleu"] for e in scored], "o-", color="tab:red")
        right.set_ylabel("BLEU on the validation part", color="tab:red")
    seconds = entries[-1]["seconds"]
    figure.suptitle(f"{run.resolve().name}: {entries[-1]['step']:,} steps, {seconds / 60:.0f} min")
    _save(figure, out)


def plot_attention(translator: Translator, sentence: str, out: Path) -> None:
    """Translate a sentence, and draw how each target symbol attends to the source."""
    [translation] = translator.translate([sentence], attention=True)
    if translation.attention is None:
        raise UserError("there is nothing to draw: the sentence is empty")
    draw_attention(translation, out)


def draw_attention(translation: Translation, out: Path) -> None:
    """The decoder's attention to the source: a panel for each head of one layer, and their mean.

    Each row is labelled with the symbol that it predicts.
    """
    assert translation.attention is not None
    cross = translation.attention.cross  # [layers, heads, m, n]
    layer = translation.attention.alignment_layer
    panels = [("mean of all heads", cross[layer].mean(axis=0))]
    panels += [(f"head {h + 1}", weights) for h, weights in enumerate(cross[layer])]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = 1.5 + 0.22 * max(cross.shape[2:])
    figure, axes = _figure(rows, columns, (columns * size, rows * size))
    for axis, panel in zip(np.ravel(axes), panels, strict=False):
        _draw_weights(axis, *panel, translation.source_pieces, translation.predicted_pieces)
    for axis in np.ravel(axes)[len(panels) :]:
        axis.axis("off")
    figure.suptitle(f"attention to the source, layer {layer + 1} of {len(cross)}")
    _save(figure, out)


def _draw_weights(
    axis: Axes, title: str, weights: np.ndarray, source: tuple[str, ...], target: tuple[str, ...]
) -> None:
    axis.imshow(weights, cmap="magma", vmin=0, vmax=1)
    axis.set_title(title, fontsize=9)
    axis.set_xticks(range(len(source)), _labels(source), rotation=90, fontsize=7)
    axis.set_yticks(range(len(target)), _labels(target), fontsize=7)


def _labels(pieces: tuple[str, ...]) -> list[str]:
    """As labels, with no $ that matplotlib would take for mathematics."""
    return [readable(piece).replace("$", r"\$") for piece in pieces]


def _figure(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("drawing needs matplotlib: pip install 'npformer[plot]'") from error
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _save(figure: Figure, out: Path) -> None:
    kind = out.suffix.removeprefix(".").lower()
    if kind not in _FORMATS:
        raise UserError(f"{out}: a picture ends in .{', .'.join(_FORMATS)}")
    out.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()  # a file may be a pipe, in which no format's writer can go back
    figure.savefig(picture, format=kind, dpi=120)
    with atomic_write(out) as file:
        file.write(picture.getvalue())
