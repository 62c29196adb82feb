"""The peer: the paper's Transformer as one writes it well in PyTorch, on padded batches."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everybody's name)

from npformer import Batch, TransformerConfig, unpack
from npformer.positions import sinusoids


def attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None, causal: bool = False
) -> Tensor:
    """PyTorch's fused attention of q [batch, n, heads · d_k] and so on."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return y.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Attention to itself: q‖k‖v are one projection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.widths = [config.heads * d for d in (config.d_k, config.d_k, config.d_v)]
        self.qkv = nn.Linear(config.d_model, sum(self.widths))
        self.output = nn.Linear(self.widths[2], config.d_model)

    def forward(self, x: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        q, k, v = self.qkv(x).split(self.widths, dim=-1)
        return self.output(attend(q, k, v, self.heads, mask, causal))


class CrossAttention(nn.Module):
    """Attention to the memory: k‖v are one projection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.widths = [config.heads * config.d_k, config.heads * config.d_v]
        self.q = nn.Linear(config.d_model, self.widths[0])
        self.kv = nn.Linear(config.d_model, sum(self.widths))
        self.output = nn.Linear(self.widths[1], config.d_model)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        k, v = self.kv(memory).split(self.widths, dim=-1)
        return self.output(attend(self.q(x), k, v, self.heads, mask))


class Layer(nn.Module):
    """An encoder layer, or with `cross` a decoder layer, post-norm."""

    def __init__(self, config: TransformerConfig, cross: bool) -> None:
        super().__init__()
        d = config.d_model
        self.attention = SelfAttention(config)
        self.cross = CrossAttention(config) if cross else None
        self.inner = nn.Linear(d, config.d_ff)
        self.outer = nn.Linear(config.d_ff, d)
        self.norms = nn.ModuleList(nn.LayerNorm(d, 1e-6) for _ in range(3 if cross else 2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> Tensor:
        y = self.attention(x, mask, causal=self.cross is not None)
        x = self.norms[0](x + self.dropout(y))
        if self.cross is not None:
            x = self.norms[1](x + self.dropout(self.cross(x, memory, memory_mask)))
        y = self.outer(F.relu(self.inner(x)))
        return self.norms[-1](x + self.dropout(y))


class TorchTransformer(nn.Module):
    """Encoder, decoder, one embedding for everything."""

    def __init__(self, config: TransformerConfig, max_length: int = 512) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        waves = sinusoids(max_length, config.d_model, config.positions, config.position_spacing)
        self.register_buffer("positions", torch.from_numpy(waves).float())
        self.encoder = nn.ModuleList(Layer(config, False) for _ in range(config.layers))
        self.decoder = nn.ModuleList(Layer(config, True) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def embed(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) * math.sqrt(self.config.d_model)
        return self.dropout(x + self.positions[: ids.shape[1]])

    def forward(self, source: Tensor, source_mask: Tensor | None, target: Tensor) -> Tensor:
        x = self.embed(source)
        for layer in self.encoder:
            x = layer(x, source_mask)
        # No mask of target padding: it lies behind every symbol that counts, and is hidden already.
        y = self.embed(target)
        for layer in self.decoder:
            y = layer(y, None, x, source_mask)
        return y

    def loss(
        self,
        source: Tensor,
        source_mask: Tensor | None,
        target: Tensor,
        output: Tensor,
        places: Tensor,
    ) -> Tensor:
        """The smoothed cross-entropy a target token; `places` are theirs in the padded batch."""
        y = self(source, source_mask, target).flatten(0, 1)
        logits = F.linear(y[places], self.embedding.weight)  # none for padding
        return F.cross_entropy(logits, output, label_smoothing=self.config.smoothing)


def padded(batch: Batch) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """A packed batch as TorchTransformer.loss takes it: source and target input are padded.

    The mask [batch, 1, 1, n] is None where there is no padding, which is faster.
    """
    source, lengths = unpack(batch.source)
    target, target_lengths = unpack(batch.target_input)
    mask = np.arange(source.shape[1]) < lengths[:, None]
    real = np.arange(target.shape[1]) < target_lengths[:, None]
    return (
        torch.from_numpy(source.astype(np.int64)),
        None if mask.all() else torch.from_numpy(mask[:, None, None, :]),
        torch.from_numpy(target.astype(np.int64)),
        torch.from_numpy(batch.target_output.tokens.astype(np.int64)),
        torch.from_numpy(np.flatnonzero(real)),
    )
