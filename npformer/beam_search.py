"""Greedy and beam search for the best translation (section 6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from autograd.backend import backend_of
from npformer.beam import Beam, SampledBeam, Watch, divisors_of
from npformer.decoder import Room
from npformer.ensemble import Ensemble
from npformer.errors import UserError
from npformer.hypotheses import Hypothesis, read_back
from npformer.packed import Packed
from npformer.recorded_steps import is_recorded, rounded_up
from npformer.search_settings import SearchSettings
from npformer.shortlist import Shortlist
from npformer.transformer import Transformer

_PAPERS = SearchSettings()


def search(
    model: Transformer | Ensemble,
    source: Packed,
    settings: SearchSettings = _PAPERS,
    begin_id: int = 1,
    end_id: int = 2,
    *,
    prefixes: Sequence[Sequence[int]] | None = None,
    streams: Sequence[int] | None = None,
    shortlist: Shortlist | None = None,
    watch: Watch | None = None,
) -> list[list[Hypothesis]]:
    """The best translations of each source sentence, best first.

    source: packed token ids, each sentence followed by the end id. prefixes: for each sentence the
    token ids that its translations begin with. streams: for each sentence a number of 64 bits that
    what is drawn for it depends on, by default its index. shortlist: where the only tokens that a
    translation may have come from; the others then have no probability. If no hypothesis of a
    sentence ends within its limit, the best unfinished ones are returned.

    The search runs on the model's device. Every few steps the host asks which sentences are done,
    and drops them; it fetches the hypotheses at the end. watch: called whenever it asks, with the
    indices of the sentences that run, [running], and the trace so far; returns [running], true for
    those to be given up. These have the translations that have ended by then, or none.
    """
    limits = _limits(model, source, settings, prefixes)
    longest = int(limits.max(initial=0))
    candidates = None
    if shortlist is not None:
        shortlist.check_sizes(model.config)
        candidates = shortlist.candidates(source, prefixes, least=2 * settings.rows)
    tokens = None if candidates is None else len(candidates.ids)
    room = Room(len(source), settings.rows, max(longest, 1), source.sentences.longest, tokens)
    with _beam_for(model, room, settings, end_id) as live:
        live.begin(model, source, limits, settings, begin_id, prefixes, streams, candidates)
        steps = 0
        while steps < longest:
            live.step()
            steps += 1
            if steps % live.steps_between_checks == 0:
                running = live.drop_finished(steps, watch)
                longest = int(limits[running].max(initial=0))
        trace = live.traced(steps, len(source))
        live.end()
    return read_back(trace, divisors_of(settings, steps), limits, end_id, settings)


@contextmanager
def _beam_for(
    model: Transformer | Ensemble,
    room: Room,
    settings: SearchSettings,
    end_id: int,
) -> Iterator[Beam]:
    """A beam that has the room, at least: an earlier one, or a new one."""
    if not is_recorded(model, settings, room):
        yield (SampledBeam if settings.sampling else Beam)(model, room, settings, end_id)
        return
    assert isinstance(model, Transformer)
    backend, room = backend_of(model.buffer.values), rounded_up(room, model)
    kind = (
        *(room.beam, room.tokens is None, settings.stop, settings.alternatives),
        *(settings.groups, settings.diversity, end_id),
    )

    def make(relative: Beam | None) -> Beam:
        recorder = relative.recorder.another() if relative else backend.recorder()
        return Beam(model, room, settings, end_id, recorder)

    with model.searches.taken(room, kind, model.recorded_from, make) as live:
        yield live


def _limits(
    model: Transformer | Ensemble,
    source: Packed,
    settings: SearchSettings,
    prefixes: Sequence[Sequence[int]] | None,
) -> np.ndarray:
    """[sentences]: the most tokens that each translation may have, including the end."""
    limits = settings.most_tokens(source.lengths - 1)
    if prefixes is not None:
        given = np.array([len(prefix) for prefix in prefixes], limits.dtype)
        limits = np.maximum(limits, given + 1)
    if model.config.positions == "learned":
        limits = np.minimum(limits, model.config.max_length)
        if prefixes is not None and (given >= limits).any():
            raise UserError(
                f"a prefix has {given.max()} tokens, and the model has learned {limits.max()} "
                "positions, of which the first token after it takes one"
            )
    return limits
