"""The PyTorch peer on packed batches: activations are [tokens, d_model], as in npformer.

Attention is `torch.nn.attention.varlen.varlen_attn`, which came with PyTorch 2.10 and calls the
FlashAttention 2 that PyTorch contains (3 only if its own package is installed and activated). From
the sources of 2.11.0 and 2.13.0:

- varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux, scale,
  window_size): query [query tokens, heads, d_k], key and value [key tokens, heads, d_k] with heads
  as wide as the query's, bfloat16 or float16; cu_seq_q and cu_seq_k int32 [sentences + 1] on the
  device; max_q and max_k numbers of the host. They determine the size of the launch, and may be too
  large.
- Causal is window_size=(-1, 0). Only 2.10 had is_causal instead.
- No dropout of attention weights. No rule for autocast: the projections before it have one, and
  give it bfloat16.
- It is a custom operation with a fake implementation and a gradient, so torch.compile supports it
  without graph breaks and with dynamic sizes.

Before 2.10 the operation underneath, `aten._flash_attention_forward`, is called directly; it has a
gradient too. None of this runs on a CPU, where tests use PyTorch's own attention with a mask of
[query tokens, key tokens].

A step is compiled for the sizes of each batch, unless it is compiled for dynamic sizes
(dynamic=True), or all batches are filled up to the same sizes: see `fill`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 (everybody's name)

from benchmarks.torch_transformer import NO_TOKEN, TorchTransformer
from npformer import Batch, Packed

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # PyTorch before 2.10
    varlen_attn = None


class Sentences(NamedTuple):
    """Packed sentences in the form that attention on a GPU takes."""

    ids: Tensor  # [tokens]
    positions: Tensor  # [tokens]: position ids
    offsets: Tensor  # [sentences + 1], int32: the offsets
    longest: int  # an upper bound of the lengths


class PackedTransformer(TorchTransformer):
    """TorchTransformer with the same parameters, on packed sentences."""

    def forward(self, source: Sentences, target: Sentences) -> Tensor:
        """[target tokens, d_model]."""
        attend = partial(attend_packed, heads=self.config.heads)
        x = self.embed(source.ids, self.positions[source.positions])
        for layer in self.encoder:
            x = layer(x, partial(attend, queries=source, keys=source))
        y = self.embed(target.ids, self.positions[target.positions])
        attend_self = partial(attend, queries=target, keys=target, causal=True)
        attend_memory = partial(attend, queries=target, keys=source)
        for layer in self.decoder:
            y = layer(y, attend_self, layer.cross.keys_values(x), attend_memory)
        return y

    def loss(self, source: Sentences, target: Sentences, output: Tensor, chunks: int = 1) -> Tensor:
        """The smoothed cross-entropy per target token; output [target tokens]."""
        return self.smoothed(self(source, target), output, chunks)


def attend_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    heads: int,
    queries: Sentences,
    keys: Sentences,
    causal: bool = False,
) -> Tensor:
    """Attention of q [query tokens, heads · d_k] to k and v, sentence by sentence."""
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in (q, k, v))  # [tokens, heads, d_k]
    attention = flash_attention if q.is_cuda else masked_attention
    return attention(q, k, v, queries, keys, causal).flatten(1)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, queries: Sentences, keys: Sentences, causal: bool
) -> Tensor:
    bounds = (queries.offsets, keys.offsets, queries.longest, keys.longest)
    if varlen_attn is None:
        flash = torch.ops.aten._flash_attention_forward
        return flash(q, k, v, *bounds, 0.0, causal, return_debug_mask=False)[0]
    return varlen_attn(q, k, v, *bounds, **(_CAUSAL if causal else {}))


_CAUSAL = (
    {"is_causal": True}
    if varlen_attn is not None and "is_causal" in inspect.signature(varlen_attn).parameters
    else {"window_size": (-1, 0)}
)


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, queries: Sentences, keys: Sentences, causal: bool
) -> Tensor:
    """The same without FlashAttention."""
    sentence_of = [
        torch.bucketize(torch.arange(len(s.ids)), s.offsets[1:].long(), right=True)
        for s in (queries, keys)
    ]
    mask = sentence_of[0][:, None] == sentence_of[1]  # [query tokens, key tokens]
    if causal:
        mask = mask & (queries.positions[:, None] >= keys.positions)
    q, k, v = (x.transpose(0, 1) for x in (q, k, v))  # [heads, tokens, d_k]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(0, 1)


def packed(
    batch: Batch, device: str = "cpu", longest: int = 0
) -> tuple[Sentences, Sentences, Tensor]:
    """A batch in the form that PackedTransformer.loss takes.

    `longest` is rounded up to a multiple of 64, the block size of FlashAttention, and to at least
    the given number, because code compiled for fixed sizes is recompiled when it changes.
    """
    output = torch.from_numpy(batch.target_output.tokens.astype(np.int64)).to(device)
    source, target = (_on(device, p, longest) for p in (batch.source, batch.target_input))
    return source, target, output


def _on(device: str, packed: Packed, longest: int) -> Sentences:
    longest = max(longest, int(packed.lengths.max()))
    return Sentences(
        torch.from_numpy(packed.tokens.astype(np.int64)).to(device),
        torch.from_numpy(packed.position_ids).to(device),
        torch.from_numpy(packed.offsets.astype(np.int32)).to(device),
        -(-longest // 64) * 64,
    )


class Sizes(NamedTuple):
    """The sizes that batches are filled up to."""

    source_tokens: int
    target_tokens: int
    sentences: int
    fillers: int  # the least number of sentences for filling
    longest: int

    @classmethod
    def of(cls, batches: Sequence[Batch]) -> Sizes:
        """The smallest sizes that all of `batches` fit in."""
        source = [len(b.source.tokens) for b in batches]
        target = [b.target_tokens for b in batches]
        longest = max(int(p.lengths.max()) for b in batches for p in (b.source, b.target_input))
        most = max(max(source) - min(source), max(target) - min(target))
        fillers = most // max(longest - 1, 1) + 1
        sentences = max(map(len, batches)) + fillers
        return cls(max(source) + fillers, max(target) + fillers, sentences, fillers, longest)


def fill(batch: Batch, sizes: Sizes) -> Batch:
    """The batch filled up to `sizes` with sentences that the loss ignores.

    Missing tokens go to `sizes.fillers` non-empty sentences; further missing sentences are empty.
    So one compiled step serves all batches.
    """
    fillers, empty = sizes.fillers, sizes.sentences - len(batch) - sizes.fillers

    def filled(packed: Packed, tokens: int, id_: int) -> Packed:
        missing = tokens - len(packed.tokens)
        added = np.diff(np.arange(fillers + 1) * missing // fillers)
        return Packed(
            np.concatenate([packed.tokens, np.full(missing, id_, packed.tokens.dtype)]),
            np.concatenate([packed.lengths, added, np.zeros(empty, np.int64)]),
        )

    return Batch(
        filled(batch.source, sizes.source_tokens, 0),
        filled(batch.target_input, sizes.target_tokens, 0),
        filled(batch.target_output, sizes.target_tokens, NO_TOKEN),
    )
