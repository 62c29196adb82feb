"""Which searches have their steps recorded and kept for the next one, and the sizes they share.

A recording is made for one number of rows and one set of arrays. So the arrays of a search have one
of few sizes, in which a search may have less; they and the recordings are kept with the model
(`Transformer.searches`), and the next search of that size replays from its first step. For the same
reason the sentences that run have one of few numbers: some that are done are carried along. What is
not there counts for nothing: no loop and no kernel reads beyond the lengths that arrays say. Only
the number of rows may change the last bits of a product, as it does without recordings.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd.backend import Backend, backend_of
from autograd.operation import are_calls_observed
from npformer.decoder import Room
from npformer.ensemble import Ensemble
from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer

# Of a step on a CPU: with more, Python takes less of its time than memory that is never hot, as all
# that a recording writes has a place of its own.
_MOST_PRODUCTS = 1 << 31
_LEAST = 32  # tokens: so many cost little
_OWN = Transformer.step, Transformer.top_k  # a subclass's may do what cannot be replayed


def is_recorded(model: Transformer | Ensemble, settings: SearchSettings, room: Room) -> bool:
    """Whether the steps of a search are recorded; others run as they are.

    Recorded are greedy and beam search, with a length penalty and with groups. Repeated n-grams,
    coverage, samples and ensembles take the probabilities of the whole vocabulary through array
    code that no backend replays, and float64 is for proofs. So do a least length and prefixes, but
    only in the first steps, which run as they are. An attention of one's own is recorded with the
    rest, if its `step` asks for nothing but what can be: see `Backend.record`.
    """
    backend = backend_of(model.buffer.values)
    return (
        backend.records
        and isinstance(model, Transformer)
        and (type(model).step, type(model).top_k) == _OWN
        and model.buffer.values.dtype == np.float32
        and not (settings.sampling or settings.no_repeat_ngram or settings.coverage_penalty)
        and room.sentences > 0
        and not are_calls_observed()
        and (
            _waits(backend)
            or (
                _is_replayable(model)
                and room.sentences * room.beam * model.multiplied_by_a_row <= _MOST_PRODUCTS
                and _can_be_kept(model, rounded_up(room, model))
            )
        )
    )


def _is_replayable(model: Transformer) -> bool:
    """Whether all parts are npformer's, or say that they are replayable.

    On a CPU, a decision on the host leaves no trace: see `npformer.attention`.
    """
    return all(
        part is None or type(part).__module__.startswith("npformer.") or _says_so(part)
        for part in model.parts_of_a_step
    )


def _says_so(part: Any) -> bool:
    return getattr(part, "is_replayable", False) is True


def _can_be_kept(model: Transformer, room: Room) -> bool:
    """Whether a search of this size, and another beside it, leave something to the next ones."""
    numbers = sum(  # of keys and values, of the hypotheses and of their source
        columns * (room.beam * tokens + room.longest)
        for tokens, columns in model.cache_shapes(room)
    )
    in_all = room.sentences * numbers * np.dtype(np.float32).itemsize
    return 2 * in_all <= backend_of(model.buffer.values).most_kept_bytes


def _waits(backend: Backend) -> bool:
    """Whether asking which sentences are done means waiting for a device."""
    return backend.steps_between_checks > 1


def rounded_up(room: Room, model: Transformer) -> Room:
    """The room of all searches that share recordings with one that needs `room`."""
    capacity = coarse(max(room.capacity, _LEAST), 2)
    if model.config.positions == "learned":  # there are no others
        capacity = min(capacity, max(model.config.max_length, room.capacity))
    return Room(
        coarse(room.sentences, 4 if _waits(backend_of(model.buffer.values)) else 1),
        room.beam,
        capacity,
        coarse(max(room.longest, _LEAST), 2),
        room.tokens,
    )


def carried(running: int, backend: Backend) -> int:
    """The sentences of a recorded step when so many run: those that are done fill up.

    Where asking which are done costs nothing, there are few of these.
    """
    return coarse(running, 4 if _waits(backend) else 8)


def coarse(n: int, of_octave: int) -> int:
    """The next number, from n on, of those of which so many lie between two powers of two."""
    unit = max(1, (1 << max(n - 1, 0).bit_length()) // (2 * of_octave))
    return -(-n // unit) * unit
