"""The encoder: N layers of self-attention and a feed-forward network (section 3.1)."""

from __future__ import annotations

from autograd import DropoutStream, Sentences, Tensor
from npformer.config import TransformerConfig
from npformer.layers import Residual
from npformer.parameters import Scope
from npformer.parts import Parts


class EncoderLayer:
    """Self-attention, then the feed-forward network, each with its residual sum."""

    def __init__(self, scope: Scope, config: TransformerConfig, parts: Parts) -> None:
        attention, feed_forward = scope / "self_attention", scope / "feed_forward"
        self.attention = parts.self_attention(attention, config, False)
        self.around_attention = Residual(attention, config, parts.norm)
        self.feed_forward = parts.feed_forward(feed_forward, config)
        self.around_feed_forward = Residual(feed_forward, config, parts.norm)

    def __call__(self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None) -> Tensor:
        """x: [tokens, d_model], of these sentences; so is the result."""
        x = self.around_attention(x, lambda x: self.attention(x, sentences, dropout), dropout)
        return self.around_feed_forward(x, lambda x: self.feed_forward(x, dropout), dropout)


class Encoder:
    """Packed embeddings [tokens, d_model] in, the memory that the decoder attends to out."""

    def __init__(self, scope: Scope, config: TransformerConfig, parts: Parts) -> None:
        self.layers = [EncoderLayer(scope / i, config, parts) for i in range(config.layers)]
        # Post-norm ends in a norm already; pre-norm needs one more.
        self.norm = parts.norm(scope / "norm", config) if config.norm == "pre" else None

    def __call__(
        self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None = None
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, sentences, dropout)
        return self.norm(x) if self.norm else x
