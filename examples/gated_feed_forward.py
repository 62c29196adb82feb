"""SwiGLU: a feed-forward network with a gate (Shazeer, "GLU variants improve Transformer", 2020).

In place of max(0, xW₁) W₂ it computes (Swish(xW) ⊙ xV) W₂, with Swish(a) = a · sigmoid(a). It has
three matrices instead of two, of 2/3 the width, and so as many parameters.

    python -m examples.gated_feed_forward    # trains both on the generated grammar
"""

from __future__ import annotations

from autograd import DropoutStream, Tensor, op, ops
from autograd.backend import Array, array_module
from autograd.operation import Vjp
from examples.compare import compare
from npformer import Parts, TransformerConfig
from npformer.layers import FeedForward, Linear
from npformer.parameters import Scope


@op
def swiglu(x: Array) -> tuple[Array, Vjp]:
    """Swish(a) ⊙ b, for x = a‖b [tokens, 2 · width]; the result is [tokens, width]."""
    xp = array_module(x)
    a, b = xp.split(x, 2, axis=-1)
    sigmoid = ops.sigmoid(a)
    swish = a * sigmoid

    def vjp(dy: Array) -> Array:
        slope = sigmoid + swish * (1 - sigmoid)  # of Swish, by the product rule
        return xp.concatenate([dy * b * slope, dy * swish], axis=-1)

    return swish * b, vjp


class GatedFeedForward(FeedForward):
    """(Swish(xW) ⊙ xV) W₂, with biases as the paper's network has them."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        width = config.d_ff * 2 // 3
        self.inner = Linear(scope / "inner", config.d_model, width, width)  # W‖V
        self.outer = Linear(scope / "outer", width, config.d_model)
        self.dropout = scope.dropout("dropout", config.ffn_dropout)

    def __call__(self, x: Tensor, dropout: DropoutStream | None = None) -> Tensor:
        """x: [tokens, d_model]; so is the result."""
        y = swiglu(self.inner(x))  # [tokens, width]
        return self.outer(ops.dropout(y, site=self.dropout.site(dropout)))


if __name__ == "__main__":
    compare("SwiGLU", Parts(feed_forward=GatedFeedForward))
