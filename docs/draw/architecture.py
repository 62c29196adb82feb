"""The architecture (Figure 1 of the paper), with the shape at each arrow, as a step computes it.

Every box is an operation that was recorded, and every arrow an array that one of them gave to
another. Only the order of the columns is made here.
"""

from __future__ import annotations

from dataclasses import dataclass

from autograd import Tensor
from docs.draw.recorded import Operation, Step, named, step
from docs.draw.svg import Drawing, width_of

_GAP = 32  # between the boxes of a sub-layer
_BETWEEN = 58  # between sub-layers
_MARGIN = 24
_APART = 36  # the two columns
_INSIDE = 30  # between a sub-layer's frame and its boxes


@dataclass(eq=False)
class _Box:
    """An operation in its place. `part` is the sub-layer that it belongs to, by name."""

    operation: Operation
    part: str
    lines: list[tuple[str, str]]  # text and its kind
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return 14 + 16 * len(self.lines)

    @property
    def bottom(self) -> float:
        return self.y + self.height


def draw() -> str:
    """The figure."""
    recorded = step()
    boxes = _boxes(recorded)
    second = [box.operation.name for box in boxes].index("embedding", 1)
    encoder, decoder = boxes[:second], boxes[second:]
    memory = encoder[-1].operation.results[0]
    # What the decoder makes of the memory alone stands below the encoder.
    of_memory = [b for b in decoder if [x.serial for x in b.operation.inputs] == [memory.serial]]
    decoder = [b for b in decoder if b not in of_memory]
    width = 20 + max(width_of(text, kind) for box in boxes for text, kind in box.lines)
    left = _MARGIN + _INSIDE
    right = left + width + 2 * _INSIDE + _APART
    top = 112
    bottoms = [
        _place([*encoder, *of_memory], left, top),
        _place(decoder, right, top),
    ]

    drawing = Drawing(
        "The Transformer, operation by operation",
        "Encoder on the left, decoder on the right; each arrow has the shape of the array it is.",
    )
    drawing.text(_MARGIN, 34, "Encoder", "heading")
    drawing.text(right - _INSIDE, 34, "Decoder", "heading")
    drawing.text(_MARGIN, 54, "One of N layers. The sentences of a batch lie end to end:", "note")
    drawing.text(_MARGIN, 69, "an activation is a matrix, and nothing is padded.", "note")
    drawing.text(
        right - _INSIDE, 54, "One of N layers. The three marked boxes share one table E,", "note"
    )
    drawing.text(right - _INSIDE, 69, "whose gradient is the sum of what they give it.", "note")
    for column in (encoder, of_memory, decoder):
        _frames(drawing, column, width)
    _arrows(drawing, boxes, width, encoder)
    for box in boxes:
        _put(drawing, box, width, recorded)
    for box in (encoder[0], decoder[0]):
        ids = box.operation.settings["ids"]
        _down(drawing, box.x + width / 2, box.y - _GAP, box.y, f"token ids {named(ids.shape)}")
    end = decoder[-1]
    label = f"loss, {named(end.operation.results[0].shape)}"
    _down(drawing, end.x + width / 2, end.bottom, end.bottom + _GAP, label)
    return drawing.svg(right + width + _INSIDE + _MARGIN, max(bottoms) + _GAP + 12)


def _boxes(recorded: Step) -> list[_Box]:
    """A box for each operation. One without parameters belongs to where its input comes from."""
    parts: dict[int, str] = {}
    boxes = []
    for operation in recorded.operations:
        names = [recorded.names[p.serial] for p in operation.parameters]
        if names and "." in names[0]:
            part = ".".join(names[0].split(".")[:3])
        else:
            part = parts[operation.inputs[0].serial] if operation.name == "attention" else ""
        parts.update((result.serial, part) for result in operation.results)
        weights = [
            f"{name.removeprefix(f'{part}.')} {named(p.shape)}"
            for name, p in zip(names, operation.parameters, strict=True)
            if not name.endswith(".bias")
        ]
        lines = [(_formula(operation), "title"), (" · ".join([operation.name, *weights]), "code")]
        if operation.name == "projected_cross_entropy":  # which keeps them to itself
            lines.append((f"logits {named(recorded.logits.shape)}", "shape"))
        boxes.append(_Box(operation, part, lines))
    return boxes


