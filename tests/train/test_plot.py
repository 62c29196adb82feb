"""The picture of attention: every head has a panel, and every token a label."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from npformer.attention_maps import AttentionMaps
from npformer.translation import Translation
from train.cli import plot

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

SOURCE = ("▁The", "▁cat", "▁costs", "▁$5", "</s>")
TARGET = ("▁Die", "▁Katze", "▁kostet", "▁5", "▁Donaudampfschiffe", ".", "</s>")


def translation_with(heads: int) -> Translation:
    """A translation in which each head attends to one source token only."""
    cross = np.zeros((2, heads, len(TARGET), len(SOURCE)), np.float32)
    for head in range(heads):
        cross[:, head, :, head % len(SOURCE)] = 1
    maps = AttentionMaps(encoder=np.zeros(0), decoder=np.zeros(0), cross=cross)
    return Translation("", 0.0, source_pieces=SOURCE, predicted_pieces=TARGET, attention=maps)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 5, 6, 8, 16])
def test_every_head_has_a_panel(
    heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, out: drawn.append(figure))
    plot.draw_attention(translation_with(heads), tmp_path / "attention.png")
    [figure] = drawn
    mean, *panels = [axes for axes in figure.axes if axes.get_images() and axes.get_title()]
    np.testing.assert_allclose(mean.get_images()[0].get_array().sum(axis=1), 1, rtol=1e-6)
    assert [axes.get_title() for axes in panels] == [f"head {h + 1}" for h in range(heads)]
    for head, axes in enumerate(panels):
        column = axes.get_images()[0].get_array()[:, head % len(SOURCE)]
        np.testing.assert_array_equal(column, 1)


@pytest.mark.parametrize("heads", [1, 5, 8])
def test_rows_and_columns_are_labelled_at_the_edges(
    heads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, out: drawn.append(figure))
    plot.draw_attention(translation_with(heads), tmp_path / "attention.png")
    panels = [axes for axes in drawn[0].axes if axes.get_title()]
    across = [" The", " cat", " costs", r" \$5", "</s>"]
    for axes in panels:
        position = axes.get_subplotspec()
        below = [p for p in panels if p.get_subplotspec().colspan == position.colspan]
        lowest = max(p.get_subplotspec().rowspan.stop for p in below)
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == (across if position.rowspan.stop == lowest else []), axes.get_title()
    assert [len(axes.get_yticklabels()) for axes in panels][:2] == [len(TARGET)] * 2


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_picture_is_drawn_without_a_warning(suffix: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.draw_attention(translation_with(8), tmp_path / f"attention.{suffix}")
    assert (tmp_path / f"attention.{suffix}").stat().st_size > 1000
