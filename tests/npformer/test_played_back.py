"""On the CPU, a search whose steps are played back finds what one finds whose steps are run."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

pytest.importorskip("numba", reason="steps are recorded as compiled loops: the extra 'fast'")

from autograd import ops, watching
from autograd.backend import backend
from autograd.cpu.chains import roles_of
from autograd.cpu.commands import Record, name_of
from autograd.cpu.pool import COMMAND_CHAIN
from npformer import Packed
from npformer.beam_search import search
from npformer.decoder import DecoderState
from npformer.ensemble import Ensemble
from npformer.search_settings import SearchSettings
from npformer.shortlist import Shortlist
from tests.npformer.recorded import SEARCHES, SIZES, assert_equal, model_of, run, sources, steps_of

pytestmark = pytest.mark.limit(600)


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


def test_threads_share_a_model() -> None:
    model, settings = model_of(), SEARCHES["beam"]
    given = sources(12)
    expected = [run(model, source, settings) for source in given]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            found = threads.map(lambda source: search(model, source, settings), given)
            for x, y in zip(found, expected, strict=True):
                assert_equal(x, y)
