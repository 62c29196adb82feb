"""The attention weights of every layer and head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from npformer.attention import recorded_weights
from npformer.batch import Batch
from npformer.transformer import Transformer


@dataclass(frozen=True)
class AttentionMaps:
    """The attention weights of one sentence pair with n source and m target tokens.

    The source includes the end token, the target the begin token. Each row holds the weights of
    what one token attends to, and sums to 1.

    Attributes:
        encoder: [layers, heads, n, n]
        decoder: [layers, heads, m, m], zero above the diagonal
        cross: [layers, heads, m, n]
    """

    encoder: np.ndarray
    decoder: np.ndarray
    cross: np.ndarray

    @property
    def alignment_layer(self) -> int:
        """The layer whose cross-attention is the best word alignment.

        It is the penultimate one (Garg et al., "Jointly learning to align and translate", 2019).
        """
        return max(len(self.cross) - 2, 0)


def attention_maps(model: Transformer, batch: Batch) -> list[AttentionMaps]:
    """The attention weights of `model` on each pair of `batch`."""
    with recorded_weights() as weights:
        memory = model.encode(batch.source)
        model.decode(batch.target_input, memory, batch.source.sentences)
    layers = model.config.layers
    encoder, decoder = weights[:layers], weights[layers:]

    def of_sentence(i: int, layer_weights: list[list[np.ndarray]]) -> np.ndarray:
        return np.stack([w[i] for w in layer_weights])

    # Each decoder layer calls its self-attention first, and then its cross-attention.
    return [
        AttentionMaps(
            of_sentence(i, encoder), of_sentence(i, decoder[0::2]), of_sentence(i, decoder[1::2])
        )
        for i in range(len(batch))
    ]
