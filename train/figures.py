"""Figures and their files. Needs matplotlib: pip install 'npformer[plot]'."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from npformer.errors import UserError
from npformer.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = ("png", "svg", "pdf")
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def new_figure(size: ArrayLike) -> Figure:
    """An empty figure; size: width and height in inches."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("drawing needs matplotlib: pip install 'npformer[plot]'") from error
    width, height = np.asarray(size)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure to `out`; its ending is the format. Raises UserError for another ending."""
    kind = out.suffix.removeprefix(".").lower()
    if kind not in _FORMATS:
        raise UserError(f"{out}: the name of a picture must end in .{', .'.join(_FORMATS)}")
    from matplotlib import rc_context

    out.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()  # a file may be a pipe, which is not seekable
    with rc_context({"svg.hashsalt": out.stem}):  # the same picture is the same file
        figure.savefig(picture, format=kind, dpi=120, metadata=_UNDATED.get(kind))
    with atomic_write(out) as file:
        file.write(picture.getvalue())
