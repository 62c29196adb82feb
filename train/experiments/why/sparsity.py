"""Sparsity: how many words heads attend to in effect, and whether the k largest weights do."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
from train.experiments.page import Table
from train.experiments.why.finding import Finding

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


def finding(
    effective: Mapping[str, Any],
    perplexity: Mapping[str, float],
    costs: Mapping[int, Mapping[str, float]],
) -> Finding:
    """Whether attention is sparse, and whether it pays to use that.

    effective: the effective number of words of each of the "heads", [layers][heads] by kind, and
    that of weights that are all "alike". perplexity, costs: of `quality`, and of `cost` by n.
    """
    words, uniform = effective["heads"], effective["alike"]
    shares = [
        value / uniform[kind] for kind, of_kind in words.items() for row in of_kind for value in row
    ]
    sparse = statistics.median(shares) < 0.5
    enough = next(
        (k for k, value in perplexity.items() if k != "all" and value < 1.05 * perplexity["all"]),
        None,
    )
    # A sentence of no more tokens than that has no other way.
    ratios = {
        n: of_n[enough] / of_n["all"]
        for n, of_n in costs.items()
        if enough is not None and enough in of_n
    }
    pays = [ratio < 0.95 for ratio in ratios.values()]
    if enough is None:
        needed = "no k that was tried keeps perplexity within 5 %"
    else:
        needed = f"the {enough} largest weights keep perplexity within 5 %"
        if ratios:
            times = ", ".join(f"{ratio:.1f} (n = {n:,})" for n, ratio in ratios.items())
            needed += f", and using them alone takes {times} times as long"
    return Finding(
        "Sparsity",
        "attention is sparse: a head looks at few words, so that only few weights need computing.",
        f"a head attends in effect to {statistics.median(shares):.0%} of what it could (median of "
        f"{len(shares)} heads); {needed}",
        "yes" if sparse and pays and all(pays) else "in part" if sparse or any(pays) else "no",
        [
            "The effective number of words, exp of the entropy of the weights, mean over the test "
            "sentences; and that of weights that are all alike, which look at every word:",
            Table(
                [
                    "heads",
                    *(str(number + 1) for number in range(len(words["encoder"][0]))),
                    "alike",
                ],
                [
                    [
                        f"{kind}, layer {layer + 1}",
                        *(f"{value:.1f}" for value in row),
                        f"{uniform[kind]:.1f}",
                    ]
                    for kind, of_kind in words.items()
                    for layer, row in enumerate(of_kind)
                ],
            ),
            "Perplexity on the test sentences, when each query of each head uses only its k "
            "largest weights:",
            Table(["k", *perplexity], [["perplexity", *(f"{v:.3f}" for v in perplexity.values())]]),
            "Milliseconds of attention alone over n tokens, 8 heads of 64, in NumPy. All scores "
            "have to be computed to know the largest; only the product with the values gets "
            "shorter, and choosing is not free:",
            Table(
                ["n", *costs[max(costs)]],
                [
                    [f"{n:,}", *(f"{of_n[k]:.2f}" if k in of_n else "–" for k in costs[max(costs)])]
                    for n, of_n in costs.items()
                ],
            ),
        ],
    )


def alike(queries: Sequence[int], keys: Sequence[int], causal: bool) -> float:
    """The mean effective number of words over all queries, if weights were all alike.

    queries, keys: tokens of each sentence
    """
    if causal:  # the first sees 1 word, the last sees all
        return sum(n * (n + 1) / 2 for n in queries) / sum(queries)
    return sum(n * m for n, m in zip(queries, keys, strict=True)) / sum(queries)
