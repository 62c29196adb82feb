"""The attention weights of every layer and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from npformer.attention import LEAST_COVERAGE, Recorded, alignment_layer, recorded_weights
from npformer.batch import Batch
from npformer.ensemble import Ensemble
from npformer.errors import UserError
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

    def coverage_penalty(self, beta: float) -> float:
        """The coverage penalty of SearchSettings, of a translation with its end or without."""
        cross = self.cross[self.alignment_layer].mean(axis=0)[:, :-1]  # [m, n - 1]
        covered = np.clip(cross.sum(axis=0), LEAST_COVERAGE, 1)
        return float(beta * np.log(covered).sum())

    @property
    def alignment_layer(self) -> int:
        """The layer whose cross-attention is the best word alignment."""
        return alignment_layer(len(self.cross))


def attention_maps(model: Transformer | Ensemble, batch: Batch) -> list[AttentionMaps]:
    """The attention weights of `model` on each pair of `batch`; of an ensemble, their mean.

    Raises TypeError if a part of the model records none, and UserError if the models of an ensemble
    have different numbers of layers or heads.
    """
    if isinstance(model, Ensemble):
        of_models = [attention_maps(each, batch) for each in model.models]
        if len({maps[0].cross.shape for maps in of_models}) > 1:
            raise UserError(
                "the attention of models with different numbers of layers or heads has no mean"
            )
        return [_mean(maps, model.weights) for maps in zip(*of_models, strict=True)]
    with recorded_weights() as recorded:
        memory = model.encode(batch.source)
        model.decode(batch.target_input, memory, batch.source.sentences)
    attentions: list[object] = [layer.attention for layer in model.encoder.layers]
    # Each decoder layer calls its self-attention first, and then its cross-attention.
    attentions += [
        a for layer in model.decoder.layers for a in (layer.attention, layer.cross_attention)
    ]
    for attention in attentions:
        _check_recorded(attention, recorded)
    weights = [of_call for _, of_call in recorded]
    layers = model.config.layers
    encoder, decoder = weights[:layers], weights[layers:]

    def of_sentence(i: int, layer_weights: list[list[np.ndarray]]) -> np.ndarray:
        return np.stack([w[i] for w in layer_weights])

    return [
        AttentionMaps(
            of_sentence(i, encoder), of_sentence(i, decoder[0::2]), of_sentence(i, decoder[1::2])
        )
        for i in range(len(batch))
    ]


def _mean(maps: Sequence[AttentionMaps], weights: Sequence[float]) -> AttentionMaps:
    encoder, decoder, cross = (
        sum(w * getattr(of_model, name) for w, of_model in zip(weights, maps, strict=True))
        for name in ("encoder", "decoder", "cross")
    )
    return AttentionMaps(encoder, decoder, cross)


def _check_recorded(attention: object, recorded: Recorded) -> None:
    """Raise TypeError if an attention has recorded no weights."""
    if not any(attention is called for called, _ in recorded):
        name = type(attention).__name__
        raise TypeError(
            f"{name} has recorded no attention weights: leave __call__, which records them, as it "
            f"is, and give {name} the methods attend and weights"
        )
