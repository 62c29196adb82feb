"""The PyTorch peer: the paper's Transformer, written well, on padded batches.

The layers are independent of padding: an `Attend` computes the attention, so that the same layers
serve packed batches (torch_packed.py) and decoding (torch_decoding.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (everybody's name)
from torch.utils.checkpoint import checkpoint

from npformer import Batch, Transformer, TransformerConfig, unpack
from npformer.positions import sinusoids

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of q [..., heads · d_k] to k and v: [..., heads · d_v]."""

NO_TOKEN = -100
"""Stands among the ids to predict where there is none; what `F.cross_entropy` ignores."""


class SelfAttention(nn.Module):
    """Self-attention; Q‖K‖V are one projection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.widths = [config.heads * d for d in (config.d_k, config.d_k, config.d_v)]
        self.qkv = nn.Linear(config.d_model, sum(self.widths))
        self.output = nn.Linear(self.widths[2], config.d_model)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        return self.output(attend(*self.qkv(x).split(self.widths, dim=-1)))


class CrossAttention(nn.Module):
    """Cross-attention; K‖V are one projection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.widths = [config.heads * config.d_k, config.heads * config.d_v]
        self.q = nn.Linear(config.d_model, self.widths[0])
        self.kv = nn.Linear(config.d_model, sum(self.widths))
        self.output = nn.Linear(self.widths[1], config.d_model)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, ...]:
        return self.kv(memory).split(self.widths, dim=-1)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, ...], attend: Attend) -> Tensor:
        return self.output(attend(self.q(x), *keys_values))


class Layer(nn.Module):
    """An encoder layer, or with `cross` a decoder layer, post-norm."""

    def __init__(self, config: TransformerConfig, cross: bool) -> None:
        super().__init__()
        d, norms = config.d_model, 3 if cross else 2
        self.attention = SelfAttention(config)
        self.cross = CrossAttention(config) if cross else None
        self.inner = nn.Linear(d, config.d_ff)
        self.outer = nn.Linear(config.d_ff, d)
        self.norms = nn.ModuleList(nn.LayerNorm(d, config.norm_epsilon) for _ in range(norms))
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        attend: Attend,
        keys_values: tuple[Tensor, ...] = (),
        attend_memory: Attend | None = None,
    ) -> Tensor:
        """`keys_values` are those of the memory for this layer's cross-attention."""
        x = self.norms[0](x + self.dropout(self.attention(x, attend)))
        if self.cross is not None:
            y = self.cross(x, keys_values, attend_memory)
            x = self.norms[1](x + self.dropout(y))
        y = self.outer(F.relu(self.inner(x)))
        return self.norms[-1](x + self.dropout(y))


class TorchTransformer(nn.Module):
    """Encoder, decoder, one embedding for everything; sources and targets are padded."""

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

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """`positions` are rows of self.positions, [ids' shape or its end, d_model]."""
        x = self.embedding(ids) * math.sqrt(self.config.d_model)
        return self.dropout(x + positions)

    def encode(self, source: Tensor, source_mask: Tensor | None) -> Tensor:
        """[batch, n] ids to the memory [batch, n, d_model]."""
        x = self.embed(source, self.positions[: source.shape[1]])
        attend = partial(attend_padded, heads=self.config.heads, mask=source_mask)
        for layer in self.encoder:
            x = layer(x, attend)
        return x

    def forward(self, source: Tensor, source_mask: Tensor | None, target: Tensor) -> Tensor:
        memory = self.encode(source, source_mask)
        y = self.embed(target, self.positions[: target.shape[1]])
        # No mask for target padding: it follows all real tokens, so the causal mask hides it.
        attend = partial(attend_padded, heads=self.config.heads, causal=True)
        attend_memory = partial(attend_padded, heads=self.config.heads, mask=source_mask)
        for layer in self.decoder:
            y = layer(y, attend, layer.cross.keys_values(memory), attend_memory)
        return y

    def loss(
        self,
        source: Tensor,
        source_mask: Tensor | None,
        target: Tensor,
        output: Tensor,
        indices: Tensor,
        chunks: int = 1,
    ) -> Tensor:
        """The smoothed cross-entropy per target token; `indices` are theirs in the padded batch."""
        y = self(source, source_mask, target).flatten(0, 1)
        return self.smoothed(y[indices], output, chunks)  # no logits for padding

    def smoothed(self, y: Tensor, output: Tensor, chunks: int = 1) -> Tensor:
        """The smoothed cross-entropy per token. y [tokens, d_model], output [tokens].

        In more than one chunk the logits of only one chunk exist at a time, and are computed twice.
        """

        def summed(y: Tensor, output: Tensor) -> Tensor:
            logits = F.linear(y, self.embedding.weight)
            smoothing = self.config.smoothing
            return F.cross_entropy(logits, output, label_smoothing=smoothing, reduction="sum")

        if chunks == 1:
            total = summed(y, output)
        else:
            parts = zip(y.chunk(chunks), output.chunk(chunks), strict=True)
            total = sum(checkpoint(summed, *part, use_reentrant=False) for part in parts)
        return total / (output != NO_TOKEN).sum()


def attend_padded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    heads: int,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """PyTorch's fused attention; q, k, v: [batch, n, heads · d_k]."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    return y.transpose(1, 2).flatten(2)


def padded(
    batch: Batch, device: str = "cpu"
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """A packed batch in the form that TorchTransformer.loss takes: inputs are padded.

    The mask [batch, 1, 1, n] is None where there is no padding, which is faster.
    """
    source, lengths = unpack(batch.source)
    target, target_lengths = unpack(batch.target_input)
    mask = np.arange(source.shape[1]) < lengths[:, None]
    real = np.arange(target.shape[1]) < target_lengths[:, None]
    return (
        torch.from_numpy(source.astype(np.int64)).to(device),
        None if mask.all() else torch.from_numpy(mask[:, None, None, :]).to(device),
        torch.from_numpy(target.astype(np.int64)).to(device),
        torch.from_numpy(batch.target_output.tokens.astype(np.int64)).to(device),
        torch.from_numpy(np.flatnonzero(real)).to(device),
    )


@torch.no_grad()
def copy_parameters(ours: Transformer, model: TorchTransformer) -> None:
    """Copy the parameters of our model, which has the same configuration, into `model`."""
    config = ours.config
    assert (config.norm, config.share_embeddings) == ("post", "all")
    assert (config.positions != "learned", config.decoder_start) == (True, "token")
    values = {name: torch.from_numpy(p.numpy()) for name, p in ours.parameters().items()}
    model.embedding.weight.copy_(values["embedding"])
    for side in ("encoder", "decoder"):
        for i, layer in enumerate(getattr(model, side)):
            # The sub-layers in the order of their norms.
            sublayers = {"self_attention": layer.attention.named_children()}
            if layer.cross is not None:
                sublayers["cross_attention"] = layer.cross.named_children()
            sublayers["feed_forward"] = [("inner", layer.inner), ("outer", layer.outer)]
            for (sublayer, linears), norm in zip(sublayers.items(), layer.norms, strict=True):
                name = f"{side}.{i}.{sublayer}"
                for part, linear in linears:
                    linear.weight.copy_(values[f"{name}.{part}.weight"].T)
                    linear.bias.copy_(values[f"{name}.{part}.bias"])
                norm.weight.copy_(values[f"{name}.norm.gain"])
                norm.bias.copy_(values[f"{name}.norm.bias"])
