"""A recurrence in the place of self-attention, to compare with."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from autograd import DropoutStream, Sentences, Tensor, array_module, ops
from autograd.ops import recurrence
from npformer.config import TransformerConfig
from npformer.layers import Linear
from npformer.parameters import Scope, normal, zeros
from npformer.parts import PAPER_PARTS


class Recurrence:
    """A recurrent layer: forwards in the decoder, in both directions in the encoder.

    It has the place of SelfAttention in `Parts`, and computes whole sentences alone: a model with
    it is trained and scored, and does not translate.
    """

    def __init__(self, scope: Scope, config: TransformerConfig, causal: bool) -> None:
        self.forwards = _Direction(scope / "forwards", config.d_model)
        self.backwards = None if causal else _Direction(scope / "backwards", config.d_model)
        self.output = Linear(scope / "output", config.d_model, config.d_model)

    def __call__(self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None) -> Tensor:
        """x: [tokens, d_model], packed as `sentences`. Returns [tokens, d_model]."""
        states = self.forwards(x, sentences)
        if self.backwards is not None:
            rows = array_module(x.value).asarray(_reversed(sentences))
            backwards = self.backwards(ops.take(x, index=rows), sentences)
            states = states + ops.take(backwards, index=rows)
        return self.output(states)


class _Direction:
    """h_t = tanh(x_t W + h_{t-1} U + b)."""

    def __init__(self, scope: Scope, d: int) -> None:
        initial = normal(1 / math.sqrt(2 * d))  # so that states neither vanish nor saturate
        self.weight = scope.parameter("weight", (d, d), initial)
        self.recurrent_weight = scope.parameter("recurrent_weight", (d, d), initial)
        self.bias = scope.parameter("bias", (d,), zeros)

    def __call__(self, x: Tensor, sentences: Sentences) -> Tensor:
        return recurrence(x, self.weight, self.recurrent_weight, self.bias, sentences=sentences)


def _reversed(sentences: Sentences) -> np.ndarray:
    """The rows of each sentence from its last to its first: [tokens]."""
    begins = np.repeat(sentences.offsets[:-1], sentences.lengths)
    ends = np.repeat(sentences.offsets[1:], sentences.lengths)
    rows: np.ndarray = begins + ends - 1 - np.arange(sentences.rows)
    return rows


RECURRENT_PARTS = replace(PAPER_PARTS, self_attention=Recurrence)  # type: ignore[arg-type]
"""What a Transformer is built from whose self-attention is a recurrence."""
