"""Batches that are filled up: fillers count for nothing, in no number of a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import DropoutStream, Tape
from npformer import Batch, Transformer, TransformerConfig
from npformer.batch import FILLER, NO_TARGET
from train.adam import Adam
from train.ranks.shares import Part
from train.recordings import sized
from train.step import train_step

VOCABULARY = 9
sentences = st.lists(st.integers(3, VOCABULARY - 1), max_size=5)
pairs = st.lists(st.tuples(sentences, sentences), max_size=4)
more = st.tuples(st.integers(0, 40), st.integers(0, 40))


def batch_of(pairs: list[tuple[list[int], list[int]]]) -> Batch:
    sources, targets = [s for s, _ in pairs], [t for _, t in pairs]
    return Batch.of(sources, targets, begin_id=1, end_id=2)


def filled(batch: Batch, more: tuple[int, int]) -> Batch:
    return batch.filled(batch.source_tokens + more[0], batch.target_tokens + more[1])


def model_of(**settings: object) -> Transformer:
    sizes = {"layers": 1, "d_model": 8, "d_ff": 8, "heads": 2, "smoothing": 0.1}
    config = TransformerConfig(vocab_size=VOCABULARY, **{**sizes, **settings})  # type: ignore[arg-type]
    return Transformer(config, 0, np.float64)


@given(pairs, more)
def test_a_filled_batch_has_its_pairs_first_and_the_tokens_that_were_asked_for(pairs, more):
    batch = batch_of(pairs)
    longer = filled(batch, more)
    assert len(longer) == len(batch) == len(pairs)
    assert longer.source_tokens == batch.source_tokens
    assert longer.target_tokens == batch.target_tokens
    for name, count in (("source", more[0]), ("target_input", more[1]), ("target_output", more[1])):
        was, now = getattr(batch, name), getattr(longer, name)
        rows = len(was.tokens)
        np.testing.assert_array_equal(now.tokens[:rows], was.tokens)
        np.testing.assert_array_equal(now.offsets[: len(was) + 1], was.offsets)
        assert len(now.tokens) == rows + count
        assert now.tokens.dtype == was.tokens.dtype
        assert now.lengths[len(was) :].max(initial=0) <= FILLER
    assert (longer.target_output.tokens[batch.target_tokens :] == NO_TARGET).all()


def test_a_batch_that_is_too_large_is_not_filled() -> None:
    batch = batch_of([([3, 4], [5])])
    with pytest.raises(ValueError, match="3 source and 2 target tokens cannot be filled up to 2"):
        batch.filled(2, 5)


def test_a_batch_can_be_filled_again() -> None:
    batch = batch_of([([3, 4], [5])])
    twice = batch.filled(4, 4).filled(9, 7)
    assert (len(twice), twice.source_tokens, twice.target_tokens) == (1, 3, 2)
    assert (len(twice.source.tokens), len(twice.target_input.tokens)) == (9, 7)


CONFIGS = {
    "the paper's": {},
    "pre-norm, learned positions": {"norm": "pre", "positions": "learned", "max_length": 20},
    "an output bias, three embeddings": {
        "output_bias": True,
        "share_embeddings": "none",
        "source_vocab_size": VOCABULARY,
    },
    "smoothing over the others, swish": {"smoothing_over": "others", "activation": "swish"},
    "no token at the start, a window": {"decoder_start": "zero", "attention_window": 2},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@settings(max_examples=8)
@given(st.lists(st.tuples(pairs, more), min_size=1, max_size=3))
def test_fillers_change_no_loss_no_gradient_and_no_count_of_a_step(config, parts):
    """In float64 to 1e-12, with every kind of dropout, over the batches that a step accumulates."""
    rates = {"dropout": 0.3, "attention_dropout": 0.2, "ffn_dropout": 0.1}
    model, dropout = model_of(**config, **rates), DropoutStream(5, 3)
    as_they_are = [batch_of(pairs) for pairs, _ in parts]
    fuller = [filled(b, more) for b, (_, more) in zip(as_they_are, parts, strict=True)]
    assert Part.whole(fuller) == Part.whole(as_they_are)
    if not Part.whole(fuller).target_tokens:
        return
    found = []
    for batches in (as_they_are, fuller):
        adam = Adam(model.buffer)
        result = train_step(model, adam, batches, 0.0, dropout)
        found.append((result.numbers, adam.grads.copy(), result.target_tokens))
    (numbers, gradients, tokens), (of_filled, gradients_of_filled, tokens_of_filled) = found
    np.testing.assert_allclose(of_filled, numbers, rtol=1e-12)
    scale = abs(gradients).max()
    np.testing.assert_allclose(gradients_of_filled, gradients, rtol=0, atol=1e-12 * scale)
    assert tokens_of_filled == tokens


def test_fillers_change_no_likelihood_of_a_target() -> None:
    model, batch = model_of(), batch_of([([3, 4, 5], [6]), ([7], [8, 3])])
    expected = model.target_log_p(batch)
    found = model.target_log_p(filled(batch, (5, 20)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_batch_of_fillers_alone_has_no_gradient_at_all() -> None:
    model = model_of(dropout=0.3)
    with Tape() as tape:
        loss, nll = model.losses(filled(batch_of([]), (20, 30)), DropoutStream(1, 1))
    tape.backward(loss)
    assert float(loss) == float(nll) == 0
    assert not any(p.grad.any() for p in model.parameters().values())


@pytest.mark.parametrize(
    ("rows", "size"),
    [(1, 1600), (1600, 1600), (1601, 3200), (24_000, 24_000), (24_001, 25_024), (25_000, 25_024)],
)
def test_batches_are_filled_up_to_few_sizes_and_not_beyond_the_budget(rows: int, size: int) -> None:
    batch = Batch.of([[3] * (rows - 1)], [[3] * 9], begin_id=1, end_id=2)
    found = sized(batch, 25_000)
    assert (len(found.source.tokens), len(found.target_input.tokens)) == (size, 1600)


def test_a_sentence_that_is_longer_than_the_budget_is_filled_up_as_well() -> None:
    batch = Batch.of([[3] * 2099], [[3] * 9], begin_id=1, end_id=2)
    assert len(sized(batch, 1000).source.tokens) == 2112
    assert len(sized(batch, 1000).target_input.tokens) == 64
