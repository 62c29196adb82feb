"""The encoder: N layers of self-attention and a feed-forward network (section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autograd import DropoutStream, Tensor
from npformer.config import TransformerConfig
from npformer.layers import FeedForward, Norm, Parameters, Residual, SelfAttention


class EncoderLayer:
    """Self-attention, then the feed-forward network, each with its residual sum."""

    def __init__(
        self, parameters: Parameters, name: str, config: TransformerConfig, sites: Iterator[int]
    ) -> None:
        attention, feed_forward = f"{name}.self_attention", f"{name}.feed_forward"
        self.attention = SelfAttention(parameters, attention, config, sites, causal=False)
        self.around_attention = Residual(parameters, attention, config, sites)
        self.feed_forward = FeedForward(parameters, feed_forward, config, sites)
        self.around_feed_forward = Residual(parameters, feed_forward, config, sites)

    def __call__(self, x: Tensor, lengths: np.ndarray, dropout: DropoutStream | None) -> Tensor:
        x = self.around_attention(x, lambda x: self.attention(x, lengths, dropout), dropout)
        return self.around_feed_forward(x, lambda x: self.feed_forward(x, dropout), dropout)


class Encoder:
    """Packed embeddings [tokens, d_model] in, the memory that the decoder attends to out."""

    def __init__(
        self, parameters: Parameters, config: TransformerConfig, sites: Iterator[int]
    ) -> None:
        self.layers = [
            EncoderLayer(parameters, f"encoder.{i}", config, sites) for i in range(config.layers)
        ]
        # Post-norm ends in a norm already; pre-norm needs one more.
        self.norm = Norm(parameters, "encoder.norm", config) if config.norm == "pre" else None

    def __call__(
        self, x: Tensor, lengths: np.ndarray, dropout: DropoutStream | None = None
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, lengths, dropout)
        return self.norm(x) if self.norm else x
