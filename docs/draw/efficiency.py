"""How much of each GPU's work is left as their number grows, by `benchmarks/projection.py`."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.interconnects import CLUSTERS, Cluster
from benchmarks.projection import Projected, efficiency, strong, weak
from docs.draw.svg import Drawing

_GPUS = [2**k for k in range(10)]  # 1 to 512
_WIDTH, _HEIGHT = 300.0, 180.0  # of a panel
_LEFT, _TOP, _ACROSS, _DOWN = 64.0, 146.0, 400.0, 276.0
_MARKER = 5.0

Project = Callable[[str, Cluster, int], Projected]


def draw() -> str:
    """The figure."""
    drawing = Drawing(
        "Efficiency against the number of GPUs, projected",
        "Tokens a second for each GPU, as a share of one GPU's with 25,000 + 25,000 tokens, for 1 "
        "to 512 H100; base and big, weak and strong scaling, over three interconnects.",
    )
    drawing.text(_LEFT, 34, "Efficiency against the number of H100, projected", "heading")
    for i, cluster in enumerate(CLUSTERS):
        y = 58.0 + 18 * i
        drawing.line([(_LEFT, y - 4), (_LEFT + 32, y - 4)], f"curve-{i}")
        drawing.text(_LEFT + 42, y, cluster.name, "note")
    for row, (project, what) in enumerate(((weak, "on each GPU"), (strong, "over all GPUs"))):
        for column, config in enumerate(("base", "big")):
            left, top = _LEFT + column * _ACROSS, _TOP + row * _DOWN
            drawing.text(left, top - 16, f"{config}, 25,000 + 25,000 tokens {what}", "title")
            _panel(drawing, config, project, left, top)
    return drawing.svg(2 * _ACROSS + 20, _TOP + _DOWN + _HEIGHT + 56)


def _panel(drawing: Drawing, config: str, project: Project, left: float, top: float) -> None:
    bottom = top + _HEIGHT
    for percent in range(0, 101, 20):
        y = bottom - _HEIGHT * percent / 100
        drawing.line([(left, y), (left + _WIDTH, y)], "frame")
        drawing.text(left - 26, y + 4, f"{percent} %", "note", "middle")
    across = [left + _WIDTH * k / (len(_GPUS) - 1) for k in range(len(_GPUS))]
    for x, gpus in zip(across, _GPUS, strict=True):
        drawing.text(x, bottom + 20, f"{gpus}", "note", "middle")
    drawing.text(left + _WIDTH / 2, bottom + 38, "GPUs", "note", "middle")
    for i, cluster in enumerate(CLUSTERS):
        shares = [efficiency(config, project(config, cluster, gpus)) for gpus in _GPUS]
        points = [(x, bottom - _HEIGHT * s) for x, s in zip(across, shares, strict=True)]
        drawing.line(points, f"curve-{i}")
        for x, y in points:
            drawing.box(x - _MARKER / 2, y - _MARKER / 2, _MARKER, _MARKER, f"curve-{i}")
