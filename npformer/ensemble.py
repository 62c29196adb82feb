"""Several models that translate together, by the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from autograd import ParameterBuffer, Tensor, array_module
from autograd.backend import Array
from npformer.batch import Batch
from npformer.decoder import DecoderState, Empty, Room
from npformer.packed import Packed
from npformer.shortlist import Candidates
from npformer.transformer import Transformer


class EnsembleState:
    """The states of several models that decode the same hypotheses."""

    def __init__(self, states: Sequence[DecoderState], weights: Sequence[float]) -> None:
        self.states, self.weights = states, weights

    @property
    def sentence_ids(self) -> Array:
        """[running], the indices of the running sentences."""
        return self.states[0].sentence_ids

    @property
    def beam(self) -> int:
        """Hypotheses of each sentence."""
        return self.states[0].beam

    @property
    def lengths(self) -> Array:
        """[rows], the tokens of each row so far."""
        return self.states[0].lengths

    @property
    def ids(self) -> Array | None:
        """[rows, capacity], the ids of the tokens so far, if they are kept."""
        return self.states[0].ids

    @property
    def memory_lengths(self) -> Array:
        """[running], their source lengths."""
        return self.states[0].memory_lengths

    @property
    def coverage(self) -> Array | None:
        """[rows, longest], the mean of what the models have of it, if it is kept."""
        each = [state.coverage for state in self.states]
        if each[0] is None:
            return None
        mean: Array = sum(w * x for w, x in zip(self.weights, each, strict=True))  # type: ignore
        return mean

    @property
    def tokens(self) -> list[Array]:
        """What is kept of each token of a hypothesis, [rows, capacity] each, to be reordered."""
        return [x for state in self.states for x in state.tokens]

    @property
    def histories(self) -> list[Array]:
        """What is kept of each hypothesis besides, [rows, ...] each, to be reordered in place."""
        return [history for state in self.states for history in state.histories]

    def keep_coverage(self) -> None:
        """Keep the sum of the cross-attention of each model, from the first step on."""
        for state in self.states:
            state.keep_coverage()

    @property
    def nbytes(self) -> int:
        """The memory of all their arrays."""
        return sum(state.nbytes for state in self.states)

    def keep_ids(self) -> None:
        """Keep the ids of the tokens in `ids`, from the first step on."""
        self.states[0].keep_ids()

    def keep(self, running: Array) -> None:
        """Keep only these of the running sentences, in this order; running: [kept]."""
        for state in self.states:
            state.keep(running)


class Ensemble:
    """Models with one vocabulary, as one model for `search`: the mean of their probabilities.

    They may differ in everything else.

    Attributes:
        config: that of the first model, with positions for as many tokens as all models have,
            sentences as long as all of them know, the tokens that all suppress, and without label
            smoothing, because an ensemble is not trained
    """

    def __init__(
        self, models: Sequence[Transformer], weights: Sequence[float] | None = None
    ) -> None:
        """weights: of the mean, in any proportion; by default the same for each.

        Raises ValueError if the models' vocabularies differ in size, or for invalid weights.
        """
        sizes = {(m.config.source_vocab_size, m.config.vocab_size) for m in models}
        if len(sizes) != 1:
            raise ValueError(f"models of one vocabulary are needed, got the sizes {sorted(sizes)}")
        given = [1.0] * len(models) if weights is None else [float(w) for w in weights]
        if len(given) != len(models):
            raise ValueError(f"{len(models)} models need as many weights, got {len(given)}")
        if not all(0 < w < math.inf for w in given):
            raise ValueError(f"weights must be positive numbers, got {given}")
        self.models = list(models)
        parts = [w / max(given) for w in given]  # their sum is finite
        self.weights = [part / sum(parts) for part in parts]
        learned = [m.config for m in models if m.config.positions == "learned"]
        longest = [m.config.longest for m in models if m.config.longest]
        self.config = replace(
            models[0].config,
            positions=learned[0].positions if learned else models[0].config.positions,
            max_length=min(config.max_length for config in learned or [m.config for m in models]),
            longest=min(longest, default=None),
            suppressed_ids=tuple(
                sorted(set.intersection(*(set(m.config.suppressed_ids) for m in models)))
            ),
            smoothing=0.0,
        )

    @property
    def buffer(self) -> ParameterBuffer:
        """The parameters of the first model: all are on the same backend."""
        return self.models[0].buffer

    def state_for(self, room: Room, empty: Empty) -> EnsembleState:
        """As `Transformer.state_for`, of each model."""
        return EnsembleState([model.state_for(room, empty) for model in self.models], self.weights)

    def begin(
        self, state: EnsembleState, source: Packed, candidates: Candidates | None = None
    ) -> None:
        """As `Transformer.begin`, of each model."""
        for model, own in zip(self.models, state.states, strict=True):
            model.begin(own, source, candidates)

    def next_log_p(self, ids: Array, state: EnsembleState) -> Array:
        """As `Transformer.next_log_p`: [rows, vocabulary]."""
        return self._mean(
            [m.next_log_p(ids, own) for m, own in zip(self.models, state.states, strict=True)]
        )

    def target_log_p(self, batch: Batch) -> Array:
        """As `Transformer.target_log_p`: [target tokens]."""
        return self._mean([model.target_log_p(batch) for model in self.models])

    def prepared(self, batch: Batch) -> Batch:
        """As `Transformer.prepared`."""
        return self.models[0].prepared(batch)

    def losses(self, batch: Batch) -> tuple[Tensor, Array]:
        """The cross-entropy of the targets, summed, in nats; twice, as there is no smoothing."""
        nll = -self.target_log_p(batch).sum()
        return Tensor(nll), nll

    def _mean(self, log_p: Sequence[Array]) -> Array:
        """The logarithm of the mean of probabilities, of which the logarithms are given."""
        xp = array_module(log_p[0])
        # A weight that is nothing beside another has been rounded to 0.
        logs = [math.log(weight) if weight else -math.inf for weight in self.weights]
        each = [x + log for x, log in zip(log_p, logs, strict=True)]
        highest = each[0]
        for x in each[1:]:
            highest = xp.maximum(highest, x)
        highest = xp.where(highest > -math.inf, highest, 0.0)  # -inf - -inf would be NaN
        total: Any = sum(xp.exp(x - highest) for x in each)
        is_possible = total > 0
        mean: Array = highest + xp.log(xp.where(is_possible, total, 1.0))
        return xp.where(is_possible, mean, -math.inf)
