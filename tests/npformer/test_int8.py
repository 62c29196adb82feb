"""A model whose matrices are held in 8 bits."""

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="steps are recorded as compiled loops: the extra 'fast'")

from autograd import Tape, ops, references, watching
from autograd.backend import BackendError
from autograd.int8 import Int8Matrix
from npformer import (
    Batch,
    Packed,
    SearchSettings,
    Transformer,
    TransformerConfig,
    Translator,
    UserError,
    search,
)
from npformer.checkpoint import save_model
from npformer.shortlist import Shortlist
from npformer.shortlist_file import save_shortlist
from tests.npformer.models import BEGIN, END, configs, seeds
from tests.npformer.recorded import assert_equal, steps_of
from tests.npformer.test_shortlist import shortlist_of
from tests.npformer.test_translator import LINES, make_translator, save
from train.evaluation import likelihood

CONFIG = TransformerConfig(vocab_size=300, layers=2, d_model=32, d_ff=48, heads=2)
SETTINGS = SearchSettings(beam=4, extra_length=5)


def batch_of(rng: np.random.Generator, vocabulary: int, count: int = 3) -> Batch:
    sides = ([rng.integers(3, vocabulary, n).tolist() for n in range(2, 2 + count)] for _ in "ab")
    return Batch.of(*sides, begin_id=BEGIN, end_id=END, source_end_id=END)


def sources(rng: np.random.Generator, vocabulary: int, count: int) -> list[list[int]]:
    return [[*rng.integers(3, vocabulary, rng.integers(1, 9)).tolist(), END] for _ in range(count)]


def run(model: Transformer, source: Packed, settings: SearchSettings, **given: Any) -> Any:
    """A search whose steps are not recorded, as they are observed."""
    with watching(ops.int8_linear) as calls:
        found = search(model, source, settings, BEGIN, END, **given)
    assert {how for *_, how in calls[ops.int8_linear]} == {"fast"}
    return found


def some_tokens(rng: np.random.Generator, vocabulary: int) -> Shortlist:
    """A shortlist of up to 20 tokens for each."""
    each = [rng.integers(3, vocabulary, n).tolist() for n in rng.integers(0, 20, vocabulary)]
    return shortlist_of([END, 7, 50], *each, size=vocabulary)


def in_8_bits(model: Transformer) -> Transformer:
    return copy.deepcopy(model).quantize()


@given(config=configs(vocab_size=11), seed=seeds)
@settings(max_examples=25)
def test_every_kind_of_model_computes_nearly_the_same(config, seed):
    rng = np.random.default_rng(seed)
    model = Transformer(config, seed=seed % 100)
    batch = batch_of(rng, min(config.vocab_size, config.source_vocab_size or 99))
    quantized = in_8_bits(model)
    log_p, expected = quantized.target_log_p(batch), model.target_log_p(batch)
    np.testing.assert_allclose(log_p, expected, atol=0.6)
    with references():
        np.testing.assert_allclose(quantized.target_log_p(batch), log_p, rtol=1e-3, atol=1e-3)
    found = [likelihood(m, [batch]) for m in (quantized, model)]
    assert found[0].nll == pytest.approx(-log_p.mean(), abs=1e-4)
    assert found[0].loss == pytest.approx(found[1].loss, abs=0.4)


def test_losses_are_those_of_the_probabilities():
    config = dataclasses.replace(CONFIG, smoothing=0.2, output_bias=True)
    model = Transformer(config, seed=1)
    batch = batch_of(np.random.default_rng(0), 300)
    quantized = in_8_bits(model)
    loss, nll = quantized.losses(batch)
    p = quantized.log_p_of(
        quantized.decode(
            batch.target_input, quantized.encode(batch.source), batch.source.sentences
        ).value
    ).astype(np.float64)
    of_targets = np.take_along_axis(p, batch.target_output.tokens[:, None], axis=1).sum()
    assert float(nll) == pytest.approx(-of_targets, rel=1e-5)
    assert loss.item() == pytest.approx(-0.8 * of_targets - 0.2 * p.mean(axis=1).sum(), rel=1e-5)


