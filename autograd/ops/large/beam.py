"""A step of beam search: from the continuations of a beam to the next beam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import are_rows, are_within, has_shape, shape_of
from autograd.operation import function


class Trace(NamedTuple):
    """The best continuations of the hypotheses of each step of a search, best first in a group.

    Attributes:
        log_p: [steps, sentences, count], float64, their log-probabilities; -inf for no hypothesis
        rows: [steps, sentences, count], int32, the row of the beam that each continues
        ids: [steps, sentences, count], int32, the token of each
        coverage: [steps, sentences, count], the coverage penalty of each, if there is one
    """

    log_p: Array
    rows: Array
    ids: Array
    coverage: Array | None = None


@function
def beam_step(
    log_p: Array,
    next_log_p: Array,
    next_ids: Array,
    *,
    ids: Array,
    found: Array | None,
    until_full: bool = False,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    lengths: Array,
    end_id: int,
    groups: int = 1,
    diversity: float = 0.0,
    tokens: Sequence[Array] = (),
    histories: Sequence[Array] = (),
    trace: Trace,
    sentence_ids: Array,
) -> None:
    """Choose the hypotheses that go on, and the scores of those that end (section 6.1).

    The beam becomes the next one in place. log_p: [sentences, beam], float64, of the hypotheses,
    best first; -inf where there is none. ids: [sentences, beam], int32, gets their last tokens.
    next_log_p and next_ids: [sentences · beam, n], the best next tokens of each. Of each sentence
    the best continuations count, twice as many as the beam; those that have not ended become the
    new beam, and those that have are scored: log P, divided by the length penalty of its length,
    divisors: [longest + 1], plus coverage: [sentences, beam], the penalty of the hypothesis that is
    continued. The best scores are kept in found: [sentences, kept], best last. A NaN counts as
    -inf.

    lengths: [sentences · beam], the tokens of each new hypothesis. A sentence is over, and loses
    all hypotheses, when it has as many tokens as limits: [sentences] allows, or when none of its
    hypotheses can reach a better score than the worst in `found`: log P only decreases, the length
    penalty is largest at the limit, and the coverage penalty is at most 0. With `until_full`, it is
    over as soon as `found` has all scores that it has room for; those count that end among the
    first of the best, as many as the beam has. Without `found`, no scores are kept, and a sentence
    goes on as long as it has a hypothesis.

    groups: the beam is divided into as many; one after the other chooses from its continuations,
    and a token loses `diversity` for each hypothesis of an earlier group that it was chosen for.
    What is kept of every hypothesis is reordered in place as the new beam continues the old one:
    tokens: [sentences · beam, capacity] each, of which only the first `lengths` are, and histories:
    [sentences · beam, ...] each. The trace gets the best continuations, at their length less 1 and
    at sentence_ids: [sentences], the places that the sentences have there.
    """
    xp, (running, beam) = array_module(log_p), log_p.shape
    n = next_ids.shape[1]
    each, length = xp.arange(running)[:, None], lengths[::beam]
    of_next = xp.fmax((log_p.reshape(-1, 1) + next_log_p).reshape(running, -1), -math.inf)
    of_ids = next_ids.reshape(running, -1)
    if groups == 1:
        best = xp.argsort(-of_next, axis=1, kind="stable")[:, : 2 * beam]
    else:
        best = _best_of_groups(of_next, of_ids, end_id, beam // groups, groups, diversity)
    best_log_p, best_rows, best_ids = of_next[each, best], best // n, of_ids[each, best]
    best_coverage = None if coverage is None else coverage[each, best_rows]
    columns = best_log_p, best_rows, best_ids, best_coverage
    for x, column in zip(trace, columns, strict=True):
        if x is not None:
            x[length - 1, sentence_ids] = column

    ends = best_ids == end_id
    if found is not None:
        scores = best_log_p / divisors[length][:, None]
        scores = scores if best_coverage is None else scores + best_coverage
        is_first = xp.arange(best.shape[1]) % (best.shape[1] // groups) < beam // groups
        counts = ends & is_first if until_full else ends
        more = xp.concatenate([found, xp.where(counts, scores, -math.inf)], axis=1)
        found[...] = xp.sort(more, axis=1)[:, -found.shape[1] :]

    alive = survivors(best_ids, end_id, beam, groups)
    rows = (each * beam + best_rows[each, alive]).reshape(-1)
    for x in tokens:
        x[...] = xp.where(xp.arange(x.shape[1]) < lengths[:, None], x[rows], x)
    for x in histories:
        x[...] = x[rows]
    log_p[...] = xp.where(ends, -math.inf, best_log_p)[each, alive]
    highest = log_p.max(axis=1)
    if found is None:
        is_over = highest == -math.inf
    elif until_full:
        is_over = found[:, 0] > -math.inf
    else:
        is_over = found[:, 0] >= highest / divisors[limits]
    is_over = is_over | (limits <= length)
    log_p[...] = xp.where(is_over[:, None], -math.inf, log_p)
    ids[...] = best_ids[each, alive]


def count_of_best(beam: int, n: int, groups: int = 1) -> int:
    """How many continuations count in a step, of n of each hypothesis: those of a trace."""
    return groups * min(beam * n // groups, 2 * (beam // groups))


def _best_of_groups(
    log_p: Array, ids: Array, end_id: int, of_group: int, groups: int, diversity: float
) -> Array:
    """[sentences, count]: the best continuations of each group, one group after the other.

    log_p and ids: [sentences, beam · n]. of_group: hypotheses of a group.
    """
    # Twice the beam of each row is enough: all groups before the last choose less than the beam,
    # and so take no more tokens from their places.
    xp, width = array_module(log_p), ids.shape[1] // groups
    each = xp.arange(len(ids))[:, None]
    best: list[Array] = []
    chosen: list[Array] = []
    for begin in range(0, ids.shape[1], width):
        own, tokens = log_p[:, begin : begin + width], ids[:, begin : begin + width]
        merit = own
        for token in chosen:
            merit = merit - diversity * (tokens == token)
        order = xp.argsort(-merit, axis=1, kind="stable")[:, : 2 * of_group]
        alive = survivors(tokens[each, order], end_id, of_group)
        alive = xp.take_along_axis(order, alive, axis=1)
        taken = xp.where(own[each, alive] > -math.inf, tokens[each, alive], -1)
        chosen += [taken[:, i : i + 1] for i in range(of_group)]
        best.append(order + begin)
    return xp.concatenate(best, axis=1)


def survivors(ids: Array, end_id: int, beam: int, groups: int = 1) -> Array:
    """[..., beam]: the indices of the best continuations that do not end; ids: [..., count].

    groups: as many parts of the continuations, one after the other, give the same number.
    """
    xp, (*outer, count) = array_module(ids), ids.shape
    ends = (ids == end_id).astype(np.int8).reshape(*outer, groups, count // groups)
    best = xp.argsort(ends, axis=-1, kind="stable")[..., : beam // groups]  # still best first
    first = xp.arange(groups)[:, None] * (count // groups)
    return (best + first).reshape(*outer, beam)


@beam_step.checked
def _check(
    log_p: Array,
    next_log_p: Array,
    next_ids: Array,
    *,
    ids: Array,
    found: Array | None,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    lengths: Array,
    groups: int = 1,
    tokens: Sequence[Array] = (),
    trace: Trace,
    sentence_ids: Array,
    **_: object,
) -> None:
    shape, of_next = shape_of(log_p), shape_of(next_log_p)
    if len(shape) != 2 or len(of_next) != 2 or of_next[0] != shape[0] * shape[1]:
        raise ValueError(
            f"beam_step: log_p {shape} and next_log_p {of_next} do not match, [sentences, beam] "
            "and [sentences · beam, n]"
        )
    has_shape("beam_step: ids", ids, shape, "[sentences, beam]")
    has_shape("beam_step: next_ids", next_ids, of_next, "that of next_log_p")
    if groups < 1 or shape[1] % groups:
        raise ValueError(f"beam_step: groups must divide the beam, {shape[1]}, got {groups}")
    if found is not None and (len(shape_of(found)) != 2 or len(found) != shape[0]):
        raise ValueError(
            f"beam_step: found {shape_of(found)} is not [sentences, kept] of {shape[0]} sentences"
        )
    if coverage is not None:
        has_shape("beam_step: coverage", coverage, shape, "[sentences, beam]")
    has_shape("beam_step: limits", limits, shape[:1], "[sentences]")
    has_shape("beam_step: lengths", lengths, of_next[:1], "[sentences · beam]")
    capacity, places = (*shape_of(trace.log_p), 0, 0)[:2]
    best = capacity, places, count_of_best(shape[1], of_next[1], groups)
    for name, x in trace._asdict().items():
        if x is not None:
            has_shape(f"beam_step: trace.{name}", x, best, "[steps, sentences, count]")
    are_rows("beam_step: sentence_ids", sentence_ids, shape[:1], "[sentences]", places)
    if (trace.coverage is None) != (coverage is None):
        raise ValueError("beam_step: the trace has coverage if the hypotheses have, and only then")
    for x in tokens:
        if len(shape_of(x)) != 2 or len(x) != of_next[0]:
            raise ValueError(
                f"beam_step: tokens {shape_of(x)} are not [sentences · beam, capacity] of "
                f"{of_next[0]} hypotheses"
            )
    most = min([capacity, *(x.shape[1] for x in tokens)])
    are_within("beam_step: lengths", lengths, 1, most)
    are_within("beam_step: limits", limits, 0, shape_of(divisors)[0] - 1)
