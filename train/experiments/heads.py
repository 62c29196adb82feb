"""What attention heads do: statistics of their weights, and what the model loses without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from npformer.attention_maps import AttentionMaps
from npformer.transformer import Transformer
from npformer.translation import Translation

Kind = Literal["encoder", "decoder", "cross"]
KINDS: tuple[Kind, ...] = get_args(Kind)

STATISTICS = ("entropy", "words", "distance", "itself", "previous", "next", "separators")
"""The columns that `statistics` returns, in its order."""


class Head(NamedTuple):
    """A head of the encoder's or decoder's self-attention or of cross-attention, from 0."""

    kind: Kind
    layer: int
    number: int

    def __str__(self) -> str:
        """Such as `encoder 2.5`, with layer and head counted from 1."""
        return f"{self.kind} {self.layer + 1}.{self.number + 1}"


def weights_of(maps: AttentionMaps, kind: Kind) -> np.ndarray:
    """The weights of all heads of a kind, [layers, heads, n, m]."""
    weights: np.ndarray = getattr(maps, kind)
    return weights


def statistics(translations: Iterable[Translation]) -> dict[Kind, np.ndarray]:
    """The means over all tokens that attend, [layers, heads, len(STATISTICS)] for each kind.

    entropy: of the weights, in nats. words: exp(entropy), the effective number of tokens that are
    attended to. distance: in tokens, weighted. itself, previous, next: the weight of the token at
    the same place and of those beside it. separators: the weight of punctuation, begin and end.

    translations: with their attention.
    """
    sums: dict[Kind, list[np.ndarray]] = {kind: [] for kind in KINDS}
    counts: dict[Kind, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for translation in translations:
        assert translation.attention is not None
        for kind in KINDS:
            pieces = translation.target_pieces if kind == "decoder" else translation.source_pieces
            total, count = _sums(
                weights_of(translation.attention, kind).astype(np.float64),
                np.array([is_separator(piece) for piece in pieces]),
            )
            sums[kind].append(total)
            counts[kind].append(count)
    return {kind: np.sum(sums[kind], 0) / np.maximum(np.sum(counts[kind], 0), 1) for kind in KINDS}


def _sums(weights: np.ndarray, separators: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the queries of a sentence, [layers, heads, 7], and of how many, [7].

    weights: [layers, heads, n, m]; separators: [m], which keys are.
    """
    n, m = weights.shape[2:]
    queries, keys = np.indices((n, m))
    log = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    entropy = -(weights * log).sum(-1)  # [layers, heads, n]
    beside = [np.where(keys == queries + offset, weights, 0).sum((-2, -1)) for offset in (0, -1, 1)]
    total = np.stack(
        [
            entropy.sum(-1),
            np.exp(entropy).sum(-1),
            (weights * abs(queries - keys)).sum((-2, -1)),
            *beside,
            weights[..., separators].sum((-2, -1)),
        ],
        axis=-1,
    )
    places = [int(np.sum(keys == queries + offset)) for offset in (0, -1, 1)]
    return total, np.array([n, n, n, *places, n])


def is_separator(piece: str) -> bool:
    """Whether a piece is punctuation, or the begin or the end of a sentence."""
    text = piece.lstrip("\u2581")
    return (text.startswith("<") and text.endswith(">")) or not any(map(str.isalnum, text))


@contextmanager
def without(model: Transformer, heads: Sequence[Head]) -> Iterator[None]:
    """The model without these heads, inside a `with`: their rows of the output matrix are zero."""
    rows = [_output_rows(model, head) for head in heads]
    before = [row.copy() for row in rows]
    for row in rows:
        row[...] = 0
    try:
        yield
    finally:
        for row, values in zip(rows, before, strict=True):
            row[...] = values


def _output_rows(model: Transformer, head: Head) -> np.ndarray:
    """The rows of W^O that a head's values are multiplied by, [d_v, d_model], a view."""
    attentions: dict[Kind, Any] = {
        "encoder": [layer.attention for layer in model.encoder.layers],
        "decoder": [layer.attention for layer in model.decoder.layers],
        "cross": [layer.cross_attention for layer in model.decoder.layers],
    }
    weight = attentions[head.kind][head.layer].output.weight
    d_v = model.config.d_v
    assert d_v is not None
    rows: np.ndarray = weight.value[head.number * d_v : (head.number + 1) * d_v]
    return rows
