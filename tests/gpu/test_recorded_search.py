"""Searches whose steps are replayed are those that run step by step, bit for bit.

Where there is no GPU, the stand-in for the CUDA runtime replays launches with their arguments as
they were at the recording (tests/without_gpu), and so finds what is frozen by mistake.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from autograd import ops, watching
from autograd.backend import backend
from autograd.cuda.memory import arena
from autograd.cuda.products import recordable_products
from npformer import Packed, SearchSettings, Transformer, TransformerConfig, search
from npformer.attention import SelfAttention
from npformer.decoder import Decoder
from npformer.parts import Parts

cupy = pytest.importorskip("cupy")

SIZES: dict[str, Any] = {"vocab_size": 51, "layers": 1, "d_model": 32, "d_ff": 64, "heads": 2}
END = 2


def a_model(precision: str = "bf16", parts: Parts | None = None, **changes: Any) -> Transformer:
    config = TransformerConfig(**{**SIZES, **changes})
    model = Transformer(config, seed=3, parts=parts) if parts else Transformer(config, seed=3)
    rng = np.random.default_rng(0)
    for parameter in model.parameters().values():
        if parameter.ndim == 1:
            parameter.assign(rng.standard_normal(parameter.shape))
    return model.to("cupy", precision)


def sources(seed: int, count: int, longest: int = 12) -> Packed:
    rng = np.random.default_rng(seed)
    return Packed.of([[*rng.integers(3, 51, rng.integers(0, longest)), END] for _ in range(count)])


def poison() -> None:
    """Fill the memory that other work uses with NaN."""
    block = arena()
    assert not block.used_bytes_here()
    for size in (max(block._most, 1 << 20) // 4, 1 << 10):
        x = block.empty((size,), np.float32)
        x[...] = np.nan


@contextmanager
def counted_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A list that grows with each step that runs, and not with those that are replayed."""
    step, calls = Decoder.step, []

    def counted(self: Any, *arguments: Any) -> Any:
        calls.append(1)
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "step", counted)
        yield calls


def as_it_is(model: Transformer, source: Packed, settings: SearchSettings) -> Any:
    """What a search finds without recordings."""
    with watching(ops.top_k) as calls, recordable_products():
        found = search(model, source, settings)
    assert calls[ops.top_k]
    return found


def said(found: Any) -> list[Any]:
    return [[(h.ids, h.score, h.log_p) for h in own] for own in found]


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("beam", [1, 4])
def test_replayed_searches_are_those_that_run(beam, precision, monkeypatch):
    """While everything changes that a launch could have frozen: sentences and their lengths,
    limits, and the length penalty."""
    model, plain = a_model(precision), a_model(precision)
    ran = []
    for turn in range(4):
        settings = SearchSettings(
            beam,
            length_penalty=0.3 * turn,
            penalty="power" if turn % 2 else "gnmt",
            extra_length=(14, 5, 18, 9)[turn],
            max_ratio=None if turn != 2 else 3.0,
        )
        source = sources(turn, 4)
        poison()
        with counted_steps(monkeypatch) as calls:
            found = search(model, source, settings)
        ran.append(len(calls))
        poison()
        assert said(found) == said(as_it_is(plain, source, settings))
    assert len(model.searches) == 1
    assert not plain.searches
    # A step as it is and one that is recorded, and the same once sentences have been dropped.
    assert ran[0] >= 2
    assert ran[-1] == 0


def test_a_search_of_more_sentences_carries_some_along(monkeypatch):
    """Their number is rounded up, and steps are recorded for few numbers."""
    model, plain = a_model("float32"), a_model("float32")
    settings = SearchSettings(2, extra_length=17)
    rows = set()
    for turn, count in enumerate((9, 10, 9)):
        source = sources(turn, count, 30)
        found = search(model, source, settings)
        expected = as_it_is(plain, source, settings)
        assert [own[0].ids for own in found] == [own[0].ids for own in expected]
        np.testing.assert_allclose(
            [own[0].score for own in found], [own[0].score for own in expected], rtol=1e-5
        )
    assert len(model.searches) == 1
    [entry] = model.searches._entries
    rows = set(entry.thing._steps)
    assert max(rows) == 10
    assert rows <= {1, 2, 3, 4, 5, 6, 7, 8, 10}


