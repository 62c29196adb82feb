"""The sub-layers but attention: linear maps, the norm, the feed-forward network (section 3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from autograd import DropoutSite, DropoutStream, Tensor, ops
from npformer.config import TransformerConfig
from npformer.parameters import Scope, glorot_uniform, ones, zeros


class Linear:
    """xW + b, with W [d_in, d_out] and b [d_out].

    Several widths are several projections side by side. Each is drawn by itself, or all of them
    `fused`, as one with gain 1/√2 (fairseq).
    """

    def __init__(self, scope: Scope, d_in: int, *widths: int, fused: bool = False) -> None:
        def initial(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
            if fused:
                return glorot_uniform(rng, shape, gain=math.sqrt(0.5))
            return np.hstack([glorot_uniform(rng, (d_in, width)) for width in widths])

        self.weight = scope.parameter("weight", (d_in, sum(widths)), initial)
        self.bias = scope.parameter("bias", (sum(widths),), zeros)

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        """x: [tokens, d_in]; the result is [tokens, d_out]."""
        return ops.linear(x, self.weight, self.bias, relu=relu)


class Norm:
    """Layer normalisation, with its gain and bias [d_model]."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        # They act on what was normalised in float32.
        self.gain = scope.parameter("gain", (config.d_model,), ones, float32=True)
        self.bias = scope.parameter("bias", (config.d_model,), zeros, float32=True)
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        """LayerNorm(x), x: [tokens, d_model]."""
        return ops.layer_norm(x, self.gain, self.bias, epsilon=self.epsilon)

    def of_sum(self, y: Tensor, x: Tensor, site: DropoutSite | None) -> Tensor:
        """LayerNorm(x + Dropout(y)), in one operation."""
        return ops.add_dropout_norm(y, x, self.gain, self.bias, site=site, epsilon=self.epsilon)


class Residual:
    """A sub-layer's surroundings: dropout, the residual sum and the norm (sections 3.1 and 5.4).

    After the sum, LayerNorm(x + Dropout(Sublayer(x))), as in the paper; or before the sub-layer,
    x + Dropout(Sublayer(LayerNorm(x))).
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
        """x: [tokens, d_model]; so is the result."""
        site = self.dropout.site(dropout)
        if self.post:
            return self.norm.of_sum(sublayer(x), x, site)
        return x + ops.dropout(sublayer(self.norm(x)), site=site)


class FeedForward:
    """max(0, xW₁ + b₁) W₂ + b₂ (section 3.3)."""

    def __init__(self, scope: Scope, config: TransformerConfig) -> None:
        self.inner = Linear(scope / "inner", config.d_model, config.d_ff)
        self.outer = Linear(scope / "outer", config.d_ff, config.d_model)
        self.dropout = scope.dropout("dropout", config.ffn_dropout)

    def __call__(self, x: Tensor, dropout: DropoutStream | None = None) -> Tensor:
        """x: [tokens, d_model]; so is the result."""
        y = self.inner(x, relu=True)  # [tokens, d_ff]
        site = self.dropout.site(dropout)
        return self.outer(ops.dropout(y, site=site) if site else y)
