"""On the CPU, what cannot be played back, or would gain nothing by it, is run."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

pytest.importorskip("numba", reason="steps are recorded as compiled loops: the extra 'fast'")

from autograd import Tensor, ops
from autograd.backend import Array, backend
from npformer import Parts
from npformer.attention import SelfAttention
from npformer.beam_search import search
from npformer.layers import FeedForward
from npformer.search_settings import SearchSettings
from tests.npformer.recorded import SEARCHES, assert_equal, model_of, run, sources, steps_of

pytestmark = pytest.mark.limit(600)


class Squared(FeedForward):
    """The square of the ReLU, by operations of which not all are loops."""

    is_replayable = True

    def __call__(self, x: Tensor, dropout: Any = None) -> Tensor:
        return self.outer(ops.relu(self.inner(x)) ** 2)


def test_models_of_which_not_everything_is_a_loop_are_run(caplog: Any) -> None:
    model = model_of(Parts(feed_forward=Squared))
    with caplog.at_level(logging.DEBUG, "autograd"):
        for source in sources(3):
            settings = SEARCHES["beam"]
            assert_equal(search(model, source, settings), run(model, source, settings))
    assert all(step._gives_up for step in steps_of(model))
    assert "not played back" in caplog.text


class SquaredInPlace(FeedForward):
    """Array code between the operations, in place and on a new array."""

    is_replayable = True  # which is not true

    def __call__(self, x: Tensor, dropout: Any = None) -> Tensor:
        y = self.inner(x)
        y.value[...] = np.maximum(y.value, 0) ** 2
        return self.outer(y)


class OwnCache(SelfAttention):
    """It writes to the cache itself."""

    is_replayable = True  # which is not true

    def step(
        self, x: Tensor, cache: Array, slots: Array, token_slots: Array, lengths: Array
    ) -> Tensor:
        qkv = self.qkv(x).value
        cache[slots, lengths - 1] = qkv[:, -cache.shape[2] :]
        y = ops.cached_attention(
            *(qkv[:, None], cache),
            heads=self.heads,
            d_k=self.d_k,
            slots=token_slots,
            lengths=lengths,
        )
        return self.output(Tensor(y[:, 0]))


class Alternating(SelfAttention):
    """A decision on the host, by a number that changes from step to step."""

    is_replayable = True  # which is not true

    def step(
        self, x: Tensor, cache: Array, slots: Array, token_slots: Array, lengths: Array
    ) -> Tensor:
        y = super().step(x, cache, slots, token_slots, lengths)
        return y if int(lengths[0]) % 2 else self.output(y)


@pytest.mark.parametrize("settings", [SEARCHES["greedy"], SEARCHES["beam"]])
@pytest.mark.parametrize(
    "parts",
    [
        Parts(feed_forward=SquaredInPlace),
        Parts(self_attention=OwnCache),
        Parts(self_attention=Alternating),
    ],
    ids=["feed_forward", "own cache", "alternating"],
)
def test_array_code_in_a_layer_is_never_lost(parts: Parts, settings: SearchSettings) -> None:
    model = model_of(parts)
    for source in sources(3):
        assert_equal(search(model, source, settings), run(model, source, settings))
    assert all(step._gives_up for step in steps_of(model))


class OnlyAtFirst(SelfAttention):
    """A decision on the host, which the first steps do not show."""

    def step(
        self, x: Tensor, cache: Array, slots: Array, token_slots: Array, lengths: Array
    ) -> Tensor:
        y = super().step(x, cache, slots, token_slots, lengths)
        return y if int(lengths[0]) <= 5 else self.output(y)


@pytest.mark.parametrize("settings", [SEARCHES["greedy"], SEARCHES["beam"]])
def test_parts_that_do_not_say_that_they_are_replayable_are_run(settings: SearchSettings) -> None:
    model = model_of(Parts(self_attention=OnlyAtFirst))
    for source in sources(3):
        assert_equal(search(model, source, settings), run(model, source, settings))
    assert not steps_of(model)


class SquaredIfSeveral(SquaredInPlace):
    """Array code for more than one row, which greedy search of one sentence does not have."""

    def __call__(self, x: Tensor, dropout: Any = None) -> Tensor:
        own = SquaredInPlace if len(x.value) > 1 else FeedForward
        return own.__call__(self, x, dropout)


def test_a_search_with_another_beam_is_watched_anew() -> None:
    model = model_of(Parts(feed_forward=SquaredIfSeveral))
    for settings in SEARCHES["greedy"], SEARCHES["beam"]:
        for source in sources(3):
            assert_equal(search(model, source, settings), run(model, source, settings))
    assert {step._gives_up for step in steps_of(model)} == {False, True}


def test_steps_with_much_to_do_are_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, [source] = model_of(), sources(1, together=3)
    monkeypatch.setattr("npformer.recorded_steps._can_be_kept", lambda model, room: False)
    assert_equal(search(model, source), run(model, source, SearchSettings()))
    assert not steps_of(model)


@pytest.mark.parametrize(
    ("config", "together", "settings"),
    [
        ({}, 3, SEARCHES["beam"]),
        ({"attention_window": 3, "d_k": 5, "d_v": 7}, 1, SEARCHES["greedy"]),
    ],
    ids=["beam", "with a window"],
)
def test_searches_are_kept_if_two_of_them_find_room(
    config: dict[str, Any], together: int, settings: SearchSettings
) -> None:
    [source] = sources(1, together)
    model = model_of(**config)
    search(model, source, settings)
    [kept] = (entry.thing for entry in model.searches._entries)
    caches = sum(x.nbytes for x in (*kept.state.cache, *kept.state.memory))
    for most, is_kept in (2 * caches, True), (2 * caches - 1, False):
        small = dataclasses.replace(backend("numpy"), most_kept_bytes=most)
        other = model_of(**config)
        with patch("npformer.recorded_steps.backend_of", lambda x, small=small: small):
            assert_equal(search(other, source, settings), search(model, source, settings))
        assert bool(steps_of(other)) == is_kept
