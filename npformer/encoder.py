"""The encoder: N layers of self-attention and a feed-forward network (section 3.1)."""

from __future__ import annotations

from autograd import DropoutStream, Sentences, Tensor
from npformer.config import TransformerConfig
from npformer.layers import Residual
from npformer.parameters import Scope
from npformer.parts import Parts


class EncoderLayer:
    """Self-attention and a feed-forward network, each with a residual connection."""

    def __init__(self, scope: Scope, config: TransformerConfig, parts: Parts) -> None:
        attention, feed_forward = scope / "self_attention", scope / "feed_forward"
        self.attention = parts.self_attention(attention, config, False)
        self.around_attention = Residual(attention, config, parts.norm)
        self.feed_forward = parts.feed_forward(feed_forward, config)
        self.around_feed_forward = Residual(feed_forward, config, parts.norm)

    def __call__(self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None) -> Tensor:
        """x: [tokens, d_model], packed as `sentences`. Returns [tokens, d_model]."""
        x = self.around_attention(x, lambda x: self.attention(x, sentences, dropout), dropout)
        return self.around_feed_forward(x, lambda x: self.feed_forward(x, dropout), dropout)


class Encoder:
    """Turns embedded source sentences into the memory that the decoder attends to."""

    def __init__(self, scope: Scope, config: TransformerConfig, parts: Parts) -> None:
        self.layers = [EncoderLayer(scope / i, config, parts) for i in range(config.layers)]
        # The output of pre-norm layers is not normalised yet.
        self.norm = parts.norm(scope / "norm", config) if config.norm == "pre" else None

    def __call__(
        self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None = None
    ) -> Tensor:
        """x: [tokens, d_model], packed as `sentences`. Returns [tokens, d_model]."""
        for layer in self.layers:
            x = layer(x, sentences, dropout)
        return self.norm(x) if self.norm else x
