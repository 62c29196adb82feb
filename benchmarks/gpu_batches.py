"""Data for the GPU benchmarks: sentences of WMT's lengths, with random token ids.

The lengths of English-German news text in 37,000 subwords are nearly log-normal, with a long tail,
and correlated within a pair. Training batches come from a pool of a million pairs by
train/corpora/batches.py. So the lengths within a batch are as similar as in training, and batches
vary in size. Ids follow Zipf's law, as words do: frequent ones occur many times in a batch, which
matters for the gradient of the embedding.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from npformer import Batch, Packed
from train.corpora.batches import Batches
from train.corpora.sentences import ParallelTokens

BEGIN, END = 1, 2
LONGEST = 256  # subwords
_MEAN, _LOG_DEVIATION = 27.0, 0.62  # subwords; the standard deviation of a length's logarithm
_NEWSTEST_LOG_DEVIATION = 0.52  # in news articles without headlines, lists and bad alignments
_CORRELATION = 0.93  # of the logarithms of a pair's lengths


def training_batches(
    count: int,
    tokens: int = 25_000,
    vocab_size: int = 37_000,
    pairs: int = 1_000_000,
    seed: int = 0,
) -> list[Batch]:
    """`count` batches of at most `tokens` source and `tokens` target tokens."""
    pool = pairs_of_wmt(pairs, vocab_size, seed)
    batches = Batches(pool, tokens=tokens, begin_id=BEGIN, end_id=END, seed=seed)
    return list(batches.epoch(0)[:count])


def newstest_sources(count: int = 3003, vocab_size: int = 37_000, seed: int = 0) -> list[list[int]]:
    """Sentences to translate, without ends: as many as newstest2014 has."""
    rng = np.random.default_rng(seed)
    sizes = _sizes(rng.standard_normal(count), _NEWSTEST_LOG_DEVIATION)
    sentences = _sentences(rng, sizes, vocab_size)
    return [sentences[i].tolist() for i in range(count)]


@cache
def pairs_of_wmt(pairs: int, vocab_size: int, seed: int = 0) -> ParallelTokens:
    rng = np.random.default_rng(seed)
    related = np.array([[1, _CORRELATION], [_CORRELATION, 1]])
    source, target = (
        _sentences(rng, _sizes(normal, _LOG_DEVIATION), vocab_size)
        for normal in rng.multivariate_normal([0, 0], related, pairs).T
    )
    return ParallelTokens(source, target)


def _sizes(normal: np.ndarray, deviation: float) -> np.ndarray:
    """Lengths from a standard normal distribution; their mean is _MEAN before the tail is cut."""
    sizes = np.rint(_MEAN * np.exp(deviation * normal - deviation**2 / 2))
    return np.clip(sizes, 1, LONGEST).astype(np.int64)


def _sentences(rng: np.random.Generator, sizes: np.ndarray, vocab_size: int) -> Packed:
    """Random sentences; id r + 3 has a frequency of about 1 / r, and 0 to 3 do not occur."""
    ranks = (vocab_size - 3) ** rng.random(int(sizes.sum()), np.float32)
    return Packed(ranks.astype(np.uint16) + np.uint16(3), sizes)