def test_matrices_alone_are_held_in_8_bits_and_their_float32_numbers_let_go():
    model = Transformer(CONFIG, seed=0)
    size = sum(p.size for p in model.parameters().values())
    floats = model.buffer.values.nbytes
    model.quantize()
    held = {n: p for n, p in model.parameters().items() if isinstance(p.value, Int8Matrix)}
    assert sum(p.size for p in model.parameters().values()) == size
    assert {n.rpartition(".")[2] for n in held} == {"embedding", "weight"}
    assert held["embedding"].shape == (300, 32)
    assert set(model.buffer.parameters) == set(model.parameters()) - set(held)
    assert model.buffer.values.nbytes + sum(p.value.nbytes for p in held.values()) < floats / 2
    assert [a.dtype.name for a in model.arrays()] == ["float32"] + ["int8"] * len(held)
    assert model.quantize().weights == "int8"  # which changes nothing


def test_a_sentence_is_translated_the_same_whatever_is_beside_it():
    # Each row has its own scale, and sums of integers are exact.
    rng, model = np.random.default_rng(0), Transformer(CONFIG, seed=3).quantize()
    texts = sources(rng, 300, 12)
    together = search(model, Packed.of(texts), SETTINGS, BEGIN, END)
    for text, hypotheses in zip(texts, together, strict=True):
        [alone] = search(model, Packed.of([text]), SETTINGS, BEGIN, END)
        assert alone[0].ids == hypotheses[0].ids
        assert alone[0].score == pytest.approx(hypotheses[0].score, abs=1e-5)


@pytest.mark.parametrize("has_shortlist", [False, True], ids=["all tokens", "a shortlist"])
@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize(
    "config",
    [{}, {"decoder_start": "zero", "output_bias": True, "share_embeddings": "none"}],
    ids=["the paper's", "Marian's"],
)
def test_steps_are_played_back(config: dict[str, Any], beam: int, has_shortlist: bool) -> None:
    rng, settings = np.random.default_rng(0), SearchSettings(beam, extra_length=9)
    model = Transformer(dataclasses.replace(CONFIG, **config), seed=3).quantize()
    given = {"shortlist": some_tokens(rng, 300)} if has_shortlist else {}
    for count in (1, 1, 1, 3, 3, 3):
        source = Packed.of(sources(rng, 300, count))
        found = search(model, source, settings, BEGIN, END, **given)
        assert_equal(found, run(model, source, settings, **given))
    steps = steps_of(model)
    assert any(step._second for step in steps)
    assert not any(step._gives_up for step in steps)


def test_a_search_before_has_left_nothing_of_float32() -> None:
    model, source = Transformer(CONFIG, seed=3), Packed.of([[5, 9, END]])
    search(model, source, SETTINGS, BEGIN, END)
    model.quantize()
    assert_equal(search(model, source, SETTINGS, BEGIN, END), run(model, source, SETTINGS))


@pytest.mark.parametrize(
    "more", [{}, {"min_length": 2, "no_repeat_ngram": 2}, {"sampling": True}], ids=str
)
def test_a_shortlist_leaves_the_tokens_that_it_has(more: dict[str, Any]) -> None:
    # As if the others were suppressed: rows of a table are rounded by themselves.
    rng, settings = np.random.default_rng(0), SearchSettings(2, extra_length=5, **more)
    shortlist, texts = some_tokens(rng, 300), sources(rng, 300, 5)
    model = Transformer(CONFIG, seed=3).quantize()
    together = search(model, Packed.of(texts), settings, BEGIN, END, shortlist=shortlist)
    for i, (text, found) in enumerate(zip(texts, together, strict=True)):
        ids, allowed = shortlist.candidates(Packed.of([text]))
        never = tuple(sorted(set(range(300)) - set(ids[allowed[0]].tolist())))
        alone = Transformer(dataclasses.replace(CONFIG, suppressed_ids=never), seed=3).quantize()
        [expected] = search(alone, Packed.of([text]), settings, BEGIN, END, streams=[i])
        assert [h.ids for h in found] == [h.ids for h in expected]
        assert found[0].score == pytest.approx(expected[0].score, abs=1e-5)


