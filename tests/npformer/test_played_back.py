"""On the CPU, a search whose steps are played back finds what one finds whose steps are run."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

pytest.importorskip("numba", reason="steps are recorded as compiled loops: the extra 'fast'")

from autograd import Tensor, ops, watching
from autograd.backend import Array, backend
from autograd.cpu.chains import roles_of
from autograd.cpu.commands import Record, name_of
from autograd.cpu.pool import COMMAND_CHAIN
from npformer import Packed, Parts, Transformer, TransformerConfig
from npformer.attention import SelfAttention
from npformer.beam_search import search
from npformer.decoder import DecoderState
from npformer.ensemble import Ensemble
from npformer.hypotheses import Hypothesis
from npformer.layers import FeedForward
from npformer.search_settings import SearchSettings
from npformer.shortlist import Shortlist

pytestmark = pytest.mark.limit(600)

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


@pytest.mark.parametrize("settings", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize(
    "config",
    [
        {},
        {
            "activation": "swish",
            "decoder_start": "zero",
            "output_bias": True,
            "positions": "concatenated",
            "suppressed_ids": (0,),
        },
        {"positions": "learned", "attention_window": 3, "d_k": 5, "d_v": 7},
        {"norm": "pre", "activation": "gelu"},
    ],
    ids=["the paper's", "Marian's", "with a window", "pre-norm"],
)
@pytest.mark.parametrize("together", [1, 3])
def test_sentences_are_translated_alike(
    settings: SearchSettings, config: dict[str, Any], together: int
) -> None:
    model = model_of(**config)
    for source in sources(4, together):
        assert_equal(search(model, source, settings), run(model, source, settings))
    steps = steps_of(model)
    assert steps
    assert not any(step._gives_up for step in steps)
    assert any(step._second for step in steps)


@pytest.mark.parametrize("settings", [SEARCHES["greedy"], SEARCHES["a least length"]])
def test_steps_after_a_prefix_are_played_back(settings: SearchSettings) -> None:
    model = model_of()
    for source in sources(5, together=2):
        prefixes = [[], [5, 900, 7]]
        found = search(model, source, settings, prefixes=prefixes)
        with watching(ops.linear):
            expected = search(model, source, settings, prefixes=prefixes)
        assert_equal(found, expected)
        assert all(h.ids[:3] == prefixes[1] for h in found[1])
    assert any(step._second for step in steps_of(model))
    # Those without rules need no recordings of their own.
    assert_equal(search(model, source, settings), run(model, source, settings))
    assert len(model.searches) == 1


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


def test_the_bound_on_memory_counts_recordings() -> None:
    model = model_of()
    [source] = sources(1, together=24, seed=1)
    settings = SearchSettings(1, max_ratio=1.0)  # sentences end one after the other
    for _ in range(3):
        search(model, source, settings)
    [kept] = (entry.thing for entry in model.searches._entries)
    arrays = kept.state.nbytes + sum(x.nbytes for x in kept.trace if x is not None)
    records = [step._second[0] for step in kept._steps.values()]
    assert len(records) > 8
    made = {id(block): block.nbytes for record in records for block in record.blocks}
    commands = sum(record._words.nbytes for record in records)
    assert kept.nbytes == arrays + sum(made.values()) + commands


def test_batches_of_many_sentences_share_recordings() -> None:
    model, settings = model_of(), SearchSettings(2, max_ratio=1.0)  # they end one after the other
    for count in (20, 27, 30, 17, 32):
        [source] = sources(1, together=count, seed=count)
        assert_equal(search(model, source, settings), run(model, source, settings))
    [kept] = (entry.thing for entry in model.searches._entries)
    assert kept.room.sentences == 32
    assert len(kept._steps) <= 8 + 16  # every second number from 17 to 32, and all up to 16
    assert not any(step._gives_up for step in kept._steps.values())


def chains_of(record: Record) -> list[list[str]]:
    """The names of the loops of each chain."""
    names, found = [loop.__name__ for loop in record._loops], []
    while names:
        length = int(record.commands[record._starts[-len(names)] + COMMAND_CHAIN])
        found.append(names[:length])
        del names[:length]
    return found


@pytest.mark.parametrize("config", [{}, {"norm": "pre", "activation": "gelu"}])
def test_steps_of_many_rows_are_played_back_as_chains(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer rows, loops that follow each other divide them differently."""
    monkeypatch.setattr("autograd.cpu.pool.threads", lambda: 2)  # else each loop is one task
    model, settings = model_of(**config), SearchSettings(4, extra_length=9)
    for seed in range(3):
        [source] = sources(1, together=40, seed=seed)
        assert_equal(search(model, source, settings), run(model, source, settings))
    [kept] = (entry.thing for entry in model.searches._entries)
    record, _ = kept._steps[40]._second
    assert max(map(len, chains_of(record))) > 2


