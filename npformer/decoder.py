"""The decoder: N layers of self-attention, attention to the memory, and a feed-forward network.

It runs over whole sentences for training, and one token at a time for translation, keeping the
keys and values of the tokens before (section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autograd import DropoutStream, Tensor, array_module
from autograd.backend import Array, backend_of
from npformer.config import TransformerConfig
from npformer.layers import (
    CrossAttention,
    FeedForward,
    Norm,
    Parameters,
    Residual,
    SelfAttention,
)


class DecoderState:
    """What the decoder remembers while `beam` hypotheses a sentence grow, row by row.

    Nothing that was once computed is moved: arrays of numbers say where it lies.

    memory[layer]: K‖V of the encoder's output, [sentences, longest, heads (d_k + d_v)], padded.
    sentences [running]: which of them are still running; memory_lengths [running]: their lengths.
    cache[layer]: K‖V of the tokens so far, [slots, capacity, heads (d_k + d_v)], one slot for each
    row at the start; slots [rows]: the slot that takes a row's next token; origins [rows,
    capacity]: the slots that hold its `length` tokens so far.
    """

    def __init__(
        self, memory: list[Array], memory_lengths: Array, beam: int, capacity: int
    ) -> None:
        module = array_module(memory_lengths)
        rows = memory[0].shape[0] * beam
        self.memory = memory
        self.memory_lengths = memory_lengths
        self.sentences = module.arange(memory[0].shape[0], dtype=np.int32)
        self.beam = beam
        empty = backend_of(memory_lengths).empty
        self.cache = [empty((rows, capacity, kv.shape[2]), kv.dtype) for kv in memory]
        self.slots = module.arange(rows, dtype=np.int32)
        self.origins = module.zeros((rows, capacity), self.slots.dtype)
        self.length = 0

    def reorder(self, rows: Array) -> None:
        """Let row i go on from what row `rows[i]` was."""
        self.origins[:, : self.length] = self.origins[rows, : self.length]

    def keep(self, running: Array) -> None:
        """Forget all running sentences but these, in this order."""
        module = array_module(self.memory_lengths)
        rows = (running[:, None] * self.beam + module.arange(self.beam)).reshape(-1)
        self.sentences = self.sentences[running]
        self.memory_lengths = self.memory_lengths[running]
        self.slots, self.origins = self.slots[rows], self.origins[rows]


class DecoderLayer:
    """Masked self-attention, attention to the memory, then the feed-forward network."""

    def __init__(
        self, parameters: Parameters, name: str, config: TransformerConfig, sites: Iterator[int]
    ) -> None:
        own, cross = f"{name}.self_attention", f"{name}.cross_attention"
        feed_forward = f"{name}.feed_forward"
        self.attention = SelfAttention(parameters, own, config, sites, causal=True)
        self.around_attention = Residual(parameters, own, config, sites)
        self.cross_attention = CrossAttention(parameters, cross, config, sites)
        self.around_cross_attention = Residual(parameters, cross, config, sites)
        self.feed_forward = FeedForward(parameters, feed_forward, config, sites)
        self.around_feed_forward = Residual(parameters, feed_forward, config, sites)

    def __call__(
        self,
        x: Tensor,
        lengths: np.ndarray,
        memory: Tensor,
        memory_lengths: np.ndarray,
        dropout: DropoutStream | None,
    ) -> Tensor:
        x = self.around_attention(x, lambda x: self.attention(x, lengths, dropout), dropout)
        x = self.around_cross_attention(
            x,
            lambda x: self.cross_attention(x, lengths, memory, memory_lengths, dropout),
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

    def __init__(
        self, parameters: Parameters, config: TransformerConfig, sites: Iterator[int]
    ) -> None:
        self.layers = [
            DecoderLayer(parameters, f"decoder.{i}", config, sites) for i in range(config.layers)
        ]
        self.norm = Norm(parameters, "decoder.norm", config) if config.norm == "pre" else None

    def __call__(
        self,
        x: Tensor,
        lengths: np.ndarray,
        memory: Tensor,
        memory_lengths: np.ndarray,
        dropout: DropoutStream | None = None,
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, lengths, memory, memory_lengths, dropout)
        return self.norm(x) if self.norm else x

    def step(self, x: Tensor, state: DecoderState) -> Tensor:
        """One new token a row, [rows, d_model]; its keys and values stay in `state`."""
        state.origins[:, state.length] = state.slots
        for layer, cache, memory in zip(self.layers, state.cache, state.memory, strict=True):
            x = layer.step(x, cache, memory, state)
        state.length += 1
        return self.norm(x) if self.norm else x
