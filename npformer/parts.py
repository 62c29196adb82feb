"""The classes that a model is built from, which can be replaced from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from npformer.attention import CrossAttention, SelfAttention
from npformer.config import TransformerConfig
from npformer.layers import FeedForward, Norm
from npformer.parameters import Scope
from npformer.positions import Positions, positions_of


@dataclass(frozen=True)
class Parts:
    """The classes that a Transformer is built from. To try an idea, pass your own:

        Transformer(config, parts=Parts(feed_forward=GatedFeedForward))

    Each is called with the part's scope and the model's configuration, self-attention also with
    `causal`, and returns an object with the methods of the class that it replaces. A model
    directory does not record its parts: pass the same ones when you load it. See `examples/`.
    """

    self_attention: Callable[[Scope, TransformerConfig, bool], SelfAttention] = SelfAttention
    cross_attention: Callable[[Scope, TransformerConfig], CrossAttention] = CrossAttention
    feed_forward: Callable[[Scope, TransformerConfig], FeedForward] = FeedForward
    norm: Callable[[Scope, TransformerConfig], Norm] = Norm
    positions: Callable[[Scope, TransformerConfig], Positions] = positions_of


PAPER_PARTS = Parts()
