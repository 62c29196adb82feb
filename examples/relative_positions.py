"""Self-attention with relative positions (Shaw et al., 2018).

    e_ij = q_i · (k_j + a_ij) / √d_k    z_i = Σ_j softmax(e)_ij (v_j + b_ij)

a_ij and b_ij are learned for each distance j - i, clipped to ± FARTHEST, in each layer; all heads
share them. There are no other positions. Whole sentences are padded; `step` reads the cache.

    python -m examples.relative_positions    # trains both on the generated grammar
"""

from __future__ import annotations

import numpy as np

from autograd import DropoutSite, DropoutStream, Sentences, Tensor, array_module, ops, to_host
from autograd.backend import Array, backend_of
from examples.compare import compare
from npformer import Packed, Parts, TransformerConfig, unpack
from npformer.attention import SelfAttention
from npformer.parameters import Scope, glorot_uniform
from npformer.positions import NoPositions

FARTHEST = 8
Pair = tuple[Tensor, Tensor]


class RelativeSelfAttention(SelfAttention):
    def __init__(self, scope: Scope, config: TransformerConfig, causal: bool) -> None:
        super().__init__(scope, config, causal)
        self.window, self.width, count = None, self.heads * self.d_k, 2 * FARTHEST + 1
        self.of_keys = scope.parameter("of_keys", (count, self.d_k), glorot_uniform)
        self.of_values = scope.parameter("of_values", (count, self.d_v), glorot_uniform)

    def attend(self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None) -> Tensor:
        if not len(x):  # without a token there are no scores
            return super().attend(x, sentences, dropout)
        return self.output(self._over_sentences(x, sentences, self.dropout.site(dropout))[1])

    def weights(self, x: Tensor, sentences: Sentences) -> list[np.ndarray]:
        if not len(x):
            return super().weights(x, sentences)
        p, _ = self._over_sentences(x, sentences, None)
        return [of[:, :n, :n] for of, n in zip(to_host(p.value), sentences.lengths, strict=True)]

    def step(
        self, x: Tensor, cache: Array, slots: Array, token_slots: Array, lengths: Array
    ) -> Tensor:
        qkv, places = self.qkv(x).value, array_module(cache).arange(cache.shape[1])
        ops.append_to_cache(qkv, cache, slots=slots, lengths=lengths)
        q, none = Tensor(qkv[:, None, : self.width]), places >= lengths[:, None]  # [rows, places]
        kv = Tensor(ops.where(none[:, :, None], 0.0, cache[token_slots, places]))
        return self.output(self._attention(q, kv, none[:, None, None], 1, lengths[:1] - 1)[1][:, 0])

    def _over_sentences(self, x: Tensor, sentences: Sentences, site: DropoutSite | None) -> Pair:
        """Weights [sentences, heads, longest, longest], attended values [tokens, heads d_v]."""
        rows, _ = unpack(Packed(np.arange(len(x)), sentences), pad_id=-1)  # [sentences, longest]
        ids, asarray = np.arange(rows.shape[1]), backend_of(x.value).asarray
        mask = (rows < 0)[:, None, None, :] | (self.causal & (ids > ids[:, None]))
        q, kv = ops.split(self.qkv(x)[asarray(rows)], sections=[self.width], axis=2)
        ones = array_module(x.value).ones((len(x), len(ids) * self.heads), x.dtype)  # a row a token
        kept = ops.dropout(Tensor(ones), site=site).reshape(len(x), len(ids), self.heads)
        p, y = self._attention(q, kv, asarray(mask), kept[asarray(rows)].transpose(0, 3, 1, 2))
        return p, y[asarray(rows >= 0)]

    def _attention(self, q: Tensor, kv: Tensor, mask: Array, kept: Array, first: Array = 0) -> Pair:
        """q [g, n, heads d_k], of tokens from `first` on; kv, K‖V [g, m, heads (d_k + d_v)]."""
        xp, (g, n, _), m = array_module(q.value), q.shape, kv.shape[1]
        k, v = ops.split(kv, sections=[self.width], axis=2)
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1) for x in (q, k, v))
        q, k, v = q.transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
        gaps = xp.clip(xp.arange(m) - xp.arange(n)[:, None] - first, -FARTHEST, FARTHEST) + FARTHEST
        scores = q @ k + (q @ self.of_keys.T)[..., xp.arange(n)[:, None], gaps]
        p = ops.softmax(ops.where(mask, -1e9, scores / self.d_k**0.5)) * kept
        by_query = p.transpose(2, 0, 1, 3).reshape(n, -1, m) @ self.of_values[gaps]
        y = p @ v + by_query.reshape(n, g, self.heads, -1).transpose(1, 2, 0, 3)
        return p, y.transpose(0, 2, 1, 3).reshape(g, n, -1)


if __name__ == "__main__":
    compare("relative", Parts(self_attention=RelativeSelfAttention, positions=NoPositions))
