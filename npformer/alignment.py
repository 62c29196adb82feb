"""Which source word each word of a translation comes from, by attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from npformer.attention_maps import AttentionMaps
from npformer.config import TransformerConfig

_SPACE = "\u2581"

Alignment = tuple[tuple[int, int], ...]
"""Pairs of a source word and a target word, counted from 0, by target word."""

AlignmentLayer = int | Literal["auto", "mean"]
"""A decoder layer, counted from 1; "auto", the best one by experience; "mean", of all layers."""


def word_numbers(pieces: Sequence[str]) -> list[int]:
    """The word that each piece belongs to, counted from 0; words are what spaces separate."""
    numbers, number, has_begun = [], 0, False
    for piece in pieces:
        if piece.startswith(_SPACE) and has_begun:
            number, has_begun = number + 1, False
        has_begun |= piece != _SPACE
        numbers.append(number)
    return numbers


def word_begins(pieces: Sequence[str]) -> list[int]:
    """The place of each word's first piece."""
    return [int(i) for i in np.unique(word_numbers(pieces), return_index=True)[1]]


def word_count(pieces: Sequence[str]) -> int:
    """The number of words of pieces."""
    numbers = word_numbers(pieces)
    return max((n + 1 for n, p in zip(numbers, pieces, strict=True) if p != _SPACE), default=0)


def layer_weights(maps: AttentionMaps, layer: AlignmentLayer) -> np.ndarray:
    """[m, n]: the cross-attention of a layer, the mean of its heads."""
    cross = maps.cross.mean(axis=1)  # [layers, m, n]
    if layer == "mean":
        return np.asarray(cross.mean(axis=0))
    if layer == "auto":
        return np.asarray(cross[maps.alignment_layer])
    return np.asarray(cross[layer - 1])


def check_layer(layer: AlignmentLayer, config: TransformerConfig) -> None:
    """Raise ValueError if the decoder of such a model has no such layer."""
    layers = config.decoder_depth
    if layer not in ("auto", "mean", *range(1, layers + 1)):
        raise ValueError(
            f"the layer of an alignment must be 1 to {layers}, auto or mean, got {layer!r:.20}"
        )


def align(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> Alignment:
    """Each target word with the source word that it attends to most.

    weights: [m, n], attention of target to source tokens, which may have more rows and columns than
    pieces, for the ends. source, target: the pieces of both sides. A target word's attention to a
    source word is the mean over its pieces of the sum over those of the source word.
    """
    of_source, of_target = word_numbers(source), word_numbers(target)
    words = np.zeros((len(target) + 1, len(source) + 1))  # no side has more words than pieces
    for row, t in zip(weights, of_target, strict=False):
        np.add.at(words[t], of_source, row[: len(source)])
    words = words[: word_count(target), : word_count(source)]
    if not words.size:
        return ()
    # The number of a word's pieces does not change which sum is the largest.
    return tuple((int(best), word) for word, best in enumerate(words.argmax(axis=1)))


def pharaoh(alignment: Alignment) -> str:
    """An alignment in the Pharaoh format, as "0-0 2-1"."""
    return " ".join(f"{source}-{target}" for source, target in alignment)
