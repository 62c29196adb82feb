"""Pairs of lines that are scored: how likely a model finds the given translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from autograd import to_host
from npformer.batch import Batch
from npformer.errors import UserError
from npformer.translator import Translator
from train.evaluation import Likelihood, joined, likelihood, perplexity
from train.ranks.lines import in_order, shared_batches, shared_sentences
from train.ranks.ranks import Ranks

_TOKENS_SCORED_TOGETHER = 4096


class Pairs:
    """Pairs of lines as token ids.

    With learned positions, some lines may be too long for the model. With "refuse", the pairs end
    before the first such line.

    Attributes:
        source_ids, target_ids: the token ids of each side, without begin and end
        skipped: the indices of pairs that are not scored
        notes: what was done to lines that are too long
        refusal: why the next pair is not among these
    """

    def __init__(
        self,
        translator: Translator,
        sources: Sequence[str],
        targets: Sequence[str],
        long_lines: Literal["cut", "skip", "refuse"] = "refuse",
        first: int = 1,
    ) -> None:
        """first: the number of the first line in its text, for messages."""
        self._tokenizers = translator.tokenizers
        self.source_ids = self._tokenizers.source.encode_lines(sources)
        self.target_ids = self._tokenizers.target.encode_lines(targets)
        self.skipped: set[int] = set()
        self.notes: list[str] = []
        self.refusal: UserError | None = None
        if translator.model.config.positions == "learned":
            self._shorten(translator.model.config.max_length - 1, long_lines, first)

    def _shorten(self, longest: int, long_lines: str, first: int) -> None:
        for i, both in enumerate(zip(self.source_ids, self.target_ids, strict=True)):
            if (length := max(map(len, both))) <= longest:
                continue
            about = (
                f"line {first + i:,} has {length:,} tokens, more than the {longest:,} that the "
                "model has positions for"
            )
            if long_lines == "refuse":
                self.refusal = UserError(
                    f"{about}; shorten it, or have it cut or skipped (--long-lines)"
                )
                del self.source_ids[i:], self.target_ids[i:]
                return
            if long_lines == "skip":
                self.skipped.add(i)
                self.notes.append(f"{about}; it is not scored")
            else:
                self.source_ids[i], self.target_ids[i] = (ids[:longest] for ids in both)
                self.notes.append(f"{about}; the rest is left out")

    def __len__(self) -> int:
        return len(self.source_ids)

    def batch(self, indices: Sequence[int]) -> Batch:
        return Batch.of(
            [self.source_ids[i] for i in indices],
            [self.target_ids[i] for i in indices],
            **self._tokenizers.control_ids,
        )

    def sizes(self) -> list[range]:
        """What pairs are shared out by: as long as both sides of each, and empty if skipped."""
        # With the end token, even two empty lines are a pair of one token each.
        return [
            range(0 if i in self.skipped else len(source) + len(target) + 1)
            for i, (source, target) in enumerate(zip(self.source_ids, self.target_ids, strict=True))
        ]


def likelihood_of(translator: Translator, pairs: Pairs, ranks: Ranks) -> Likelihood:
    """The loss of the model on the given translations, of which each rank takes a share."""
    chosen = shared_batches(pairs.sizes(), _TOKENS_SCORED_TOGETHER, ranks.size)[ranks.rank]
    with ranks.together():
        own = likelihood(translator.model, map(pairs.batch, chosen))
    return joined(ranks.all(own))


def scored(
    translator: Translator,
    pairs: Pairs,
    ranks: Ranks,
    describe: Callable[[int, list[int], list[int]], str] | None = None,
) -> list[str]:
    """A line for each pair, scored alone; an empty one if it is skipped.

    describe: what the line says, of the pair's index and its ids; by default its log probability
    and its perplexity
    """
    shares = shared_sentences(pairs.sizes(), 1, ranks.size)
    lines = []
    with ranks.together():
        for i in shares[ranks.rank]:
            if describe is None:
                # As the search scores them: suppressed tokens count as impossible.
                log_p = to_host(translator.model.target_log_p(pairs.batch([i]))).astype(np.float64)
                lines.append(f"{log_p.sum():.4f}\t{perplexity(-log_p.mean()):.3f}")
            else:
                lines.append(describe(i, pairs.source_ids[i], pairs.target_ids[i]))
    return in_order(shares, ranks.all(lines), len(pairs), "")
