"""Shortlists of the target vocabulary: for each sentence, the tokens that may translate it.

Most of the time of a small model's step goes to the projection to the vocabulary, of which a
sentence needs few tokens. Devlin (2017) and Marian take them from a lexicon of the training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npformer.config import TransformerConfig
from npformer.packed import Packed


class Candidates(NamedTuple):
    """The target tokens that the sentences of a batch may be translated with.

    Attributes:
        ids: [tokens], token ids, ascending: the candidates of all sentences, and a few others
        allowed: [sentences, tokens], bool: which are candidates for which sentence
    """

    ids: NDArray[np.int64]
    allowed: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shortlist:
    """The target tokens that each source token may be translated with.

    A sentence has the candidates of its tokens, and those of every sentence. What is beside it in
    a batch gives it no more.

    Attributes:
        always: [n], int32, the token ids that are candidates for every sentence, ascending
        of_source: sentence i of these is the candidates for source token i, int32
        vocab_size: of the target
    """

    always: NDArray[np.int32]
    of_source: Packed
    vocab_size: int

    def check_sizes(self, config: TransformerConfig) -> None:
        """Raise ValueError unless the model's vocabularies have the sizes of this."""
        own = len(self.of_source), self.vocab_size
        if own != (config.source_vocab_size or config.vocab_size, config.vocab_size):
            raise ValueError(
                f"the shortlist is of {own[0]:,} source and {own[1]:,} target tokens, and the "
                f"model has {config.source_vocab_size or config.vocab_size:,} and "
                f"{config.vocab_size:,}"
            )

    def candidates(
        self, source: Packed, prefixes: Sequence[Sequence[int]] | None = None, least: int = 1
    ) -> Candidates:
        """The candidates of a batch; source: packed token ids.

        prefixes: for each sentence what its translations begin with, which it may then hold. There
        are at least `least` ids, if the vocabulary has as many.
        """
        sentence_ids = np.repeat(np.arange(len(source)), source.lengths)
        own = self.of_source.take(source.tokens)
        owners = [sentence_ids.repeat(own.lengths)]
        tokens: list[NDArray[Any]] = [own.tokens]
        if prefixes is not None:
            begun = Packed.of(prefixes)
            owners.append(np.repeat(np.arange(len(source)), begun.lengths))
            tokens.append(begun.tokens)
        rows, columns = np.concatenate(owners), np.concatenate(tokens)

        is_candidate = np.zeros(self.vocab_size, bool)
        is_candidate[self.always] = is_candidate[columns] = True
        missing = _recurring(max(least, int(is_candidate.sum()))) - int(is_candidate.sum())
        is_candidate[np.flatnonzero(~is_candidate)[:missing]] = True
        ids = np.flatnonzero(is_candidate)  # int64, as top_k returns them
        place = is_candidate.cumsum() - 1  # of each id among the candidates
        allowed = np.zeros((len(source), len(ids)), bool)
        allowed[:, place[self.always]] = True
        allowed[rows, place[columns]] = True
        return Candidates(ids, allowed)


def _recurring(number: int) -> int:
    """The next of some sizes, so that what was recorded or compiled for it serves again."""
    step = 1 << max(4, number.bit_length() - 3)
    return -(-number // step) * step
