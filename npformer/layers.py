"""Linear maps, layer norm, the feed-forward network and residual connections (section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from autograd import DropoutSite, DropoutStream, Tensor, ops
from npformer.config import TransformerConfig
from npformer.parameters import Scope, glorot_uniform, ones, zeros


class Linear:
    """xW + b, with W: [d_in, d_out] and b: [d_out].

    With several widths it is several projections in one matrix, d_out = sum(widths). Each is
    initialised separately or, with `fused`, all of them as one matrix with gain 1/√2 (fairseq).
    """

    def __init__(self, scope: Scope, d_in: int, *widths: int, fused: bool = False) -> None:
        def initial(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
            if fused:
                return glorot_uniform(rng, shape, gain=math.sqrt(0.5))
            return np.hstack([glorot_uniform(rng, (d_in, width)) for width in widths])

        self.weight = scope.parameter("weight", (d_in, sum(widths)), initial, int8="columns")
        self.bias = scope.parameter("bias", (sum(widths),), zeros)

    def __call__(self, x: Tensor) -> Tensor:
        """x: [tokens, d_in]. Returns [tokens, d_out]."""
        return ops.linear(x, self.weight, self.bias)


class Norm:
    """Layer normalisation (Ba et al., 2016), with gain and bias [d_model]."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        # Normalisation is computed in float32, and so are gain and bias.
        self.gain = scope.parameter("gain", (config.d_model,), ones, float32=True)
        self.bias = scope.parameter("bias", (config.d_model,), zeros, float32=True)
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """LayerNorm(x). x: [tokens, d_model]; returns the same shape."""
        return ops.layer_norm(x, self.gain, self.bias, epsilon=self.epsilon)

    def of_sum(self, y: Tensor, x: Tensor, site: DropoutSite | None) -> Tensor:
        """LayerNorm(x + Dropout(y)), fused. x, y: [tokens, d_model]; returns the same shape."""
        if type(self).__call__ is not Norm.__call__:  # another norm, which is not fused
            return self(x + ops.dropout(y, site=site))
        return ops.add_dropout_norm(y, x, self.gain, self.bias, site=site, epsilon=self.epsilon)


class Residual:
    """The residual connection around a sub-layer, with dropout and norm (sections 3.1 and 5.4).

    Post-norm, as in the paper: LayerNorm(x + Dropout(Sublayer(x))).
    Pre-norm: x + Dropout(Sublayer(LayerNorm(x))).
    """

    def __init__(
        self,
        scope: Scope,
        config: TransformerConfig,
        norm: Callable[[Scope, TransformerConfig], Norm] = Norm,
    ) -> None:
        self.norm = norm(scope / "norm", config)
        self.post = config.norm == "post"
        self.dropout = scope.dropout("residual", config.dropout)

    def __call__(
        self, x: Tensor, sublayer: Callable[[Tensor], Tensor], dropout: DropoutStream | None
    ) -> Tensor:
        """x: [tokens, d_model]. Returns [tokens, d_model]."""
        site = self.dropout.site(dropout)
        if self.post:
            return self.norm.of_sum(sublayer(x), x, site)
        return x + ops.dropout(sublayer(self.norm(x)), site=site)


class FeedForward:
    """max(0, xW₁ + b₁) W₂ + b₂ (section 3.3), or with another activation than the ReLU."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        self.inner = Linear(scope / "inner", config.d_model, config.d_ff)
        self.outer = Linear(scope / "outer", config.d_ff, config.d_model)
        self.activation = config.activation
        self.dropout = scope.dropout("dropout", config.ffn_dropout)

    def __call__(self, x: Tensor, dropout: DropoutStream | None = None) -> Tensor:
        """x: [tokens, d_model]. Returns [tokens, d_model]."""
        return ops.feed_forward(
            x,
            *(self.inner.weight, self.inner.bias),  # [d_model, d_ff], [d_ff]
            *(self.outer.weight, self.outer.bias),  # [d_ff, d_model], [d_model]
            activation=self.activation,
            site=self.dropout.site(dropout),
        )
