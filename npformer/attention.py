"""Multi-head self-attention and cross-attention (section 3.2).

To try another kind of attention, derive from one of these classes and pass it to the model in
`Parts`. `attend` computes whole sentences, and `step` one more token of each row: self-attention
from a cache of `cached_columns`, cross-attention from the `keys_values` of the memory. `weights`
and `step_weights` return the attention weights, for inspection and for the coverage penalty;
`__call__`, which records them, stays as it is. Self-attention keeps to its `window`; a class that
attends to all positions in any case sets it to None, so that the cache has room for all.

A step may be recorded once and replayed (`Backend.record`): what changes from step to step is read
from arrays that stay where they are, such as `lengths`. A `step` that reads them on the host cannot
be recorded, and runs each time. A GPU notices that. On a CPU a class of one's own says itself that
its `step` reads no number on the host, and that what it calls are operations, whatever the shapes:
`is_replayable = True`. It runs each time if it does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

from autograd import DropoutStream, Sentences, Tensor, array_module, ops, to_host
from autograd.backend import Array
from autograd.widened import is_bfloat16
from npformer.config import TransformerConfig
from npformer.layers import Linear
from npformer.packed import Packed, unpack
from npformer.parameters import Scope

# For each call, the attention that was called, and the weights [heads, n, m] of each sentence.
Recorded = list[tuple["SelfAttention | CrossAttention", list[np.ndarray]]]

_recorder: ContextVar[Recorded | None] = ContextVar("attention_weights", default=None)


@contextmanager
def recorded_weights() -> Iterator[Recorded]:
    """Collect the weights of every call of an attention inside a `with` block, in order.

    They are computed separately: without dropout, on the host, in at least float32.
    """
    recorded: Recorded = []
    token = _recorder.set(recorded)
    try:
        yield recorded
    finally:
        _recorder.reset(token)


class SelfAttention:
    """Multi-head attention of a sequence to itself (section 3.2.2)."""

    def __init__(self, scope: Scope, config: TransformerConfig, causal: bool) -> None:
        assert config.d_k is not None
        assert config.d_v is not None
        self.heads, self.d_k, self.d_v, self.causal = config.heads, config.d_k, config.d_v, causal
        self.window = config.attention_window
        keys, values = config.heads * config.d_k, config.heads * config.d_v
        fused = config.initialisation == "fused"
        self.qkv = Linear(scope / "qkv", config.d_model, keys, keys, values, fused=fused)
        self.output = Linear(scope / "output", values, config.d_model)
        self.dropout = scope.dropout("dropout", config.attention_dropout)
        self.cached_columns = keys + values  # of K‖V

    def __call__(self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None) -> Tensor:
        """x: [tokens, d_model], packed as `sentences`. Returns [tokens, d_model]."""
        recorder = _recorder.get()
        if recorder is not None:
            recorder.append((self, self.weights(x, sentences)))
        return self.attend(x, sentences, dropout)

    def attend(self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None) -> Tensor:
        """The output of `__call__`, [tokens, d_model]."""
        y = ops.attention(
            self.qkv(x),  # [tokens, heads (2 d_k + d_v)]
            heads=self.heads,
            d_k=self.d_k,
            sentences=sentences,
            causal=self.causal,
            window=self.window,
            site=self.dropout.site(dropout),
        )  # [tokens, heads d_v]
        return self.output(y)

    def weights(self, x: Tensor, sentences: Sentences) -> list[np.ndarray]:
        """The attention weights of each sentence, [heads, n, n]."""
        qkv = _on_host(self.qkv(x).value)
        return ops.attention_weights(
            qkv,
            heads=self.heads,
            d_k=self.d_k,
            sentences=sentences,
            causal=self.causal,
            window=self.window,
        )

    def step(
        self, x: Tensor, cache: Array, slots: Array, token_slots: Array, lengths: Array
    ) -> Tensor:
        """Attention of one new token per row to itself and to the row's earlier tokens.

        x: [rows, d_model]. cache: [slots, capacity, cached_columns], the KV cache; with a window,
        its capacity is at most that. Places that no token has been written to may hold anything.
        slots: [rows], the slot of each row, which K‖V of the new token is written to. token_slots:
        [rows, tokens], the slots of each row's tokens. lengths: [rows], as many of them there are,
        the new one included; they are not read on the host. Returns [rows, d_model].
        """
        qkv = self.qkv(x).value
        ops.append_to_cache(qkv, cache, slots=slots, lengths=lengths)
        y = ops.cached_attention(
            qkv[:, None],
            cache,
            heads=self.heads,
            d_k=self.d_k,
            slots=token_slots,
            lengths=lengths,
        )  # [rows, 1, heads d_v]
        return self.output(Tensor(y[:, 0]))


class CrossAttention:
    """Multi-head attention of the decoder to the encoder's output (section 3.2.3)."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        assert config.d_k is not None
        assert config.d_v is not None
        self.heads, self.d_k = config.heads, config.d_k
        keys, values = config.heads * config.d_k, config.heads * config.d_v
        fused = config.initialisation == "fused"
        self.q = Linear(scope / "q", config.d_model, keys)
        self.kv = Linear(scope / "kv", config.d_model, keys, values, fused=fused)
        self.output = Linear(scope / "output", values, config.d_model)
        self.dropout = scope.dropout("dropout", config.attention_dropout)

    def __call__(
        self,
        x: Tensor,
        sentences: Sentences,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None,
    ) -> Tensor:
        """Each sentence of x: [tokens, d_model] attends to its memory.

        memory: [source tokens, d_model]. Returns [tokens, d_model].
        """
        recorder = _recorder.get()
        if recorder is not None:
            recorder.append((self, self.weights(x, sentences, memory, memory_sentences)))
        return self.attend(x, sentences, memory, memory_sentences, dropout)

    def attend(
        self,
        x: Tensor,
        sentences: Sentences,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None,
    ) -> Tensor:
        """The output of `__call__`, [tokens, d_model]."""
        y = ops.attention(
            self.q(x),  # [tokens, heads d_k]
            self.kv(memory),  # [source tokens, heads (d_k + d_v)]
            heads=self.heads,
            d_k=self.d_k,
            sentences=sentences,
            key_sentences=memory_sentences,
            site=self.dropout.site(dropout),
        )
        return self.output(y)

    def weights(
        self, x: Tensor, sentences: Sentences, memory: Tensor, memory_sentences: Sentences
    ) -> list[np.ndarray]:
        """The weights of each sentence, [heads, m, n] for m target and n source tokens."""
        q, kv = _on_host(self.q(x).value), _on_host(self.kv(memory).value)
        return ops.attention_weights(
            q,
            kv,
            heads=self.heads,
            d_k=self.d_k,
            sentences=sentences,
            key_sentences=memory_sentences,
        )

    def keys_values(self, memory: Tensor, memory_sentences: Sentences) -> Array:
        """What `step` reads of the memory: K‖V, padded, [sentences, longest, heads (d_k + d_v)].

        memory: [source tokens, d_model].
        """
        return unpack(Packed(self.kv(memory).value, memory_sentences))[0]

    def step(
        self, x: Tensor, keys_values: Array, sentence_ids: Array, key_lengths: Array, beam: int
    ) -> Tensor:
        """Attention of one token per row, `beam` rows per sentence, to the sentence's memory.

        x: [running · beam, d_model]. keys_values: what the method of this name returned.
        sentence_ids: [running], the index of each running sentence in keys_values.
        key_lengths: [running], their source lengths. Returns [running · beam, d_model].
        """
        q = self.q(x).value
        y = ops.cached_attention(
            q.reshape(-1, beam, q.shape[1]),
            keys_values,
            heads=self.heads,
            d_k=self.d_k,
            slots=sentence_ids[:, None],
            lengths=key_lengths,
        )  # [running, beam, heads d_v]
        return self.output(Tensor(y.reshape(q.shape[0], y.shape[2])))

    def step_weights(
        self, x: Tensor, keys_values: Array, sentence_ids: Array, key_lengths: Array, beam: int
    ) -> Array:
        """The weights of `step`, the mean of all heads: [running · beam, longest source].

        They are in at least float32.
        """
        q, kv = _wide(self.q(x).value), _wide(keys_values[sentence_ids])
        xp, (running, longest, _) = array_module(q), kv.shape
        queries = q.reshape(running, beam, self.heads, self.d_k).transpose(0, 2, 1, 3)
        keys = kv[:, :, : q.shape[1]].reshape(running, longest, self.heads, self.d_k)
        scores = xp.matmul(queries, keys.transpose(0, 2, 3, 1)) / math.sqrt(self.d_k)
        is_source = xp.arange(longest) < key_lengths[:, None]
        weights = ops.softmax(xp.where(is_source[:, None, None, :], scores, -math.inf))
        mean: Array = weights.mean(axis=1).reshape(running * beam, longest)
        return mean


LEAST_COVERAGE = 1e-9
"""The least attention that a source token counts with, so that one alone does not decide."""


def alignment_layer(layers: int) -> int:
    """The decoder layer, of so many, whose cross-attention is the best word alignment.

    It is the penultimate one (Garg et al., "Jointly learning to align and translate", 2019).
    """
    return max(layers - 2, 0)


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if is_bfloat16(x.dtype) else x


def _on_host(x: Array) -> np.ndarray:
    """As a NumPy array in at least float32, so that rows of weights sum to 1."""
    host = to_host(x)
    return host.astype(np.promote_types(host.dtype, np.float32), copy=False)
