"""Which next tokens a search may choose: rules that forbid some, on the model's device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from autograd.backend import Array, array_module, backend_of
from npformer.packed import Packed, unpack


class Prefixes(NamedTuple):
    """The hypotheses that are about to get their next token.

    Attributes:
        sentence_ids: [rows], the index of the sentence that each translates
        ids: [rows, n], the token ids of each so far, without the begin id
    """

    sentence_ids: Array
    ids: Array


Rule = Callable[[Array, Prefixes], None]
"""Changes what is forbidden, [rows, vocabulary]: true for next tokens that must not be chosen."""


def not_too_short(fewest: Array, end_id: int) -> Rule:
    """No end before a translation has its fewest tokens, [sentences]."""

    def rule(forbidden: Array, prefixes: Prefixes) -> None:
        forbidden[:, end_id] |= prefixes.ids.shape[1] < fewest[prefixes.sentence_ids]

    return rule


def no_ngram_twice(size: int) -> Rule:
    """No `size` tokens in a row that a translation has already."""

    def rule(forbidden: Array, prefixes: Prefixes) -> None:
        ids = prefixes.ids
        xp, (rows, n) = array_module(ids), ids.shape
        begins = n - size + 1  # as many n-grams are there
        if begins < 1:
            return
        # Those that begin with the last size - 1 tokens must not come again.
        comes_again = xp.ones((rows, begins), bool)
        for i in range(size - 1):
            comes_again &= ids[:, i : i + begins] == ids[:, begins + i : begins + i + 1]
        # What does not come again falls into a column that is then dropped.
        vocabulary = forbidden.shape[1]
        which = xp.where(comes_again, ids[:, size - 1 :], vocabulary)
        found = xp.zeros((rows, vocabulary + 1), bool)
        found[xp.arange(rows)[:, None], which] = True
        forbidden |= found[:, :vocabulary]

    return rule


def forced(targets: Sequence[Sequence[int]], like: Array) -> Rule:
    """Each translation begins with the given tokens, even if another rule forbids them.

    like: an array of the backend.
    """
    padded, lengths = unpack(Packed.of(targets))
    asarray = backend_of(like).asarray
    begin, counts = asarray(padded.astype(np.int64)), asarray(lengths)

    def rule(forbidden: Array, prefixes: Prefixes) -> None:
        n, xp = prefixes.ids.shape[1], array_module(forbidden)
        if n >= begin.shape[1]:
            return
        is_given = (n < counts)[prefixes.sentence_ids]
        given = begin[prefixes.sentence_ids, n]
        others = xp.arange(forbidden.shape[1]) != given[:, None]
        forbidden[...] = xp.where(is_given[:, None], others, forbidden)

    return rule
