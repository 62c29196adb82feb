"""A step of beam search: from the continuations of a beam to the next beam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from autograd.backend import Array, array_module
from autograd.checks import has_shape, shape_of
from autograd.operation import function


class BeamStep(NamedTuple):
    """What a step of beam search leads to.

    Attributes:
        log_p: [sentences, beam], of the hypotheses of the new beam; -inf where there is none
        ids: [sentences, beam], int32, their last tokens
        found: [sentences, alternatives], the best scores of hypotheses that have ended, best last
        best_log_p: [sentences, count], the best continuations, best first within each group
        best_rows: [sentences, count], the row of the old beam that each continues
        best_ids: [sentences, count], the token of each
        best_coverage: [sentences, count], the coverage penalty of each, if there is one
    """

    log_p: Array
    ids: Array
    found: Array | None
    best_log_p: Array
    best_rows: Array
    best_ids: Array
    best_coverage: Array | None


@function
def beam_step(
    log_p: Array,
    next_log_p: Array,
    next_ids: Array,
    *,
    found: Array | None,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    length: int,
    divisor: float,
    end_id: int,
    groups: int = 1,
    diversity: float = 0.0,
    histories: Sequence[Array] = (),
) -> BeamStep:
    """Choose the hypotheses that go on, and the scores of those that end (section 6.1).

    log_p: [sentences, beam], float64, of the hypotheses. next_log_p and next_ids: [sentences ·
    beam, n], the best next tokens of each. Of each sentence the best continuations count, twice as
    many as the beam; those that have not ended become the new beam, and those that have are scored:
    log P / `divisor`, plus coverage: [sentences, beam], the penalty of the hypothesis that is
    continued. A NaN counts as -inf.

    A sentence is over, and loses all hypotheses, when it has `length` tokens and limits:
    [sentences] allows no more, or when none of its hypotheses can reach a better score than the
    worst in `found`. log P only decreases, the length penalty is largest at the limit, where it is
    divisors: [sentences], and the coverage penalty is at most 0. Without `found`, no scores are
    kept, and a sentence goes on as long as it has a hypothesis.

    groups: the beam is divided into as many; one after the other chooses from its continuations,
    and a token loses `diversity` for each hypothesis of an earlier group that it was chosen for.
    histories: [sentences · beam, ...] each, what is kept of every hypothesis; reordered in place as
    the new beam continues the old one.
    """
    xp, (running, beam) = array_module(log_p), log_p.shape
    n = next_ids.shape[1]
    each = xp.arange(running)[:, None]
    of_next = xp.fmax((log_p.reshape(-1, 1) + next_log_p).reshape(running, -1), -math.inf)
    ids = next_ids.reshape(running, -1)
    if groups == 1:
        best = xp.argsort(-of_next, axis=1, kind="stable")[:, : 2 * beam]
    else:
        best = _best_of_groups(of_next, ids, end_id, beam // groups, groups, diversity)
    best_log_p, best_rows, best_ids = of_next[each, best], best // n, ids[each, best]
    best_coverage = None if coverage is None else coverage[each, best_rows]

    ends = best_ids == end_id
    if found is not None:
        scores = best_log_p / divisor
        scores = scores if best_coverage is None else scores + best_coverage
        more = xp.concatenate([found, xp.where(ends, scores, -math.inf)], axis=1)
        found = xp.sort(more, axis=1)[:, -found.shape[1] :]

    alive = survivors(best_ids, end_id, beam, groups)
    rows = (each * beam + best_rows[each, alive]).reshape(-1)
    for x in histories:
        x[...] = x[rows]
    log_p = xp.where(ends, -math.inf, best_log_p)[each, alive]
    highest = log_p.max(axis=1)
    is_over = highest == -math.inf if found is None else found[:, 0] >= highest / divisors
    is_over = is_over | (limits <= length)
    log_p = xp.where(is_over[:, None], -math.inf, log_p)
    ids = best_ids[each, alive].astype(np.int32)
    return BeamStep(log_p, ids, found, best_log_p, best_rows, best_ids, best_coverage)


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
    found: Array | None,
    coverage: Array | None = None,
    limits: Array,
    divisors: Array,
    groups: int = 1,
    **_: object,
) -> None:
    shape, of_next = shape_of(log_p), shape_of(next_log_p)
    if len(shape) != 2 or len(of_next) != 2 or of_next[0] != shape[0] * shape[1]:
        raise ValueError(
            f"beam_step: log_p {shape} and next_log_p {of_next} do not match, [sentences, beam] "
            "and [sentences · beam, n]"
        )
    has_shape("beam_step: next_ids", next_ids, of_next, "that of next_log_p")
    if groups < 1 or shape[1] % groups:
        raise ValueError(f"beam_step: groups must divide the beam, {shape[1]}, got {groups}")
    if found is not None and (len(shape_of(found)) != 2 or len(found) != shape[0]):
        raise ValueError(
            f"beam_step: found {shape_of(found)} is not [sentences, alternatives] of {shape[0]} "
            "sentences"
        )
    if coverage is not None:
        has_shape("beam_step: coverage", coverage, shape, "[sentences, beam]")
    has_shape("beam_step: limits", limits, shape[:1], "[sentences]")
    has_shape("beam_step: divisors", divisors, shape[:1], "[sentences]")
