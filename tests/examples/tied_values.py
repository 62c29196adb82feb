"""A cross-attention whose keys are its values too, and that keeps less of the memory for it."""

from __future__ import annotations

import numpy as np

from autograd import DropoutStream, Sentences, Tensor, array_module, ops, to_host
from autograd.backend import Array
from npformer import Packed, TransformerConfig, unpack
from npformer.attention import CrossAttention
from npformer.layers import Linear
from npformer.parameters import Scope


class TiedValues(CrossAttention):
    """softmax(QKᵀ/√d_k) K. It has no projection `kv`, and keeps K alone, half as much."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        assert config.d_k is not None
        self.heads, self.d_k = config.heads, config.d_k
        self.q = Linear(scope / "q", config.d_model, self.heads * self.d_k)
        self.k = Linear(scope / "k", config.d_model, self.heads * self.d_k)
        self.output = Linear(scope / "output", self.heads * self.d_k, config.d_model)

    def attend(
        self,
        x: Tensor,
        sentences: Sentences,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None,
    ) -> Tensor:
        k = self.k(memory)
        y = ops.attention(
            self.q(x),
            ops.concatenate(k, k, axis=1),
            heads=self.heads,
            d_k=self.d_k,
            sentences=sentences,
            key_sentences=memory_sentences,
        )
        return self.output(y)

    def weights(
        self, x: Tensor, sentences: Sentences, memory: Tensor, memory_sentences: Sentences
    ) -> list[np.ndarray]:
        k = to_host(self.k(memory).value)
        return ops.attention_weights(
            to_host(self.q(x).value),
            np.concatenate([k, k], axis=1),
            heads=self.heads,
            d_k=self.d_k,
            sentences=sentences,
            key_sentences=memory_sentences,
        )

    def keys_values(self, memory: Tensor, memory_sentences: Sentences) -> Array:
        """K, padded, [sentences, longest, heads d_k]."""
        return unpack(Packed(self.k(memory).value, memory_sentences))[0]

    def step(
        self, x: Tensor, keys_values: Array, sentence_ids: Array, key_lengths: Array, beam: int
    ) -> Tensor:
        both = array_module(keys_values).concatenate([keys_values, keys_values], axis=2)
        return super().step(x, both, sentence_ids, key_lengths, beam)