def _formula(operation: Operation) -> str:
    settings = operation.settings
    formulas = {
        "embedding": "E[ids] · √d_model + PE",
        "linear": "xW + b",
        "feed_forward": "max(0, xW₁ + b₁) W₂ + b₂",
        "attention": "softmax(QKᵀ / √d_k) V, masked"
        if settings.get("causal")
        else "softmax(QKᵀ / √d_k) V",
        "add_dropout_norm": "LayerNorm(x + Dropout(y))",
        "projected_cross_entropy": "cross-entropy of softmax(logits), logits = xEᵀ",
        "divide": "÷ number of target tokens",
    }
    if operation.name not in formulas:
        raise LookupError(f"{operation.name} has no formula in docs/draw/architecture.py")
    return formulas[operation.name]


def _place(column: list[_Box], x: float, y: float) -> float:
    """Put boxes below each other; returns where the last one ends."""
    for before, box in zip([None, *column], column, strict=False):
        if before is not None:
            y = before.bottom + (_GAP if before.part == box.part else _BETWEEN)
        box.x, box.y = x, y
    return column[-1].bottom


def _frames(drawing: Drawing, column: list[_Box], width: float) -> None:
    """A frame around each sub-layer, with its name."""
    for part in dict.fromkeys(box.part for box in column if box.part):
        inside = [box for box in column if box.part == part]
        top, bottom = inside[0].y - 30, inside[-1].bottom + 10
        drawing.box(inside[0].x - _INSIDE, top, width + 2 * _INSIDE, bottom - top, "frame")
        drawing.text(inside[0].x - _INSIDE + 8, top + 14, part, "code")


def _arrows(drawing: Drawing, boxes: list[_Box], width: float, encoder: list[_Box]) -> None:
    """What each operation gives to which others: straight down, around a sub-layer, or across."""
    made: dict[int, _Box] = {r.serial: box for box in boxes for r in box.operation.results}
    for box in boxes:
        for i, x in enumerate(box.operation.inputs):
            source = made[x.serial]
            if source.x != box.x:
                _across(drawing, source, box, x, width)
            elif i == 0:
                middle = box.x + width / 2
                name = "memory " if source is encoder[-1] else ""
                label = f"{name}{named(x.shape)}"
                _down(drawing, middle, source.bottom, box.y, label)
            else:
                _around(drawing, source, box, width)


def _down(drawing: Drawing, x: float, top: float, bottom: float, label: str) -> None:
    drawing.arrow([(x, top), (x, bottom)])
    drawing.text(x + 8, bottom - 12 if bottom - top < _BETWEEN else top + 23, label, "shape")


def _around(drawing: Drawing, source: _Box, box: _Box, width: float) -> None:
    """The residual: what went into the sub-layer is added to what comes out of it."""
    middle, side = box.x + width / 2, box.x + width + _INSIDE / 2
    above, y = source.bottom + _BETWEEN - 9, box.y + box.height / 2
    drawing.arrow([(middle, above), (side, above), (side, y), (box.x + width, y)])


def _across(drawing: Drawing, source: _Box, box: _Box, x: Tensor, width: float) -> None:
    """From the encoder's column to the decoder's, below the one and into the side of the other."""
    begin, between = source.x + width / 2, source.x + width + _INSIDE + _APART / 2
    below, up = source.bottom + 38, box.y + box.height / 2
    drawing.arrow(
        [(begin, source.bottom), (begin, below), (between, below), (between, up), (box.x, up)]
    )
    drawing.text(begin + 8, below - 9, f"K‖V {named(x.shape)}", "shape")


def _put(drawing: Drawing, box: _Box, width: float, recorded: Step) -> None:
    names = [recorded.names[p.serial] for p in box.operation.parameters]
    drawing.box(box.x, box.y, width, box.height, "marked" if "embedding" in names else "box")
    for i, (text, kind) in enumerate(box.lines):
        drawing.text(box.x + 10, box.y + 19 + 16 * i, text, kind)
