"""Searches whose steps are recorded, and the same ones whose steps are run."""

from __future__ import annotations

from typing import Any

import numpy as np

from autograd import ops, watching
from npformer import Packed, Parts, Transformer, TransformerConfig
from npformer.beam_search import search
from npformer.hypotheses import Hypothesis
from npformer.search_settings import SearchSettings
from npformer.shortlist import Shortlist

SIZES: dict[str, Any] = {
    "vocab_size": 1100,
    "layers": 2,
    "d_model": 40,
    "d_ff": 72,
    "heads": 2,
    "max_length": 64,
}
SEARCHES = {
    "greedy": SearchSettings(1, extra_length=9),
    "beam": SearchSettings(4, extra_length=9),
    "five, with alternatives": SearchSettings(5, extra_length=9, alternatives=3),
    "groups": SearchSettings(4, extra_length=9, groups=2, diversity=0.3),
    "until as many have ended": SearchSettings(3, extra_length=9, stop="beam"),
    "a least length": SearchSettings(3, extra_length=9, min_length=4),
}

SHORT = Shortlist(np.arange(700, dtype=np.int32), Packed.of([[]] * 1100), 1100)


def model_of(parts: Parts | None = None, seed: int = 3, **config: Any) -> Transformer:
    parts = Parts() if parts is None else parts
    return Transformer(TransformerConfig(**{**SIZES, **config}), seed=seed, parts=parts)


def sources(count: int, together: int = 1, seed: int = 0) -> list[Packed]:
    """Sentences of 1 to 20 tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 20, (count, together))
    return [
        Packed.of([[*rng.integers(3, SIZES["vocab_size"], n), 2] for n in some]) for some in lengths
    ]


def run(
    model: Transformer,
    source: Packed,
    settings: SearchSettings,
    shortlist: Shortlist | None = None,
) -> list[list[Hypothesis]]:
    """A search whose steps are not recorded, as they are observed."""
    with watching(ops.linear) as calls:
        found = search(model, source, settings, shortlist=shortlist)
    assert calls[ops.linear]
    return found


def steps_of(model: Transformer) -> list[Any]:
    """The recorded steps that the model keeps."""
    return [step for kept in model.searches._entries for step in kept.thing._steps.values()]


def assert_equal(some: list[list[Hypothesis]], others: list[list[Hypothesis]]) -> None:
    assert some == others
    assert [[h.log_p for h in x] for x in some] == [[h.log_p for h in x] for x in others]
