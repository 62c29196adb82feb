"""On the CPU, what was recorded of a model is not played back once the model is another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from unittest.mock import patch

import pytest

pytest.importorskip("numba", reason="steps are recorded as compiled loops: the extra 'fast'")

from npformer import Transformer
from npformer.beam_search import search
from npformer.shortlist import Shortlist
from tests.npformer.recorded import SEARCHES, SHORT, assert_equal, model_of, run, sources, steps_of

pytestmark = pytest.mark.limit(600)


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("shortlist", [None, SHORT], ids=["all tokens", "a shortlist"])
def test_other_weights_are_used_at_once(together: int, shortlist: Shortlist | None) -> None:
    model, [source] = model_of(), sources(1, together)
    settings = SEARCHES["beam"]
    before = search(model, source, settings, shortlist=shortlist)
    search(model, source, settings, shortlist=shortlist)
    model.buffer.values *= 1.5
    after = search(model, source, settings, shortlist=shortlist)
    assert_equal(after, run(model, source, settings, shortlist))
    assert after != before
    assert not any(step._gives_up for step in steps_of(model))


def assign(model: Transformer) -> None:
    weight = model.decoder.layers[0].feed_forward.inner.weight
    weight.value = 2 * weight.value


def suppress(model: Transformer) -> None:
    model.config = dataclasses.replace(model.config, suppressed_ids=tuple(range(3, 900)))


def remove_a_layer(model: Transformer) -> None:
    del model.decoder.layers[-1]


def scale_embeddings(model: Transformer) -> None:
    model.target_embedding.scale /= 3


def exchange_the_feed_forward(model: Transformer) -> None:
    model.decoder.layers[0].feed_forward = model_of(seed=4).decoder.layers[0].feed_forward


def exchange_the_embedding(model: Transformer) -> None:
    model.target_embedding = model_of(seed=4).target_embedding


def exchange_the_projection(model: Transformer) -> None:
    model.projection = model_of(seed=4).projection


CHANGES = (
    *(assign, suppress, remove_a_layer, scale_embeddings),
    *(exchange_the_feed_forward, exchange_the_embedding, exchange_the_projection),
)


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_was_changed_is_recorded_anew(change: Callable[[Transformer], None]) -> None:
    model, [source] = model_of(), sources(1)
    settings = SEARCHES["beam"]
    for _ in range(2):
        before = search(model, source, settings)
    change(model)
    after = search(model, source, settings)
    assert_equal(after, run(model, source, settings))
    assert after != before


def test_what_is_kept_of_a_model_goes_when_it_is_moved() -> None:
    model, [source] = model_of(), sources(1)
    search(model, source, SEARCHES["beam"])
    assert len(model.to("numpy").searches) == 1  # no move
    with patch.object(model.buffer, "to", lambda *_, rounded: setattr(model.buffer, "values", 0)):
        assert len(model.to("cupy").searches) == 0
