"""The decoder: N layers of self- and cross-attention and a feed-forward network (section 3.1).

In training it computes whole sentences at once. In translation it computes one token at a time,
with the keys and values of earlier tokens in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from autograd import DropoutStream, Sentences, Tensor, array_module, ops
from autograd.backend import Array, Backend, backend_of
from npformer.attention import alignment_layer
from npformer.config import TransformerConfig
from npformer.layers import Residual
from npformer.parameters import Scope
from npformer.parts import Parts
from npformer.projection import Projection

Empty = Callable[[tuple[int, ...], Any], Array]

_KEPT_BESIDE = 4  # packed projections that there must be room for in what searches leave behind


class Room(NamedTuple):
    """What a DecoderState has room for.

    Attributes:
        sentences: as many
        beam: hypotheses of each
        capacity: the most tokens of a hypothesis
        longest: the most tokens of a source sentence
        tokens: that may be chosen, if they are not all that the model has
    """

    sentences: int
    beam: int
    capacity: int
    longest: int
    tokens: int | None = None


class DecoderState:
    """The keys and values that decoding keeps, for `beam` hypotheses of each running sentence.

    A row is a hypothesis. K‖V stay where they were first written; when hypotheses are reordered,
    only the indices that point to them are. All arrays stay, for a step that is recorded reads them
    where they were: dropping sentences moves the rows of the others to the front.

    Attributes:
        memory: for each layer what its cross-attention reads of the encoder's output, K‖V, padded,
            [sentences, longest, heads (d_k + d_v)]
        sentence_ids: [running], the indices of the running sentences in `memory`
        memory_lengths: [running], their source lengths
        cache: for each layer K‖V of the target tokens so far, or of those in its window, the KV
            cache, [slots, tokens, cached_columns]
        lengths: [rows], the tokens of each row so far
        slots: [rows], the slot that each row writes its next tokens to
        token_slots: [rows, capacity], the slot that holds each token of the row
        projection: what gives the logits of next tokens
        packed: its weight once more, if `pack_projection` has made it: as `ops.top_k` reads it
        ids: [rows, capacity], the ids of the tokens so far, if they are kept
        coverage: [rows, longest], the attention that each source token has had so far in one layer,
            if it is kept
    """

    def __init__(
        self, room: Room, cached: list[tuple[int, int]], dtype: Any, backend: Backend, empty: Empty
    ) -> None:
        """cached: for each layer, the tokens and the columns of its cache, which `empty` makes."""
        xp, rows = backend.xp, room.sentences * room.beam
        self.room, self.beam, self.capacity = room, room.beam, room.capacity
        self.cache = [empty((rows, *shape), dtype) for shape in cached]
        self._empty = empty
        self.memory: list[Array] = []
        self._whole = (
            xp.zeros(room.sentences, np.int32),
            xp.zeros(room.sentences, np.int32),
            xp.zeros(rows, np.int32),
            xp.zeros(rows, np.int32),
            xp.zeros((rows, room.capacity), np.int32),
        )
        self._own: Projection | None = None  # with whole arrays, which stay
        self.packed: Array | None = None
        self._own_packed: Array | None = None  # stays
        self.ids: Array | None = None
        self.coverage: Array | None = None
        self.covered_layer = -1

    def begin(self, keys_values: Iterable[Array], lengths: Array, projection: Projection) -> None:
        """Begin with other sentences, which there is room for, without a token.

        keys_values: for each layer [sentences, longest, columns]; lengths: [sentences].
        """
        for i, kv in enumerate(keys_values):
            if i == len(self.memory):
                shape = self.room.sentences, self.room.longest, *kv.shape[2:]
                self.memory.append(self._empty(shape, kv.dtype))
            self.memory[i][: len(kv), : kv.shape[1]] = kv
        self.projection = self._own = projection.in_arrays_of(self._own)
        self.packed = None  # the weight may be another now
        (
            self.sentence_ids,
            self.memory_lengths,
            self.lengths,
            self.slots,
            self.token_slots,
        ) = self._whole
        xp = array_module(self.lengths)
        self.sentence_ids[...] = xp.arange(self.room.sentences)
        self.memory_lengths[...] = 0  # those that are not there have no source
        self.memory_lengths[: len(lengths)] = lengths
        self.lengths[...] = 0
        self.slots[...] = xp.arange(len(self.slots))
        self.token_slots[...] = self.slots[:, None]

    @property
    def nbytes(self) -> int:
        """The memory of its arrays."""
        own = [] if self._own is None else self._own.arrays
        own += [] if self._own_packed is None else [self._own_packed]
        return sum(int(x.nbytes) for x in (*self.cache, *self.memory, *self._whole, *own))

    def pack_projection(self) -> None:
        """Prepare for many steps that look for the likeliest tokens with the same weights."""
        weight, backend = self.projection.weight, backend_of(self.slots)
        if _KEPT_BESIDE * weight.nbytes <= backend.most_kept_bytes:
            packed = backend.pack_for_top_k(weight, len(self.slots), self._own_packed)
            self.packed = self._own_packed = packed

    def keep_ids(self) -> None:
        """Keep the ids of the tokens in `ids`, from the first step on."""
        self.ids = array_module(self.token_slots).zeros_like(self.token_slots)

    def keep_coverage(self) -> None:
        """Keep the sum of the cross-attention of a layer in `coverage`, from the first step on.

        It is the layer whose attention is the best word alignment.
        """
        layer = alignment_layer(len(self.memory))
        shape = len(self.slots), self.room.longest
        self.coverage = array_module(self.slots).zeros(shape, np.float64)
        self.covered_layer = layer

    @property
    def tokens(self) -> list[Array]:
        """What is kept of each token of a hypothesis, [rows, capacity] each, to be reordered."""
        return [self.token_slots] if self.ids is None else [self.token_slots, self.ids]

    @property
    def histories(self) -> list[Array]:
        """What is kept of each hypothesis besides, [rows, ...] each, to be reordered in place."""
        return [] if self.coverage is None else [self.coverage]

    def keep(self, running: Array) -> None:
        """Keep only these of the running sentences, in this order; running: [kept]."""
        xp = array_module(self.memory_lengths)
        rows = (running[:, None] * self.beam + xp.arange(self.beam)).reshape(-1)
        self.sentence_ids = kept(self.sentence_ids, running)
        self.memory_lengths = kept(self.memory_lengths, running)
        self.lengths, self.slots = kept(self.lengths, rows), kept(self.slots, rows)
        self.token_slots = kept(self.token_slots, rows)
        self.ids = None if self.ids is None else kept(self.ids, rows)
        self.coverage = None if self.coverage is None else kept(self.coverage, rows)
        if self.projection.of_sentences:
            bias = kept(self.projection.bias, running)
            self.projection = self.projection._replace(bias=bias)


def kept(x: Array, rows: Array) -> Array:
    """These rows of x, which are moved to its beginning: so the array stays where it is."""
    x[: len(rows)] = x[rows]
    return x[: len(rows)]


class DecoderLayer:
    """Causal self-attention, cross-attention and a feed-forward network."""

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
        """x: [tokens, d_model]; memory: [source tokens, d_model]. Returns [tokens, d_model]."""
        x = self.around_attention(x, lambda x: self.attention(x, sentences, dropout), dropout)
        x = self.around_cross_attention(
            x,
            lambda x: self.cross_attention(x, sentences, memory, memory_sentences, dropout),
            dropout,
        )
        return self.around_feed_forward(x, lambda x: self.feed_forward(x, dropout), dropout)

    def step(
        self, x: Tensor, cache: Array, memory: Array, state: DecoderState, covers: bool
    ) -> Tensor:
        """The layer's output for one new token per row; x and result: [rows, d_model].

        covers: whether its cross-attention is added to the state's coverage
        """

        def cross_attention(x: Tensor) -> Tensor:
            of_memory = memory, state.sentence_ids, state.memory_lengths, state.beam
            if covers:
                state.coverage += self.cross_attention.step_weights(x, *of_memory)
            return self.cross_attention.step(x, *of_memory)

        x = self.around_attention(
            x,
            lambda x: self.attention.step(x, cache, state.slots, state.token_slots, state.lengths),
            None,
        )
        x = self.around_cross_attention(x, cross_attention, None)
        return self.around_feed_forward(x, self.feed_forward, None)


class Decoder:
    """Turns embedded target tokens into what the projection before the softmax takes."""

    def __init__(self, scope: Scope, config: TransformerConfig, parts: Parts) -> None:
        count = config.decoder_depth
        self.layers = [DecoderLayer(scope / i, config, parts) for i in range(count)]
        self.norm = parts.norm(scope / "norm", config) if config.norm == "pre" else None

    def __call__(
        self,
        x: Tensor,
        sentences: Sentences,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None = None,
    ) -> Tensor:
        """x: [tokens, d_model]; memory: [source tokens, d_model]. Returns [tokens, d_model]."""
        for layer in self.layers:
            x = layer(x, sentences, memory, memory_sentences, dropout)
        return self.norm(x) if self.norm else x

    def step(self, x: Tensor, state: DecoderState) -> Tensor:
        """One new token per row; x and result: [rows, d_model]. Adds its K‖V to `state`."""
        ops.count_up(state.lengths)
        for i, layer in enumerate(self.layers):
            x = layer.step(x, state.cache[i], state.memory[i], state, i == state.covered_layer)
        return self.norm(x) if self.norm else x