def test_without_loops_a_shortlist_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    model, shortlist = Transformer(CONFIG, seed=3).quantize(), some_tokens(rng, 300)
    source = Packed.of(sources(rng, 300, 4))
    found = search(model, source, SETTINGS, BEGIN, END, shortlist=shortlist)
    with references():
        expected = search(model, source, SETTINGS, BEGIN, END, shortlist=shortlist)
    assert [h[0].ids for h in found] == [h[0].ids for h in expected]
    assert found[0][0].score == pytest.approx(expected[0][0].score, abs=1e-3)


@given(seed=seeds, beam=st.integers(1, 3))
@settings(max_examples=10)
def test_suppressed_tokens_are_never_chosen(seed, beam):
    config = dataclasses.replace(CONFIG, vocab_size=12, suppressed_ids=(4, 5), output_bias=True)
    model = Transformer(config, seed=seed % 50).quantize()
    texts = sources(np.random.default_rng(seed), 12, 3)
    for [best] in search(model, Packed.of(texts), SearchSettings(beam, extra_length=3), BEGIN, END):
        assert not {4, 5} & set(best.ids)
        assert np.isfinite(best.score)


def test_it_is_neither_trained_nor_moved_nor_saved(tmp_path: Path):
    model, batch = Transformer(CONFIG, seed=0).quantize(), batch_of(np.random.default_rng(0), 300)
    with Tape(), pytest.raises(TypeError, match="load them in float32 to train"):
        model.loss(batch)
    with pytest.raises(UserError, match="take the directory that it was loaded from"):
        save_model(tmp_path / "model", model)
    for elsewhere in (("cupy", "float32"), ("numpy", "bf16")):
        with pytest.raises(BackendError, match="weights in 8 bits are for the CPU"):
            model.to(*elsewhere)
    assert model.to("numpy") is model
    with pytest.raises(TypeError, match="not converted to an array"):
        model.parameters()["embedding"].numpy()


def test_numbers_that_are_not_finite_are_named():
    model = Transformer(CONFIG, seed=0)
    weight = model.parameters()["encoder.1.feed_forward.inner.weight"]
    values = weight.numpy().copy()
    values[3, 4] = np.nan
    weight.assign(values)
    with pytest.raises(UserError, match=r"encoder.1.feed_forward.inner.weight has numbers that"):
        model.quantize()
    assert model.weights == "float32"
    assert weight.numpy().shape == (32, 48)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_translate_alike(copied):
    model = Transformer(CONFIG, seed=0).quantize()
    source = Packed.of(sources(np.random.default_rng(0), 300, 4))
    first, second = (search(m, source, SETTINGS, BEGIN, END) for m in (model, copied(model)))
    assert [h[0].ids for h in first] == [h[0].ids for h in second]


def test_a_translator_loads_it_and_does_all_that_others_do(tmp_path: Path):
    made = make_translator(layers=2, d_model=32)
    model = save(tmp_path / "model", made.model, made.tokenizers)
    loaded = Translator.load(model, weights="int8")
    texts = [t.text for t in loaded.translate(LINES, extra_length=3)]
    assert texts == [loaded.translate([line], extra_length=3)[0].text for line in LINES]
    [found] = loaded.translate(LINES[:1], extra_length=3, alignment="auto", attention=True)
    assert found.attention is not None
    scores = [t.score(LINES, texts)[0].log_p for t in (loaded, Translator.load(model))]
    assert scores[0] == pytest.approx(scores[1], rel=0.1)
    both = Translator.ensemble([model, model], [1, 2], weights="int8")
    assert [t.text for t in both.translate(LINES, extra_length=3)] == texts
    sampled = loaded.translate(LINES, extra_length=3, sampling=True, seed=3)
    assert len(sampled) == len(LINES)
    tokenizers, rng = made.tokenizers, np.random.default_rng(0)
    save_shortlist(model, some_tokens(rng, tokenizers.target.vocab_size), tokenizers, {})
    chosen = {"extra_length": 3, "shortlist": True}
    few = [t.text for t in loaded.translate(LINES, **chosen)]
    assert few == [loaded.translate([line], **chosen)[0].text for line in LINES]
    assert few == [t.text for t in both.translate(LINES, **chosen)]
    assert few != texts
    with pytest.raises(ValueError, match="weights must be 'float32' or 'int8'"):
        Translator.load(model, weights="int4")  # type: ignore[arg-type]
