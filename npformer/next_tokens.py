"""The next tokens of each hypothesis: the likeliest that are allowed, or some drawn at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from autograd import ops
from autograd.backend import Array, array_module, backend_of
from npformer.decoder import DecoderState
from npformer.ensemble import Ensemble, EnsembleState
from npformer.rules import Prefixes, Rule, forced, no_ngram_twice, not_too_short
from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer


class NextTokens:
    """The likeliest next tokens of each row, among those that all rules allow.

    Their log-probabilities are the model's: what is not allowed gives nothing to the others. So the
    score of a translation is the same whether it was chosen freely or not. Where a rule would leave
    no token for any hypothesis of a sentence, it gives way, the one against repeated n-grams first;
    so there is a translation whatever the rules. Without rules, and after the last token that one
    is about, the model selects the likeliest itself, without keeping the probabilities of all.
    """

    def __init__(
        self,
        model: Transformer | Ensemble,
        state: DecoderState | EnsembleState,
        settings: SearchSettings,
        source_lengths: np.ndarray,
        limits: np.ndarray,
        end_id: int,
        prefixes: Sequence[Sequence[int]] | None,
    ) -> None:
        """source_lengths: [sentences], without the end; limits: [sentences], the most tokens."""
        self.model: Any = model  # of a kind with its state
        self.state = state
        self.rules: list[Rule] = []  # the last ones give way first
        self.forced: Rule | None = None
        # Hypotheses that are drawn do not compete: each must go on by itself.
        self.competing = 1 if settings.sampling else settings.rows
        asarray = backend_of(state.sentence_ids).asarray
        fewest = np.zeros(len(state.sentence_ids), np.int64)  # there is room for more sentences
        fewest[: len(limits)] = np.minimum(settings.fewest_tokens(source_lengths), limits - 1)
        # The steps so far, and how many need the probabilities of all tokens.
        self._steps, self._of_all = 0, float(fewest.max(initial=0))
        if self._of_all:
            self.rules.append(not_too_short(asarray(fewest), end_id))
        if settings.no_repeat_ngram:
            self.rules.append(no_ngram_twice(settings.no_repeat_ngram))
            state.keep_ids()
            self._of_all = math.inf
        if prefixes is not None:
            others = [()] * (len(fewest) - len(prefixes))
            self.forced = forced([*prefixes, *others], state.sentence_ids)
            self._of_all = max([self._of_all, *map(len, prefixes)])
        if settings.sampling or isinstance(state, EnsembleState):
            self._of_all = math.inf
        elif self._of_all < math.inf:
            state.pack_projection()

    @property
    def of_all(self) -> bool:
        """Whether the next step needs the probabilities of all tokens: for a rule, say."""
        return self._steps < self._of_all

    def __call__(self, ids: Array, k: int, log_p: Array) -> tuple[Array, Array]:
        """Append one token to every row; the k likeliest next tokens, or the whole vocabulary.

        ids: [rows]. log_p: [rows], of the hypotheses so far; -inf for rows that hold none. Returns
        log-probabilities and token ids, [rows, k] each, best first.
        """
        if not self.of_all:
            next_log_p, next_ids = self.model.top_k(ids, self.state, k)
            return next_log_p, next_ids
        self._steps += 1
        of_all, where = ops.largest(self._allowed(ids, log_p > -math.inf), k=k)
        return of_all, where

    def _allowed(self, ids: Array, alive: Array) -> Array:
        """[rows, vocabulary]: the log-probability of every next token, -inf if it is forbidden."""
        state = self.state
        xp = array_module(ids)
        if state.ids is not None:
            state.ids[xp.arange(len(ids)), state.lengths] = ids
        log_p: Array = self.model.next_log_p(ids, state)
        if not self.rules and self.forced is None:
            return log_p
        sentence_ids = state.sentence_ids.repeat(state.beam)
        so_far = None if state.ids is None else state.ids[:, 1:]
        prefixes = Prefixes(sentence_ids, so_far, state.lengths - 1)
        forbidden = xp.zeros(log_p.shape, bool)
        for rule in self.rules:
            more = forbidden.copy()
            rule(more, prefixes)
            best = xp.where(more, -math.inf, log_p).max(axis=1)
            goes_on = ((best > -math.inf) & alive).reshape(-1, self.competing).any(axis=1)
            forbidden = xp.where(goes_on.repeat(self.competing)[:, None], more, forbidden)
        if self.forced:
            self.forced(forbidden, prefixes)
        allowed: Array = xp.where(forbidden, -math.inf, log_p)
        return allowed
