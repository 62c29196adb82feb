"""Which searches have their steps recorded and kept for the next one, and the sizes they share.

A recording is made for one number of rows and one set of arrays. So the arrays of a search have one
of few sizes, in which a search may have less; they and the recordings are kept with the model
(`Transformer.searches`), and the next search of that size replays from its first step. What is not
there counts for nothing: no loop and no kernel reads beyond the lengths that arrays say. Only the
number of rows may change the last bits of a product, as it does without recordings.
"""

from __future__ import annotations

import numpy as np

from autograd.backend import backend_of
from autograd.operation import are_calls_observed
from npformer.decoder import Room
from npformer.ensemble import Ensemble
from npformer.search_settings import SearchSettings
from npformer.transformer import Transformer

# Where asking which sentences are done costs nothing, they are dropped as soon as they end, and a
# step of more rows takes long beside its calls.
_MOST_ROWS = 32
_LEAST = 32  # tokens: so many cost little
_OWN = Transformer.step, Transformer.top_k  # a subclass's may do what cannot be replayed


def is_recorded(
    model: Transformer | Ensemble, settings: SearchSettings, sentences: int, has_prefixes: bool
) -> bool:
    """Whether the steps of a search are recorded; others run as they are.

    Recorded are greedy and beam search, with a length penalty and with groups. Rules about the next
    token, prefixes, coverage, samples and ensembles take the probabilities of the whole vocabulary
    through array code that no backend replays, and float64 is for proofs. An attention of one's own
    is recorded with the rest, if its `step` asks for nothing but what can be: see
    `Backend.record`.
    """
    backend = backend_of(model.buffer.values)
    has_rules = (
        has_prefixes
        or settings.no_repeat_ngram
        or settings.min_length
        or settings.min_ratio
        or settings.coverage_penalty
    )
    return (
        backend.records
        and isinstance(model, Transformer)
        and (type(model).step, type(model).top_k) == _OWN
        and model.buffer.values.dtype == np.float32
        and not (settings.sampling or has_rules)
        and sentences > 0
        and (_waits(model) or sentences * settings.rows <= _MOST_ROWS)
        and not are_calls_observed()
    )


def _waits(model: Transformer | Ensemble) -> bool:
    """Whether asking which sentences are done means waiting for a device."""
    return backend_of(model.buffer.values).steps_between_checks > 1


def rounded_up(room: Room, model: Transformer) -> Room:
    """The room of all searches that share recordings with one that needs `room`."""
    capacity = coarse(max(room.capacity, _LEAST), 2)
    if model.config.positions == "learned":  # there are no others
        capacity = min(capacity, max(model.config.max_length, room.capacity))
    return Room(
        coarse(room.sentences) if _waits(model) else room.sentences,
        room.beam,
        capacity,
        coarse(max(room.longest, _LEAST), 2),
        room.tokens,
    )


def coarse(n: int, of_octave: int = 4) -> int:
    """The next number, from n on, of those of which so many lie between two powers of two."""
    unit = max(1, (1 << max(n - 1, 0).bit_length()) // (2 * of_octave))
    return -(-n // unit) * unit
