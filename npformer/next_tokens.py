"""The likeliest next tokens of each hypothesis, among those that are allowed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from autograd.backend import Array, array_module, backend_of
from npformer.decoder import DecoderState
from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer


class Prefixes(NamedTuple):
    """The hypotheses that are about to get their next token.

    Attributes:
        sentence_ids: [rows], the index of the sentence that each translates
        ids: [rows, n], the token ids of each so far, without the begin id
    """

    sentence_ids: Array
    ids: Array


Rule = Callable[[Array, Prefixes], None]
"""Sets log_p [rows, vocabulary] to -inf for the next tokens that it does not allow."""


class NextTokens:
    """The likeliest next tokens of each row, among those that all rules allow.

    Their log-probabilities are the model's: what is not allowed gives nothing to the others. So the
    score of a translation is the same whether it was chosen freely or not. Without rules, the
    model selects the likeliest itself, without keeping the probabilities of all.
    """

    def __init__(
        self,
        model: Transformer,
        state: DecoderState,
        settings: SearchSettings,
        source_lengths: np.ndarray,
        limits: np.ndarray,
        end_id: int,
    ) -> None:
        """source_lengths: [sentences], without the end; limits: [sentences], the most tokens."""
        self.model, self.state = model, state
        self.rules: list[Rule] = []
        fewest = np.minimum(settings.fewest_tokens(source_lengths), limits - 1)
        if fewest.any():
            self.rules.append(
                _not_too_short(backend_of(state.sentence_ids).asarray(fewest), end_id)
            )
        if self.rules:
            state.keep_ids()

    def __call__(self, ids: Array, k: int) -> tuple[Array, Array]:
        """Append one token to every row; the k likeliest next tokens, or the whole vocabulary.

        ids: [rows]. Returns log-probabilities and token ids, [rows, k] each, best first.
        """
        state = self.state
        if not self.rules:
            return self.model.top_k(ids, state, k)
        assert state.ids is not None
        state.ids[:, state.length] = ids
        log_p = self.model.next_log_p(ids, state)
        chosen = state.ids[:, 1 : state.length]
        prefixes = Prefixes(state.sentence_ids.repeat(state.beam), chosen)
        for rule in self.rules:
            rule(log_p, prefixes)
        return _largest(log_p, k)


def _not_too_short(fewest: Array, end_id: int) -> Rule:
    """No end before a translation has its fewest tokens, [sentences]."""

    def rule(log_p: Array, prefixes: Prefixes) -> None:
        is_short = prefixes.ids.shape[1] < fewest[prefixes.sentence_ids]
        log_p[:, end_id] = array_module(log_p).where(is_short, -math.inf, log_p[:, end_id])

    return rule


def _largest(x: Array, k: int) -> tuple[Array, Array]:
    """The k largest numbers of each row of x [rows, n], and where they are, largest first."""
    xp, k = array_module(x), min(k, x.shape[1])
    where = xp.sort(xp.argpartition(-x, k - 1, axis=1)[:, :k], axis=1)  # of equals, the first
    largest = xp.take_along_axis(x, where, axis=1)
    order = xp.argsort(-largest, axis=1, kind="stable")
    return xp.take_along_axis(largest, order, axis=1), xp.take_along_axis(where, order, axis=1)