def test_steps_after_what_rules_are_about_are_replayed(monkeypatch):
    """Also where there is room for more sentences than the rules know."""
    model, plain = a_model("float32"), a_model("float32")
    settings, prefixes = SearchSettings(2, extra_length=9, min_length=3), [[5, 7], *[[]] * 8]
    source = sources(0, 9)
    for _ in range(3):
        with counted_steps(monkeypatch) as calls:
            found = search(model, source, settings, prefixes=prefixes)
        with watching(ops.top_k), recordable_products():
            expected = search(plain, source, settings, prefixes=prefixes)
        assert [own[0].ids for own in found] == [own[0].ids for own in expected]
        np.testing.assert_allclose(
            [own[0].score for own in found], [own[0].score for own in expected], rtol=1e-5
        )
        assert found[0][0].ids[:2] == prefixes[0]
    assert len(calls) == 3


VARIANTS = {
    "pre-norm, learned positions": {"norm": "pre", "positions": "learned", "max_length": 20},
    "a window, an output bias": {
        "attention_window": 3,
        "output_bias": True,
        "suppressed_ids": (7, 9),
    },
    "no token at the start": {"decoder_start": "zero"},
    "odd": {"d_k": 5, "d_v": 3},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_variants_of_the_model_find_the_same(changes, monkeypatch):
    model, plain = a_model(**changes), a_model(**changes)
    ran = []
    for turn in range(3):
        source, settings = sources(turn, 2, 6), SearchSettings(2, extra_length=8 + turn)
        with counted_steps(monkeypatch) as calls:
            found = search(model, source, settings)
        ran.append(len(calls))
        poison()
        assert said(found) == said(as_it_is(plain, source, settings))
    assert ran[-1] == 0 or changes == VARIANTS["odd"]


def test_groups_are_recorded_too(monkeypatch):
    model, plain = a_model(), a_model()
    for turn in range(3):
        source = sources(turn, 2)
        settings = SearchSettings(4, groups=2, alternatives=4, extra_length=6)
        with counted_steps(monkeypatch) as calls:
            found = search(model, source, settings)
        assert said(found) == said(as_it_is(plain, source, settings))
    assert not calls


def test_parameters_may_change_between_searches(monkeypatch):
    model, plain = a_model(output_bias=True), a_model(output_bias=True)
    source, settings = sources(0, 1), SearchSettings(2, extra_length=6)
    before = said(search(model, source, settings))
    for made in (model, plain):
        for name in ("output_bias", "embedding"):
            parameter = made.parameters()[name]
            parameter.assign(parameter.numpy()[::-1].copy())
    with counted_steps(monkeypatch) as calls:
        found = said(search(model, source, settings))
    assert not calls
    assert found == said(as_it_is(plain, source, settings)) != before
    model.to("cupy", "float32")  # where others are
    found = said(search(model, source, settings))
    assert found == said(as_it_is(plain.to("cupy", "float32"), source, settings))


class Reads(SelfAttention):
    """An attention that reads lengths on the host, which cannot be recorded."""

    def step(self, x: Any, cache: Any, slots: Any, token_slots: Any, lengths: Any) -> Any:
        y = super().step(x, cache, slots, token_slots, lengths)
        return y * (1 + 0.01 * int(lengths[0]))


def test_an_attention_that_reads_on_the_host_runs_as_it_is(monkeypatch):
    parts = Parts(self_attention=Reads)
    model, plain = (a_model("float32", parts) for _ in range(2))
    for turn in range(3):
        source, settings = sources(turn, 2), SearchSettings(2, extra_length=6)
        with counted_steps(monkeypatch) as calls:
            found = search(model, source, settings)
        assert said(found) == said(as_it_is(plain, source, settings))
        assert calls


def test_two_threads_do_not_meet():
    """While one records, the other encodes and replays."""
    model, plain = a_model(), a_model()
    settings = SearchSettings(2, extra_length=6)
    texts = [sources(i, 1 + i % 2) for i in range(8)]
    expected = [said(as_it_is(plain, source, settings)) for source in texts]
    found: dict[int, Any] = {}
    device = cupy.cuda.Device()

    def translate(first: int) -> None:
        with device:
            for i in range(first, 8, 2):
                found[i] = said(search(model, texts[i], settings))

    threads = [threading.Thread(target=translate, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found.get(i) for i in range(8)] == expected


def test_recorded_functions_of_a_recorder_have_memory_of_their_own():
    """So they are replayed while others have arrays where they would otherwise be."""
    x, empty, calls = cupy.ones(1 << 16, np.float32), backend("cupy").empty, []

    def run() -> Any:
        calls.append(1)
        y = empty(x.shape, x.dtype)
        y[...] = x
        return y.sum()

    record = backend("cupy").recorder()
    replays = [record(run) for _ in range(2)]
    held = empty((1 << 20,), np.float32)
    held[...] = 7
    for step in range(4):
        x[...] = step
        for replay in replays:
            assert float(replay()) == step * (1 << 16)
    assert len(calls) == 4
    assert (held.get() == 7).all()
