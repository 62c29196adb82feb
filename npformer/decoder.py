"""The decoder: N layers of self-attention, attention to the memory, and a feed-forward network.

It runs over whole sentences for training, and one token at a time for translation, keeping the
keys and values of the tokens before (section 3.1).
"""

from __future__ import annotations

import numpy as np

from autograd import DropoutStream, Sentences, Tensor, array_module
from autograd.backend import Array, backend_of
from npformer.config import TransformerConfig
from npformer.layers import Residual
from npformer.parameters import Scope
from npformer.parts import Parts


class DecoderState:
    """What the decoder remembers while `beam` hypotheses a sentence grow, row by row.

    Nothing that was once computed is moved: arrays of numbers say where it lies.

    memory[layer]: K‖V of the encoder's output, [sentences, longest, heads (d_k + d_v)], padded.
    sentences [running]: which of them are still running; memory_lengths [running]: their lengths.
    cache[layer]: K‖V of the tokens so far, [slots, capacity, cached_columns[layer]], one slot for
    each row at the start; slots [rows]: the slot that takes a row's next token; origins [rows,
    capacity]: the slots that hold its `length` tokens so far.
    """

    def __init__(
        self,
        memory: list[Array],
        memory_lengths: Array,
        cached_columns: list[int],
        beam: int,
        capacity: int,
    ) -> None:
        xp = array_module(memory_lengths)
        rows = memory[0].shape[0] * beam
        self.memory = memory
        self.memory_lengths = memory_lengths
        self.sentences = xp.arange(memory[0].shape[0], dtype=np.int32)
        self.beam = beam
        empty = backend_of(memory_lengths).empty
        dtype = memory[0].dtype
        self.cache = [empty((rows, capacity, columns), dtype) for columns in cached_columns]
        self.slots = xp.arange(rows, dtype=np.int32)
        self.origins = xp.zeros((rows, capacity), self.slots.dtype)
        self.length = 0

    def reorder(self, rows: Array) -> None:
        """Let row i go on from what row `rows[i]` was."""
        self.origins[:, : self.length] = self.origins[rows, : self.length]

    def keep(self, running: Array) -> None:
        """Forget all running sentences but these, in this order."""
        xp = array_module(self.memory_lengths)
        rows = (running[:, None] * self.beam + xp.arange(self.beam)).reshape(-1)
        self.sentences = self.sentences[running]
        self.memory_lengths = self.memory_lengths[running]
        self.slots, self.origins = self.slots[rows], self.origins[rows]


class DecoderLayer:
    """Masked self-attention, attention to the memory, then the feed-forward network."""

    def __init__(self, scope: Scope, config: TransformerConfig, parts: Parts) -> None:
        attention, cross_attention = scope / "self_attention", scope / "cross_attention"
        feed_forward = scope / "feed_forward"
        self.attention = parts.self_attention(attention, config, True)
        self.around_attention = Residual(attention, config, parts.norm)
        self.cross_attention = parts.cross_attention(cross_attention, config)
        self.around_cross_attention = Residual(cross_attention, config, parts.norm)
        self.feed_forward = parts.feed_forward(feed_forward, config)
        self.around_feed_forward = Residual(feed_forward, config, parts.norm)

    def __call__(
        self,
        x: Tensor,
        sentences: Sentences,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None,
    ) -> Tensor:
        x = self.around_attention(x, lambda x: self.attention(x, sentences, dropout), dropout)
        x = self.around_cross_attention(
            x,
            lambda x: self.cross_attention(x, sentences, memory, memory_sentences, dropout),
            dropout,
        )
        return self.around_feed_forward(x, lambda x: self.feed_forward(x, dropout), dropout)

    def step(self, x: Tensor, cache: Array, memory: Array, state: DecoderState) -> Tensor:
        """The layer's output for one new token a row, [rows, d_model]."""
        x = self.around_attention(
            x,
            lambda x: self.attention.step(x, cache, state.slots, state.origins, state.length),
            None,
        )
        x = self.around_cross_attention(
            x,
            lambda x: self.cross_attention.step(
                x, memory, state.sentences, state.memory_lengths, state.beam
            ),
            None,
        )
        return self.around_feed_forward(x, self.feed_forward, None)


class Decoder:
    """Packed embeddings [tokens, d_model] in, what the softmax's projection takes out."""

    def __init__(self, scope: Scope, config: TransformerConfig, parts: Parts) -> None:
        self.layers = [DecoderLayer(scope / i, config, parts) for i in range(config.layers)]
        self.norm = parts.norm(scope / "norm", config) if config.norm == "pre" else None

    def __call__(
        self,
        x: Tensor,
        sentences: Sentences,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None = None,
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, sentences, memory, memory_sentences, dropout)
        return self.norm(x) if self.norm else x

    def step(self, x: Tensor, state: DecoderState) -> Tensor:
        """One new token a row, [rows, d_model]; its keys and values stay in `state`."""
        state.origins[:, state.length] = state.slots
        for layer, cache, memory in zip(self.layers, state.cache, state.memory, strict=True):
            x = layer.step(x, cache, memory, state)
        state.length += 1
        return self.norm(x) if self.norm else x