def test_the_cache_is_read_when_all_have_written_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypotheses read keys of others, which are written by the tasks of those."""
    monkeypatch.setattr("autograd.cpu.pool.threads", lambda: 2)
    model, [source] = model_of(), sources(1, together=40)
    search(model, source, SearchSettings(4, extra_length=9))
    [kept] = (entry.thing for entry in model.searches._entries)
    chains = chains_of(kept._steps[40]._second[0])
    writing = [names[names.index("_append") :] for names in chains if "_append" in names]
    assert writing == [["_append"]] * SIZES["layers"]
    assert any(names[0] == "_attend" and len(names) > 2 for names in chains)


class CopiedCalls(Record):
    """It keeps each call of a loop as it was before the loop ran."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[tuple[Any, int, tuple[Any, ...]]] = []

    @contextmanager
    def command(self, loop: Any, count: int, arguments: tuple[Any, ...]) -> Iterator[int]:
        self.copies.append((loop, count, copy.deepcopy(arguments)))
        with super().command(loop, count, arguments) as place:
            yield place


def test_loops_over_rows_touch_what_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What chains rest on. Their first task alone does what it does, without the others' rows."""
    monkeypatch.setattr("autograd.cpu.pool.threads", lambda: 2)
    calls, [source] = CopiedCalls(), sources(1, together=40)
    with calls.running():
        for activation in "gelu", "swish":
            search(model_of(activation=activation), source, SearchSettings(4, extra_length=3))
    checked = set()
    for loop, count, arguments in calls.copies:
        roles = roles_of(loop)
        if roles is None or count == 1:
            continue
        size, (whole, alone) = arguments[0], (copy.deepcopy(arguments) for _ in range(2))
        own = [i for i in roles.rows if arguments[i] is not None]
        for i in own:
            alone[i][size:] = np.nan
        before = copy.deepcopy(alone)
        loop(count, *whole)
        loop(1, *alone)
        for i in own:
            np.testing.assert_array_equal(alone[i][:size], whole[i][:size])
            np.testing.assert_array_equal(alone[i][size:], np.nan)
        for i in set(range(len(arguments))) - roles.rows - roles.written:
            np.testing.assert_equal(alone[i], before[i])
        checked.add(name_of(loop).removeprefix("autograd.cpu."))
    assert checked == {
        "activations._gelu",
        "activations._swish",
        "cached_attention._append",
        "cached_attention._attend",
        "linear._forward_in_rows",
        "norm._forward",
    }


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_searches_with_a_shortlist_share_recordings(weights: str) -> None:
    """The candidates change from search to search."""
    model, size = model_of(), SIZES["vocab_size"]
    model = model.quantize() if weights == "int8" else model
    rng = np.random.default_rng(0)
    own = [np.unique(rng.integers(3, size, 9)).tolist() for _ in range(size)]
    shortlist = Shortlist(np.arange(3, dtype=np.int32), Packed.of(own), size)
    settings = SEARCHES["beam"]
    for source in sources(5, together=3):
        found = search(model, source, settings, shortlist=shortlist)
        with watching(ops.top_k):
            expected = search(model, source, settings, shortlist=shortlist)
        assert_equal(found, expected)
    assert any(step._second for step in steps_of(model))
    assert not any(step._gives_up for step in steps_of(model))


def test_the_projection_is_packed_for_the_steps_of_many_rows() -> None:
    model = model_of()
    settings = SearchSettings(1, max_ratio=1.0)  # sentences end one after the other
    packed = set()
    for seed in range(4):
        [source] = sources(1, together=24, seed=seed)
        assert_equal(search(model, source, settings), run(model, source, settings))
        [kept] = (entry.thing for entry in model.searches._entries)
        packed.add(kept.state.packed.ctypes.data)
        model.buffer.values *= np.float32(1.1)
    assert len(packed) == 1  # it stays where recordings read it
    steps = kept._steps
    assert min(steps) <= 8 < max(steps)
    assert not any(step._gives_up for step in steps.values())
    state = kept.state
    for rows, step in steps.items():
        if step._second and rows > 8:
            assert any(x is state.packed for x in step._second[0].given)
    before = state.nbytes
    state._own_packed = None
    assert before - state.nbytes == state.packed.nbytes > model.projection.value.nbytes


def test_only_steps_that_look_for_the_likeliest_tokens_need_a_packed_projection() -> None:
    model, [source] = model_of(), sources(1, together=9)
    state = model.start(source, beam=1, capacity=9)
    assert state.packed is None  # whoever steps by hand may change weights between steps
    with patch.object(DecoderState, "pack_projection") as packing:
        for settings in [
            SearchSettings(2, extra_length=3, no_repeat_ngram=2),
            SearchSettings(2, extra_length=3, sampling=True),
        ]:
            search(model, source, settings)
        search(Ensemble([model, model]), source, SearchSettings(2, extra_length=3))
        assert not packing.called
        search(model, source, SearchSettings(2, extra_length=3))
        assert packing.call_count == 1


def test_a_projection_that_takes_much_memory_is_not_packed() -> None:
    model, [source] = model_of(), sources(1, together=9)
    expected = search(model, source, SEARCHES["greedy"])
    model.searches.clear()
    most = 3 * model.projection.value.nbytes
    small = dataclasses.replace(backend("numpy"), most_kept_bytes=most)
    with patch("npformer.decoder.backend_of", lambda x: small):
        assert_equal(search(model, source, SEARCHES["greedy"]), expected)
    [kept] = (entry.thing for entry in model.searches._entries)
    assert kept.state.packed is None


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


def test_threads_share_a_model() -> None:
    model, settings = model_of(), SEARCHES["beam"]
    given = sources(12)
    expected = [run(model, source, settings) for source in given]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            found = threads.map(lambda source: search(model, source, settings), given)
            for x, y in zip(found, expected, strict=True):
                assert_equal(x, y)
