"""The way of a token id: from a line of text to the loss, and back to the table of embeddings.

Each step names the function that does it, which must be there; shapes and types are those of a
recorded step.
"""

from __future__ import annotations

from dataclasses import dataclass

from docs.draw.recorded import Operation, Step, named, step
from docs.draw.svg import Drawing, width_of
from docs.source import find
from train.corpora.arrays import ids_dtype

_MARGIN, _GAP, _BETWEEN = 24.0, 36.0, 64.0
_HEIGHT = 64
_ARROW = 40  # from a box's left side to its arrows, which leaves room for their labels


_REMARK = (
    "Nothing flows back beyond the table, for ids are whole numbers: what",
    "a token learns, its row learns. The same table is the projection to the",
    "logits, so every row learns from every target token, too: the arrow on",
    "the right.",
)


@dataclass(frozen=True)
class _Station:
    """One step of the way: what it is, who does it, what to know, and what leaves it."""

    title: str
    symbol: str
    note: str
    gives: str


def draw() -> str:
    """The figure."""
    recorded = step()
    forth, back = _forth(recorded), _back(recorded)
    for station in [*forth, *back]:
        find(station.symbol)
    width = 20 + max(
        width_of(text, kind)
        for s in [*forth, *back]
        for text, kind in ((s.title, "title"), (s.symbol, "code"), (s.note, "note"))
    )
    left, right = _MARGIN, _MARGIN + width + _BETWEEN
    tops = [82 + i * (_HEIGHT + _GAP) for i in range(len(forth))]
    drawing = Drawing(
        "The way of a token id",
        " → ".join(station.title for station in [*forth, *back]),
    )
    drawing.text(left, 34, "Forward", "heading")
    drawing.text(left, 52, "From a line of text to the loss", "note")
    drawing.text(right, 34, "Backward", "heading")
    drawing.text(right, 52, "From the loss to the table's rows: read it upwards", "note")
    middle = left + _ARROW
    for station, top in zip(forth, tops, strict=True):
        _put(drawing, station, left, top, width)
        if top != tops[-1]:
            drawing.arrow([(middle, top + _HEIGHT), (middle, top + _HEIGHT + _GAP)])
            drawing.text(middle + 8, top + _HEIGHT + 22, station.gives, "shape")
    # The loss turns into the gradient with which the way back begins.
    y = tops[-1] + _HEIGHT / 2
    drawing.arrow([(left + width, y), (right, y)], "back")
    drawing.text(left + width + _BETWEEN / 2, y - 8, forth[-1].gives, "shape", "middle")
    middle = right + _ARROW
    for i, station in enumerate(back):
        top = tops[-1 - i]
        _put(drawing, station, right, top, width)
        if i + 1 < len(back):
            drawing.arrow([(middle, top), (middle, top - _GAP)], "back")
            drawing.text(middle + 8, top - 14, station.gives, "shape")
    # The table's second gradient, and the table as the next step finds it.
    embedding = [s.symbol for s in forth].index("autograd.ops.embedding")
    buffer = [s.symbol for s in back].index("autograd.ParameterBuffer")
    side = right + width + 16
    y = tops[-1 - buffer] + _HEIGHT / 2
    drawing.arrow(
        [
            (right + width, tops[-1] + _HEIGHT / 2),
            (side, tops[-1] + _HEIGHT / 2),
            (side, y),
            (right + width, y),
        ],
        "back",
    )
    adam = tops[-len(back)] + _HEIGHT / 2
    lane = left + width + _BETWEEN / 2
    y = tops[embedding] + _HEIGHT / 2
    drawing.arrow([(right, adam), (lane, adam), (lane, y), (left + width, y)], "back")
    for i, line in enumerate(_REMARK):
        drawing.text(right, tops[0] + 14 + 15 * i, line, "note")
    return drawing.svg(side + _MARGIN, tops[-1] + _HEIGHT + _MARGIN)


def _operations(recorded: Step, name: str) -> list[Operation]:
    return [operation for operation in recorded.operations if operation.name == name]


def _forth(recorded: Step) -> list[_Station]:
    of_source, of_target = _operations(recorded, "embedding")
    (loss,) = _operations(recorded, "projected_cross_entropy")
    sizes = [o.settings["ids"] for o in (of_source, of_target)]
    packed = ", ".join(named(ids.shape) for ids in sizes)
    tokens = [named(o.results[0].shape) for o in (of_source, of_target)]
    on_disk = ids_dtype(recorded.logits.shape[1])
    return [
        _Station(
            "A line of text",
            "train.corpora.blocks.read_blocks",
            "Line n of one file translates line n of the other.",
            "“A dog runs.”",
        ),
        _Station(
            "Subwords",
            "npformer.Tokenizer.encode_lines",
            "SentencePiece cuts a line into pieces of a shared vocabulary.",
            "a list of token ids",
        ),
        _Station(
            "An array on disk",
            "train.corpora.writer.write_split",
            "All sentences end to end, and where each begins.",
            f"{on_disk.name}, mapped by Corpus.open",
        ),
        _Station(
            "A batch of pairs of similar lengths",
            "train.corpora.batches.Batches.batch",
            "Up to batch_tokens a side; the plan is drawn anew each epoch.",
            "the ids of its sentences",
        ),
        _Station(
            "Packed ids",
            "npformer.Batch",
            "Begin and end are added. There is no padding.",
            f"{sizes[0].dtype.name} {packed}",
        ),
        _Station(
            "Embedding",
            "autograd.ops.embedding",
            "A row of the table, times √d_model, plus its position.",
            ", ".join(tokens),
        ),
        _Station(
            "Layers",
            "npformer.Transformer.decode",
            "Encoder, then decoder. Only attention looks beyond its own row.",
            named(loss.inputs[0].shape),
        ),
        _Station(
            "Logits and loss",
            "autograd.ops.projected_cross_entropy",
            f"Logits {named(recorded.logits.shape)} never leave it.",
            "loss",
        ),
    ]


def _back(recorded: Step) -> list[_Station]:
    (loss,) = _operations(recorded, "projected_cross_entropy")
    embedded = [o.results[0].serial for o in _operations(recorded, "embedding")]
    table = recorded.parameters["embedding"]
    return [
        _Station(
            "Gradient of the logits",
            "autograd.ops.projected_cross_entropy.vjp",
            "Softmax less the smoothed target, over the number of tokens.",
            named(recorded.gradients[loss.inputs[0].serial].shape),
        ),
        _Station(
            "Back through the layers",
            "autograd.Tape.backward",
            "The newest operation first; its activations are freed at once.",
            ", ".join(named(recorded.gradients[serial].shape) for serial in embedded),
        ),
        _Station(
            "Rows of the table",
            "autograd.ops.embedding.vjp",
            "An id that occurs twice adds to its row twice.",
            named(table.gradient_store().shape),
        ),
        _Station(
            "All gradients in one flat array",
            "autograd.ParameterBuffer",
            "Each parameter's .grad is a view into it.",
            "one array, one pass",
        ),
        _Station(
            "Adam",
            "train.adam.Adam.apply",
            "Moves every parameter in place: the next step reads another table.",
            "",
        ),
    ]


def _put(drawing: Drawing, station: _Station, x: float, y: float, width: float) -> None:
    drawing.box(x, y, width, _HEIGHT, "marked" if "embedding" in station.symbol else "box")
    drawing.text(x + 10, y + 19, station.title, "title")
    drawing.text(x + 10, y + 36, station.symbol, "code")
    drawing.text(x + 10, y + 54, station.note, "note")
