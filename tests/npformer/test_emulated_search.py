"""A whole search on emulated GPU kernels gives NumPy's results.

The same on a real GPU is in tests/gpu/test_translation.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from autograd import Sentences, ops, watching
from npformer import Ensemble, Packed, SearchSettings, Transformer, TransformerConfig, search
from npformer.shortlist import Shortlist
from tests.without_gpu import emulator, strict_arrays

pytestmark = pytest.mark.skipif(
    emulator.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
)

BEGIN, END, VOCABULARY = 1, 2, 51
CONFIG = TransformerConfig(vocab_size=VOCABULARY, layers=2, d_model=32, d_ff=64, heads=2)


@pytest.fixture(autouse=True)
def emulated_gpu() -> Iterator[None]:
    with emulator.on_strict_arrays():
        yield


def a_model() -> Transformer:
    """A model with large differences between logits, so that rounding does not matter.

    Sentences end at different steps, so that some rows are dropped.
    """
    model = Transformer(CONFIG, seed=3)
    rng = np.random.default_rng(0)
    for parameter in model.parameters().values():
        if parameter.ndim == 1:
            parameter.assign(rng.standard_normal(parameter.shape))
    table = model.projection.numpy() * 3
    table[END] *= 1.5
    model.projection.assign(table)
    return model


def sources() -> Packed:
    rng = np.random.default_rng(1)
    return Packed.of([rng.integers(3, VOCABULARY, n) for n in (4, 1, 9, 6, 2)])


@pytest.mark.parametrize(
    "settings",
    [
        SearchSettings(beam=1, extra_length=12),
        SearchSettings(beam=4, alternatives=4, extra_length=12),
        SearchSettings(beam=3, length_penalty=0.0, extra_length=3),
    ],
    ids=["greedy", "beam", "short"],
)
def test_a_search_gives_numpys_results(settings: SearchSettings) -> None:
    expected = search(a_model(), sources(), settings, BEGIN, END)
    decoding = ops.cached_attention, ops.append_to_cache, ops.top_k, ops.beam_step
    with watching(*decoding) as calls:
        found = search(a_model().to("strict"), sources(), settings, BEGIN, END)
    for operation in decoding:
        assert {chosen for _, _, chosen in calls[operation]} == {"fast"}, operation
    rows = {len(arrays[0]) for arrays, _, _ in calls[ops.top_k]}
    assert len(rows) > 1  # some sentences end earlier than others
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.ids for h in ours] == [h.ids for h in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert math.isclose(one.score, other.score, rel_tol=1e-4, abs_tol=1e-5)


@pytest.mark.parametrize("more", [{}, {"beam": 1}, {"min_length": 8}], ids=str)
def test_a_shortlist_restricts_as_on_numpy(more: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    lengths = Sentences(np.full(VOCABULARY, 4))
    of_source = Packed(rng.integers(3, VOCABULARY, 4 * VOCABULARY).astype(np.int32), lengths)
    shortlist = Shortlist(np.array([0, END], np.int32), of_source, VOCABULARY)
    settings = SearchSettings(extra_length=6, **more)
    expected = search(a_model(), sources(), settings, BEGIN, END, shortlist=shortlist)
    with watching(ops.top_k) as calls:
        model = a_model().to("strict")
        found = search(model, sources(), settings, BEGIN, END, shortlist=shortlist)
    assert {chosen for _, _, chosen in calls[ops.top_k]} <= {"fast"}
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.ids for h in ours] == [h.ids for h in theirs]
        assert math.isclose(ours[0].score, theirs[0].score, rel_tol=1e-4, abs_tol=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        {"min_length": 8, "no_repeat_ngram": 2},
        {"sampling": True, "alternatives": 3, "seed": 5, "top_p": 0.9},
        {"beam": 4, "groups": 2, "alternatives": 4},
        {"coverage_penalty": 0.5, "alternatives": 2},
    ],
    ids=["rules", "sampling", "groups", "coverage"],
)
def test_what_is_allowed_and_drawn_is_that_of_numpy(more: dict[str, Any]) -> None:
    settings = SearchSettings(extra_length=6, **more)
    expected = search(a_model(), sources(), settings, BEGIN, END, prefixes=PREFIXES)
    with watching(ops.largest, ops.beam_step) as calls:
        found = search(a_model().to("strict"), sources(), settings, BEGIN, END, prefixes=PREFIXES)
    assert {chosen for made in calls.values() for *_, chosen in made} == {"fast"}
    assert [[h.ids for h in own] for own in found] == [[h.ids for h in own] for own in expected]
    for own, prefix in zip(found, PREFIXES, strict=True):
        assert all(h.ids[: len(prefix)] == prefix for h in own)


@pytest.mark.parametrize(
    "more",
    [
        {"beam": 1},
        {"beam": 4},
        {"min_length": 8, "no_repeat_ngram": 2},
        {"groups": 2, "coverage_penalty": 0.5},
    ],
    ids=["greedy", "beam", "rules", "groups"],
)
def test_a_search_sorts_nothing_on_the_device(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy's sort waits for the device."""

    def waits(*_: Any, **__: Any) -> None:
        raise AssertionError("this waits for the device")

    for name in ("sort", "argsort", "argpartition", "lexsort"):
        monkeypatch.setattr(strict_arrays.xp, name, waits)
    settings = SearchSettings(extra_length=4, **more)
    assert len(search(a_model().to("strict"), sources(), settings, BEGIN, END)) == 5


@pytest.mark.parametrize(
    "more",
    [{}, {"min_length": 8}, {"sampling": True, "top_k": 1}, {"coverage_penalty": 0.1}],
    ids=["plain", "rules", "sampling", "coverage"],
)
def test_in_bfloat16_a_search_is_that_of_numpy(more: dict[str, Any]) -> None:
    settings = SearchSettings(beam=2, extra_length=3, **more)
    expected = search(a_model(), sources(), settings, BEGIN, END)
    found = search(a_model().to("strict", "bf16"), sources(), settings, BEGIN, END)
    assert [own[0].ids[:2] for own in found] == [own[0].ids[:2] for own in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for log_p in (ours[0].log_p, theirs[0].log_p):
            assert all(math.isfinite(x) and x <= 0 for x in log_p)


def test_an_ensemble_gives_numpys_results() -> None:
    def both(backend: str) -> Ensemble:
        other = Transformer(CONFIG, seed=4)
        return Ensemble([a_model().to(backend), other.to(backend)], [3, 1])

    settings = SearchSettings(beam=3, extra_length=6, coverage_penalty=0.1)
    expected = search(both("numpy"), sources(), settings, BEGIN, END)
    found = search(both("strict"), sources(), settings, BEGIN, END)
    assert [own[0].ids for own in found] == [own[0].ids for own in expected]


PREFIXES = [[], [7, 7, 7, 9], [3], [], [40, 41]]


def test_a_search_for_a_single_sentence_gives_numpys_results() -> None:
    """Its arrays have axes of length 1, whose strides are arbitrary."""
    alone = Packed.of([sources()[2]])
    for beam in (1, 4):
        settings = SearchSettings(beam=beam, extra_length=6)
        [[expected]] = search(a_model(), alone, settings, BEGIN, END)
        [[found]] = search(a_model().to("strict"), alone, settings, BEGIN, END)
        assert found.ids == expected.ids
