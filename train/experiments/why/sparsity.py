"""Sparsity: how many words heads attend to in effect, and whether the k largest weights do."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autograd import DropoutStream, Sentences, Tensor
from npformer.attention import CrossAttention, SelfAttention
from npformer.batch import Batch
from npformer.checkpoint import load_model
from npformer.config import TransformerConfig
from npformer.parameters import Scope
from npformer.parts import Parts
from train.evaluation import likelihood

_REPEATS = 5


def largest(weights: np.ndarray, k: int) -> np.ndarray:
    """The k largest of each row of weights, which sum to 1 again; all others are 0."""
    if k >= weights.shape[-1]:
        return weights
    threshold = np.partition(weights, -k, axis=-1)[..., -k, None]
    kept = np.where(weights >= threshold, weights, 0)
    total: np.ndarray = kept / kept.sum(-1, keepdims=True)
    return total


class SparseSelfAttention(SelfAttention):
    """Self-attention in which each query uses its k largest weights alone; no gradient."""

    def __init__(self, scope: Scope, config: TransformerConfig, causal: bool, *, k: int) -> None:
        super().__init__(scope, config, causal)
        self.k = k

    def attend(self, x: Tensor, sentences: Sentences, dropout: DropoutStream | None) -> Tensor:
        """As SelfAttention's, on NumPy."""
        values = self.qkv(x).value[:, 2 * self.heads * self.d_k :]
        weights = self.weights(x, sentences)
        return self.output(Tensor(_used(weights, values, sentences, self.k)))


class SparseCrossAttention(CrossAttention):
    """Cross-attention in which each query uses its k largest weights alone; no gradient."""

    def __init__(self, scope: Scope, config: TransformerConfig, *, k: int) -> None:
        super().__init__(scope, config)
        self.k = k

    def attend(
        self,
        x: Tensor,
        sentences: Sentences,
        memory: Tensor,
        memory_sentences: Sentences,
        dropout: DropoutStream | None,
    ) -> Tensor:
        """As CrossAttention's, on NumPy."""
        values = self.kv(memory).value[:, self.heads * self.d_k :]
        weights = self.weights(x, sentences, memory, memory_sentences)
        return self.output(Tensor(_used(weights, values, memory_sentences, self.k)))


def _used(weights: Sequence[np.ndarray], values: np.ndarray, keys: Sentences, k: int) -> np.ndarray:
    """The values by their k largest weights, [tokens, heads · d_v].

    weights: [heads, n, m] of each sentence; values: [keys, heads · d_v]
    """
    found = []
    for i, of_sentence in enumerate(weights):
        heads, n, m = of_sentence.shape
        v = values[keys.offsets[i] : keys.offsets[i + 1]].reshape(m, heads, -1).transpose(1, 0, 2)
        y = largest(of_sentence, k) @ v  # [heads, n, d_v]
        found.append(y.transpose(1, 0, 2).reshape(n, -1))
    return np.concatenate(found)


def quality(run: Path, batches: Sequence[Batch], ks: Sequence[int]) -> dict[str, float]:
    """Perplexity with all weights, and with the k largest of each query and head."""
    found = {"all": likelihood(load_model(run), batches).perplexity}
    for k in ks:
        parts = Parts(
            self_attention=partial(SparseSelfAttention, k=k),
            cross_attention=partial(SparseCrossAttention, k=k),
        )
        found[str(k)] = likelihood(load_model(run, parts), batches).perplexity
    return found


def cost(n: int, ks: Sequence[int], heads: int = 8, d_k: int = 64) -> dict[str, Any]:
    """Milliseconds of attention over n tokens: with all weights, and with the k largest alone.

    To know the k largest, all n² scores are needed; only the second product gets shorter.
    """
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, heads, n, d_k), np.float32)
    found = {"all": _milliseconds(lambda: _all(q, k, v))}
    for few in ks:
        if few < n:
            found[str(few)] = _milliseconds(partial(_few, q, k, v, few))
    return found


def _scores(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    scores = q @ k.transpose(0, 2, 1)
    scores /= math.sqrt(q.shape[-1])
    return scores


def _softmax(scores: np.ndarray) -> np.ndarray:
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    return scores


def _all(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    y: np.ndarray = _softmax(_scores(q, k)) @ v
    return y


def _few(q: np.ndarray, k: np.ndarray, v: np.ndarray, few: int) -> np.ndarray:
    scores = _scores(q, k)
    chosen = np.argpartition(scores, -few, axis=-1)[..., -few:]  # [heads, n, few]
    weights = _softmax(np.take_along_axis(scores, chosen, -1))
    values = v[np.arange(len(v))[:, None, None], chosen]  # [heads, n, few, d_v]
    y: np.ndarray = (weights[:, :, None, :] @ values)[:, :, 0]
    return y


def _milliseconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000
