"""The rows of Table 3, and their models in a smaller size that keeps their relation to base."""

from __future__ import annotations

from typing import Any, NamedTuple

from npformer.config import PRESETS, TransformerConfig
from npformer.errors import UserError

BASE = "base"


class Row(NamedTuple):
    """A row of Table 3, on newstest2013.

    preset: of TransformerConfig. differs: from base, in the paper's size. perplexity: per subword.
    """

    name: str
    preset: str
    differs: str
    perplexity: float
    bleu: float


_PAPER = {
    BASE: ("", 4.92, 25.8),
    "A/heads=1": ("h = 1", 5.29, 24.9),
    "A/heads=4": ("h = 4", 5.00, 25.5),
    "A/heads=16": ("h = 16", 4.91, 25.8),
    "A/heads=32": ("h = 32", 5.01, 25.4),
    "B/d_k=16": ("d_k = 16", 5.16, 25.1),
    "B/d_k=32": ("d_k = 32", 5.01, 25.4),
    "C/layers=2": ("N = 2", 6.11, 23.7),
    "C/layers=4": ("N = 4", 5.19, 25.3),
    "C/layers=8": ("N = 8", 4.88, 25.5),
    "C/d_model=256": ("d_model = 256", 5.75, 24.5),
    "C/d_model=1024": ("d_model = 1024", 4.66, 26.0),
    "C/d_ff=1024": ("d_ff = 1024", 5.12, 25.4),
    "C/d_ff=4096": ("d_ff = 4096", 4.75, 26.2),
    "D/dropout=0": ("P_drop = 0", 5.77, 24.6),
    "D/dropout=0.2": ("P_drop = 0.2", 4.95, 25.5),
    "D/smoothing=0": ("ε_ls = 0", 4.67, 25.3),
    "D/smoothing=0.2": ("ε_ls = 0.2", 5.47, 25.7),
    "E": ("learned positions", 4.92, 25.7),
    "big": ("d_model = 1024, d_ff = 4096, h = 16, P_drop = 0.3", 4.33, 26.4),
}

ROWS = {
    name: Row(name, BASE if name == BASE else f"table3/{name}", *values)
    for name, values in _PAPER.items()
}
"""All rows by their names, such as base and C/d_ff=1024."""

_PAPER_LAYERS = 6
_WIDTHS = ("d_model", "d_ff", "d_k", "d_v")


def chosen(names: tuple[str, ...]) -> list[Row]:
    """The rows of these names, in the paper's order. Raises UserError for another name."""
    for name in names:
        if name not in ROWS:
            raise UserError(f"Table 3 has no row {name!r}; its rows are {', '.join(ROWS)}")
    if BASE not in names:
        raise UserError(f"--rows needs {BASE}, with which the others are compared")
    return [row for row in ROWS.values() if row.name in names]


def scaled(row: Row, width: float, layers: int) -> dict[str, Any]:
    """The settings of a row's model, all of whose widths are multiplied by `width`.

    layers: of base; a row that has a third of the paper's has a third of these. The number of heads
    stays. Raises UserError if a width or number of layers would not be whole, or heads would not
    fit.
    """
    preset = PRESETS[row.preset]
    full = TransformerConfig.preset(row.preset, vocab_size=1).to_dict()
    changes: dict[str, Any] = {}
    for name in (*_WIDTHS, "layers"):
        factor = layers / _PAPER_LAYERS if name == "layers" else width
        if name in ("d_k", "d_v") and name not in preset:
            continue  # it follows from d_model and heads
        value = full[name] * factor
        changes[name] = round(value)
        if abs(value - changes[name]) > 1e-6 or not changes[name]:
            flag = f"--layers {layers}" if name == "layers" else f"--width {width:g}"
            raise _refusal(row, f"{flag} makes its {name} {value:.4g}, not {full[name]}")
    try:
        TransformerConfig.preset(row.preset, vocab_size=1, **changes)
    except UserError as error:
        raise _refusal(row, f"--width {width:g}: {error}") from error
    return {"preset": row.preset, **changes}


def _refusal(row: Row, why: str) -> UserError:
    without = "" if row.name == BASE else f", or --rows without {row.name}"
    return UserError(
        f"row {row.name} has no such size: {why}; choose another{without} "
        "(a --width of 1, 0.5, 0.25, 0.125 or 0.0625 and --layers of 3 or 6 suit all rows)"
    )
