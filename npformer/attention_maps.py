"""What a model attends to: the weights of every layer and head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npformer.attention import seeing_weights
from npformer.batch import Batch
from npformer.transformer import Transformer


@dataclass(frozen=True)
class AttentionMaps:
    """The attention weights of one sentence pair of n source and m target tokens.

    encoder [layers, heads, n, n]; decoder [layers, heads, m, m], zero ahead of each token; cross
    [layers, heads, m, n]. A row holds what one token attends to, and sums to 1. The source ends
    with the end token, and the target begins with the begin token.
    """

    encoder: np.ndarray
    decoder: np.ndarray
    cross: np.ndarray

    @property
    def alignment_layer(self) -> int:
        """The layer whose attention to the source shows best which tokens translate which.

        It is the last but one (Garg et al., "Jointly learning to align and translate", 2019).
        """
        return max(len(self.cross) - 2, 0)


def attention_maps(model: Transformer, batch: Batch) -> list[AttentionMaps]:
    """The weights with which `model` reads each pair of `batch`."""
    with seeing_weights() as weights:
        memory = model.encode(batch.source)
        model.decode(batch.target_input, memory, batch.source.sentences)
    layers = model.config.layers
    encoder, decoder = weights[:layers], weights[layers:]

    def of_sentence(i: int, layer_weights: list[list[np.ndarray]]) -> np.ndarray:
        return np.stack([w[i] for w in layer_weights])

    # Each decoder layer attends to itself first, and then to the memory.
    return [
        AttentionMaps(
            of_sentence(i, encoder), of_sentence(i, decoder[0::2]), of_sentence(i, decoder[1::2])
        )
        for i in range(len(batch))
    ]
