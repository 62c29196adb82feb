"""Figures as SVG, written by hand: boxes, lines of text, arrows.

The same calls give the same bytes. Colours follow the reader's light or dark mode, on a background
of their own, for a page may be dark where the reader's system is light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

Point = tuple[float, float]

_MONOSPACED = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_SANS = "-apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"

_SIZES = {"heading": 15.0, "title": 12.0, "note": 11.0, "code": 11.0, "shape": 11.0}
_EM = {"heading": 0.64, "title": 0.62, "note": 0.56, "code": 0.64, "shape": 0.64}

# What each kind of element looks like: its colour in light mode, and in dark mode.
_FILLS = {
    "page": ("#ffffff", "#0d1117"),
    "box": ("#f6f8fa", "#161b22"),
    "marked": ("#fff1d6", "#3a2a08"),
    "frame": ("none", "none"),
    "heading": ("#1f2328", "#e6edf3"),
    "title": ("#1f2328", "#e6edf3"),
    "code": ("#1f2328", "#e6edf3"),
    "note": ("#59636e", "#9198a1"),
    "shape": ("#0550ae", "#79c0ff"),
    "head": ("#59636e", "#9198a1"),
    "back-head": ("#bc4c00", "#f0883e"),
}
_STROKES = {
    "box": ("#afb8c1", "#484f58"),
    "marked": ("#bf8700", "#bb8009"),
    "frame": ("#d1d9e0", "#30363d"),
    "flow": ("#59636e", "#9198a1"),
    "back": ("#bc4c00", "#f0883e"),
    "curve-0": ("#0969da", "#58a6ff"),
    "curve-1": ("#bc4c00", "#f0883e"),
    "curve-2": ("#59636e", "#9198a1"),
}
_CURVES = [kind for kind in _STROKES if kind.startswith("curve-")]


def width_of(text: str, kind: str) -> float:
    """How wide a line of text of this kind is at most, in the usual fonts."""
    return len(text) * _SIZES[kind] * _EM[kind]


class Drawing:
    """A figure. `title` and `description` are for those who cannot see it."""

    def __init__(self, title: str, description: str) -> None:
        self.title, self.description = title, description
        self._elements: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, kind: str = "box") -> None:
        """A rectangle: a "box", a "marked" one, the "frame" around some, a point of a "curve-0"."""
        size = f'width="{_number(width)}" height="{_number(height)}"'
        at = f'x="{_number(x)}" y="{_number(y)}"'
        self._elements.append(f'<rect class="{kind}" {at} {size} rx="5"/>')

    def text(self, x: float, y: float, text: str, kind: str, anchor: str = "start") -> None:
        """A line of text, whose baseline is at y."""
        at = f'x="{_number(x)}" y="{_number(y)}"'
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self._elements.append(f'<text class="{kind}" {at}{place}>{escape(text)}</text>')

    def arrow(self, points: Sequence[Point], kind: str = "flow") -> None:
        """A line through points, with round corners and a head at its end; "flow" or "back"."""
        self.line(points, kind)
        (x0, y0), (x, y) = points[-2:]
        length = math.hypot(x - x0, y - y0)
        dx, dy = (x - x0) / length, (y - y0) / length
        corners = [(x, y)]
        corners += [(x - 7 * dx + side * dy, y - 7 * dy - side * dx) for side in (-3.5, 3.5)]
        head = " ".join(f"{_number(a)},{_number(b)}" for a, b in corners)
        name = "head" if kind == "flow" else f"{kind}-head"
        self._elements.append(f'<polygon class="{name}" points="{head}"/>')

    def line(self, points: Sequence[Point], kind: str = "flow") -> None:
        """The same without a head."""
        path = [f"M{_point(points[0])}"]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            into, out = _towards(corner, before), _towards(corner, after)
            path.append(f"L{_point(into)}Q{_point(corner)} {_point(out)}")
        path.append(f"L{_point(points[-1])}")
        self._elements.append(f'<path class="{kind}" d="{"".join(path)}"/>')

    def svg(self, width: float, height: float) -> str:
        """The file's text."""
        size = f"{_number(width)} {_number(height)}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
                f'width="{_number(width)}" height="{_number(height)}" role="img">',
                f"<title>{escape(self.title)}</title>",
                f"<desc>{escape(self.description)}</desc>",
                f"<style>\n{_style()}\n</style>",
                '<rect class="page" width="100%" height="100%"/>',
                *self._elements,
                "</svg>\n",
            ]
        )


def _style() -> str:
    lines = [
        f".{kind} {{ font: {'600 ' if kind in ('heading', 'title') else ''}{_number(size)}px "
        f"{_SANS if kind in ('heading', 'title', 'note') else _MONOSPACED} }}"
        for kind, size in _SIZES.items()
    ]
    lines += [".flow, .back { fill: none; stroke-width: 1.4 }", ".frame { stroke-dasharray: 4 3 }"]
    lines += [f"{', '.join(f'.{curve}' for curve in _CURVES)} {{ fill: none; stroke-width: 1.8 }}"]
    lines += _colours(0)
    return "\n".join([*lines, "@media (prefers-color-scheme: dark) {", *_colours(1), "}"])


def _colours(mode: int) -> list[str]:
    return [
        *(f".{kind} {{ fill: {colours[mode]} }}" for kind, colours in _FILLS.items()),
        *(f".{kind} {{ stroke: {colours[mode]} }}" for kind, colours in _STROKES.items()),
    ]


def _towards(corner: Point, other: Point, radius: float = 6.0) -> Point:
    """The point on the way from a corner to another, where its rounding ends."""
    (x, y), (x1, y1) = corner, other
    length = math.hypot(x1 - x, y1 - y)
    share = min(radius, length / 2) / length
    return x + (x1 - x) * share, y + (y1 - y) * share


def _point(point: Point) -> str:
    return f"{_number(point[0])} {_number(point[1])}"


def _number(x: float) -> str:
    return f"{round(x, 2):g}"
