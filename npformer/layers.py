"""The sub-layers: attention, the feed-forward network, and what surrounds each (section 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from autograd import DropoutStream, Parameter, Tensor, ops
from autograd.backend import Array
from npformer.config import TransformerConfig

Parameters = Mapping[str, Parameter]


class Linear:
    """xW + b, with W [d_in, d_out] and b [d_out]."""

    def __init__(self, parameters: Parameters, name: str) -> None:
        self.weight = parameters[f"{name}.weight"]
        self.bias = parameters[f"{name}.bias"]

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        return ops.linear(x, self.weight, self.bias, relu=relu)


class Norm:
    """Layer normalisation, with its gain and bias [d_model]."""

    def __init__(self, parameters: Parameters, name: str, config: TransformerConfig) -> None:
        self.gain = parameters[f"{name}.gain"]
        self.bias = parameters[f"{name}.bias"]
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return ops.layer_norm(x, self.gain, self.bias, epsilon=self.epsilon)


class Residual:
    """A sub-layer's surroundings: dropout, the residual sum and the norm (sections 3.1 and 5.4).

    After the sum, LayerNorm(x + Dropout(Sublayer(x))), as in the paper; or before the sub-layer,
    x + Dropout(Sublayer(LayerNorm(x))).
    """

    def __init__(
        self, parameters: Parameters, name: str, config: TransformerConfig, sites: Iterator[int]
    ) -> None:
        self.norm = Norm(parameters, f"{name}.norm", config)
        self.post = config.norm == "post"
        self.rate = config.dropout
        self.site = next(sites)

    def __call__(
        self, x: Tensor, sublayer: Callable[[Tensor], Tensor], dropout: DropoutStream | None
    ) -> Tensor:
        site = dropout.site(self.site, self.rate) if dropout else None
        if self.post:
            return ops.add_dropout_norm(
                sublayer(x),
                x,
                self.norm.gain,
                self.norm.bias,
                site=site,
                epsilon=self.norm.epsilon,
            )
        return x + ops.dropout(sublayer(self.norm(x)), site=site)


class SelfAttention:
    """Multi-head attention of a sequence to itself (section 3.2.2)."""

    def __init__(
        self,
        parameters: Parameters,
        name: str,
        config: TransformerConfig,
        sites: Iterator[int],
        causal: bool,
    ) -> None:
        assert config.d_k is not None
        self.qkv = Linear(parameters, f"{name}.qkv")
        self.output = Linear(parameters, f"{name}.output")
        self.heads, self.d_k, self.causal = config.heads, config.d_k, causal
        self.rate, self.site = config.attention_dropout, next(sites)

    def __call__(self, x: Tensor, lengths: np.ndarray, dropout: DropoutStream | None) -> Tensor:
        """x [tokens, d_model], divided into sentences by `lengths`; the same shape comes out."""
        y = ops.attention(
            self.qkv(x),  # [tokens, heads (2 d_k + d_v)]
            heads=self.heads,
            d_k=self.d_k,
            lengths=lengths,
            causal=self.causal,
            site=dropout.site(self.site, self.rate) if dropout else None,
        )  # [tokens, heads d_v]
        return self.output(y)

    def step(self, x: Tensor, cache: Array, slots: Array, origins: Array, length: int) -> Tensor:
        """Attention of one new token a row to itself and to the row's earlier ones.

        x [rows, d_model]. cache [slots, capacity, heads (d_k + d_v)] gets K‖V of this token in the
        row's slot (slots [rows]). origins [rows, capacity] says in which slot each of the row's
        `length` + 1 tokens lies, this one included.
        """
        qkv = self.qkv(x).value
        ops.append_to_cache(qkv, cache, slots=slots, length=length)
        y = ops.cached_attention(
            qkv[:, None],
            cache,
            heads=self.heads,
            d_k=self.d_k,
            slots=origins,
            length=length + 1,
        )  # [rows, 1, heads d_v]
        return self.output(Tensor(y[:, 0]))


class CrossAttention:
    """Multi-head attention of the decoder to the encoder's output (section 3.2.3)."""

    def __init__(
        self,
        parameters: Parameters,
        name: str,
        config: TransformerConfig,
        sites: Iterator[int],
    ) -> None:
        assert config.d_k is not None
        self.q = Linear(parameters, f"{name}.q")
        self.kv = Linear(parameters, f"{name}.kv")
        self.output = Linear(parameters, f"{name}.output")
        self.heads, self.d_k = config.heads, config.d_k
        self.rate, self.site = config.attention_dropout, next(sites)

    def __call__(
        self,
        x: Tensor,
        lengths: np.ndarray,
        memory: Tensor,
        memory_lengths: np.ndarray,
        dropout: DropoutStream | None,
    ) -> Tensor:
        """x [tokens, d_model] attends to memory [source tokens, d_model], sentence by sentence."""
        y = ops.attention(
            self.q(x),  # [tokens, heads d_k]
            self.kv(memory),  # [source tokens, heads (d_k + d_v)]
            heads=self.heads,
            d_k=self.d_k,
            lengths=lengths,
            key_lengths=memory_lengths,
            site=dropout.site(self.site, self.rate) if dropout else None,
        )
        return self.output(y)

    def step(
        self, x: Tensor, keys_values: Array, sentences: Array, key_lengths: Array, beam: int
    ) -> Tensor:
        """Attention of one token a row, `beam` rows a sentence, to each sentence's memory.

        x [running · beam, d_model]; keys_values [sentences, longest, heads (d_k + d_v)], padded;
        sentences [running] says which of them, and key_lengths [running] how long they are.
        """
        q = self.q(x).value
        y = ops.cached_attention(
            q.reshape(-1, beam, q.shape[1]),
            keys_values,
            heads=self.heads,
            d_k=self.d_k,
            slots=sentences[:, None],
            length=keys_values.shape[1],
            key_lengths=key_lengths,
        )  # [running, beam, heads d_v]
        return self.output(Tensor(y.reshape(q.shape[0], -1)))


class FeedForward:
    """max(0, xW₁ + b₁) W₂ + b₂ (section 3.3)."""

    def __init__(
        self,
        parameters: Parameters,
        name: str,
        config: TransformerConfig,
        sites: Iterator[int],
    ) -> None:
        self.inner = Linear(parameters, f"{name}.inner")
        self.outer = Linear(parameters, f"{name}.outer")
        self.rate, self.site = config.ffn_dropout, next(sites)

    def __call__(self, x: Tensor, dropout: DropoutStream | None = None) -> Tensor:
        y = self.inner(x, relu=True)  # [tokens, d_ff]
        if dropout and self.rate:
            y = ops.dropout(y, site=dropout.site(self.site, self.rate))
        return self.outer(y)
