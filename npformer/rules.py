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
        ids: [rows, capacity], the token ids of each, without the begin id; first those so far. None
            if no rule is about them.
        lengths: [rows], as many these are
    """

    sentence_ids: Array
    ids: Array | None
    lengths: Array


Rule = Callable[[Array, Prefixes], None]
"""Changes what is forbidden, [rows, vocabulary]: true for next tokens that must not be chosen."""


def not_too_short(fewest: Array, end_id: int) -> Rule:
    """No end before a translation has its fewest tokens, [sentences]."""

    def rule(forbidden: Array, prefixes: Prefixes) -> None:
        forbidden[:, end_id] |= prefixes.lengths < fewest[prefixes.sentence_ids]

    return rule


def no_ngram_twice(size: int) -> Rule:
    """No `size` tokens in a row that a translation has already."""

    def rule(forbidden: Array, prefixes: Prefixes) -> None:
        ids, lengths = prefixes.ids, prefixes.lengths[:, None]
        assert ids is not None
        xp, (rows, capacity) = array_module(ids), ids.shape
        begins = capacity - size + 1  # as many n-grams there may be
        if begins < 1:
            return
        # Those that begin with the last size - 1 tokens must not come again.
        comes_again = xp.arange(size, capacity + 1) <= lengths
        for i in range(size - 1):
            last = xp.take_along_axis(ids, xp.maximum(lengths - size + 1 + i, 0), axis=1)
            comes_again &= ids[:, i : i + begins] == last
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
    # With a column more: what comes after a prefix is not looked up.
    begin, counts = asarray(np.pad(padded, ((0, 0), (0, 1)))), asarray(lengths)

    def rule(forbidden: Array, prefixes: Prefixes) -> None:
        xp, sentences, n = array_module(forbidden), prefixes.sentence_ids, prefixes.lengths
        is_given = n < counts[sentences]
        given = begin[sentences, xp.minimum(n, begin.shape[1] - 1)]
        others = xp.arange(forbidden.shape[1]) != given[:, None]
        forbidden[...] = xp.where(is_given[:, None], others, forbidden)

    return rule
