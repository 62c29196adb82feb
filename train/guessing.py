"""Whether a model has begun to learn, or still guesses tokens by how frequent they are."""

from __future__ import annotations

import math

import numpy as np

from npformer.packed import Packed
from train.runs.log_entry import LogEntry

_MARGIN = 0.3  # nats; a model that uses the words of its sentence is soon far below
_SOON = 500  # steps in which no model need have begun
_AT_A_TIME = 1 << 20  # tokens that are read from the disk


def guessing_loss(targets: Packed) -> float:
    """Nats per target token, ends included, of guessing by how frequent the tokens are.

    It is the entropy of the unigram distribution. targets: the sentences, without their ends.
    """
    counts = np.zeros(0, np.int64)
    for begin in range(0, len(targets.tokens), _AT_A_TIME):
        some = np.bincount(targets.tokens[begin : begin + _AT_A_TIME], minlength=len(counts))
        some[: len(counts)] += counts
        counts = some
    p = np.append(counts[counts > 0], len(targets)) / (counts.sum() + len(targets))
    return float(-(p * np.log(p)).sum())


class Beginning:
    """Watches whether a model begins to learn.

    targets: the training sentences, without their ends. warmup: steps until the learning rate is
    highest.
    """

    def __init__(self, targets: Packed, warmup: int) -> None:
        self._targets, self._late = targets, max(_SOON, 2 * warmup)
        self._is_known = False

    def advice(self, entry: LogEntry) -> str | None:
        """What to do if it is late and the model still guesses: a line, which is given once."""
        loss = math.log(entry.perplexity)
        if self._is_known or entry.step < self._late or math.isnan(loss):
            return None
        self._is_known, guessing = True, guessing_loss(self._targets)
        if loss < guessing - _MARGIN:
            return None
        return (
            f"step {entry.step:,}: the model has not begun to learn: its loss without smoothing, "
            f"{loss:.2f}, is about that of guessing tokens by their frequency, {guessing:.2f}. "
            "Deep post-norm models stay there if the learning rate is too high: start again with a "
            "longer warmup, a lower rate, or norm: pre"
        )
