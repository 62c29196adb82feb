"""The whole model: its gradients, the dependences of its outputs, and dropout."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import DropoutStream, Tape, check_gradients, ops, watching
from npformer import Batch, Packed, Transformer, TransformerConfig
from npformer.attention import CrossAttention, recorded_weights
from tests.npformer.models import (
    BEGIN,
    END,
    TINY,
    assert_close,
    configs,
    gradients,
    lengths,
    lively,
    part,
    random_batch,
    seeds,
)

# The gradient


@given(configs(), lengths, seeds, st.booleans())
def test_gradients_of_all_parameters_match_finite_differences(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int, dropping: bool
) -> None:
    model = lively(Transformer(config, seed=seed, dtype=np.float64), seed)
    batch = random_batch(config, sizes, seed)
    stream = DropoutStream(seed=seed, step=3) if dropping else None
    # A small step, so that no input of a ReLU crosses 0.
    check_gradients(
        lambda *_: model.losses(batch, stream)[0],
        *model.parameters().values(),
        step=1e-6,
        tolerance=1e-7,
        seed=seed,
    )


@given(configs(), lengths, seeds)
def test_the_loss_depends_on_every_parameter(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int
) -> None:
    model = lively(Transformer(config, seed=seed, dtype=np.float64), seed)
    batch = random_batch(config, [*sizes, (3, 3)], seed)
    for name, gradient in gradients(model, [batch]).items():
        assert gradient.any(), name


def test_a_window_restricts_self_attention_and_nothing_else() -> None:
    config = TransformerConfig(**{**TINY, "attention_window": 4})
    batch = random_batch(config, [(9, 8)])
    with recorded_weights() as recorded:
        Transformer(config).loss(batch)
    for attention, [weights] in recorded:
        _, n, m = weights.shape
        distance = np.arange(m) - np.arange(n)[:, None]
        if isinstance(attention, CrossAttention):
            seen = distance == distance
        elif attention.causal:
            seen = (distance > -4) & (distance <= 0)
        else:
            seen = (distance >= -2) & (distance <= 1)
        assert ((weights > 0) == seen).all()
    assert len(recorded) == 3


@given(configs(), lengths, seeds)
@settings(max_examples=10)
def test_float32_agrees_with_float64(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int
) -> None:
    batch = random_batch(config, sizes, seed)
    stream = DropoutStream(seed, 1)
    exact, single = (
        gradients(Transformer(config, seed=seed, dtype=dtype), [batch], stream)
        for dtype in (np.float64, np.float32)
    )
    assert all(g.dtype == np.float32 for g in single.values())
    assert_close(single, exact, within=1e-4)


# The dependences of an output


@given(configs(), lengths, seeds)
def test_a_sentence_does_not_depend_on_the_others_of_its_batch(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    batch = random_batch(config, sizes, seed)
    together = Packed(model.logits(batch).numpy(), batch.target_input.sentences)
    for i, found in enumerate(together):
        alone = model.logits(part(batch, i, i + 1)).numpy()
        np.testing.assert_allclose(found, alone, rtol=1e-12, atol=1e-12)


@given(configs(), lengths, seeds)
@settings(max_examples=10)
def test_the_loss_of_a_batch_is_the_sum_over_its_sentences(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    batch = random_batch(config, sizes, seed)
    both = [float(x) for x in model.losses(batch)]
    parts = [[float(x) for x in model.losses(part(batch, i, i + 1))] for i in range(len(batch))]
    np.testing.assert_allclose(both, np.sum(parts, axis=0), rtol=1e-12)
    assert float(model.loss(batch)) == pytest.approx(both[0] / batch.target_tokens, rel=1e-12)


@given(configs(), st.integers(1, 5), seeds, st.data())
def test_a_token_does_not_depend_on_later_ones(
    config: TransformerConfig, size: int, seed: int, data: st.DataObject
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    batch = random_batch(config, [(3, size)], seed)
    position = data.draw(st.integers(1, size))
    changed = batch.target_input.tokens.copy()
    changed[position] = 3 + (changed[position] - 2) % (config.vocab_size - 3)
    other = dataclasses.replace(batch, target_input=Packed(changed, [size + 1]))
    before, after = model.logits(batch).numpy(), model.logits(other).numpy()
    differs = (after != before).any(axis=1)
    window, layers = config.attention_window, config.decoder_depth
    reached = size if window is None else position + layers * (window - 1)
    assert differs[position : reached + 1].all()
    assert not differs[:position].any()
    assert not differs[reached + 1 :].any()


@given(configs(), st.integers(1, 5), seeds, st.data())
@settings(max_examples=10)
def test_every_token_depends_on_the_whole_source(
    config: TransformerConfig, size: int, seed: int, data: st.DataObject
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    batch = random_batch(config, [(size, 3)], seed)
    changed = batch.source.tokens.copy()
    changed[data.draw(st.integers(0, size - 1))] = BEGIN
    other = dataclasses.replace(batch, source=Packed(changed, [size + 1]))
    assert (model.logits(other).numpy() != model.logits(batch).numpy()).any(axis=1).all()


def test_with_decoder_start_zero_the_first_token_does_not_matter() -> None:
    zero, token = (
        lively(Transformer(TransformerConfig(**TINY, decoder_start=start), dtype=np.float64))
        for start in ("zero", "token")
    )
    batch = random_batch(zero.config, [(3, 3), (2, 0)])
    for model, matters in ((zero, False), (token, True)):
        before = model.logits(batch).numpy()
        tokens = batch.target_input.tokens.copy()
        tokens[batch.target_input.offsets[:-1]] = 5
        other = dataclasses.replace(batch, target_input=Packed(tokens, batch.target_input.lengths))
        assert (model.logits(other).numpy() != before).any() == matters


# Dropout


@given(configs(dropout=0.3, attention_dropout=0.3, ffn_dropout=0.3), lengths, seeds)
@settings(max_examples=10)
def test_dropout_is_applied_only_if_a_stream_is_given(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    without = lively(
        Transformer(
            dataclasses.replace(config, dropout=0.0, attention_dropout=0.0, ffn_dropout=0.0),
            dtype=np.float64,
        )
    )
    batch = random_batch(config, sizes, seed)
    with Tape():
        on_tape = float(model.loss(batch))
    assert on_tape == float(model.loss(batch)) == float(without.loss(batch))
    stream = DropoutStream(seed, 1)
    dropped = float(model.loss(batch, stream))
    assert dropped != on_tape
    assert dropped == float(model.loss(batch, stream))
    assert dropped != float(model.loss(batch, DropoutStream(seed, 2)))
    assert dropped != float(model.loss(batch, DropoutStream(seed + 1, 1)))


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_every_dropout_site_is_independent(norm: Any) -> None:
    config = TransformerConfig(
        **{**TINY, "layers": 2}, norm=norm, dropout=0.1, attention_dropout=0.2, ffn_dropout=0.3
    )
    watched = (ops.embedding, ops.add_dropout_norm, ops.attention, ops.dropout, ops.feed_forward)
    with watching(*watched) as calls:
        Transformer(config).loss(random_batch(config, [(2, 2)]), DropoutStream(0, 1))
    sites = [call[1]["site"] for kernel in watched for call in calls[kernel]]
    # Two embeddings; a layer has 2 or 3 sub-layers, the last of which is feed-forward.
    assert sorted(s.rate for s in sites) == [0.1] * (2 + 2 * 5) + [0.2] * 2 * 3 + [0.3] * 2 * 2
    assert len({s.site for s in sites}) == len(sites)


@given(configs(), lengths, seeds, st.data())
def test_accumulated_gradients_of_parts_equal_those_of_the_whole_batch(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int, data: st.DataObject
) -> None:
    batch = random_batch(config, sizes, seed)
    model = lively(Transformer(config, dtype=np.float64))
    cuts = data.draw(st.sets(st.integers(1, len(sizes))))
    bounds = sorted({0, len(sizes), *cuts})
    parts = [part(batch, i, j) for i, j in itertools.pairwise(bounds)]
    stream = DropoutStream(seed, 5)
    whole = gradients(model, [batch], stream)
    assert_close(gradients(model, parts, stream), whole, within=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "strict"])
@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ([3, 40], [3], r"a source sentence has the id 40; those of .* 0 to 11"),
        ([3, -1], [3], r"a source sentence has the id -1;"),
        ([3], [12, 3], r"a target sentence has the id 12; those of the model's .* 0 to 11"),
        ([3], [3, -2], r"a target sentence has the id -2;"),
    ],
)
def test_token_ids_outside_of_the_vocabulary_are_refused(
    backend: str, source: list[int], target: list[int], message: str
) -> None:
    config = TransformerConfig(**{**TINY, "vocab_size": 12})
    model = Transformer(config).to(backend)
    batch = Batch.of([[3], source], [[3], target], begin_id=BEGIN, end_id=END)
    for attempt in (model.prepared, model.loss):
        with pytest.raises(ValueError, match=message):
            attempt(batch)
    if "source" in message:
        with pytest.raises(ValueError, match=message):
            model.start(batch.source, beam=1, capacity=3)


def test_token_ids_must_be_whole_numbers() -> None:
    model = Transformer(TransformerConfig(**TINY))
    with pytest.raises(ValueError, match="integers, got float64"):
        model.encode(Packed(np.array([3.0]), np.array([1])))


# Shared parameters


@pytest.mark.parametrize(
    ("share", "own"),
    [
        ("all", {"embedding"}),
        ("target", {"embedding", "source_embedding"}),
        ("none", {"embedding", "source_embedding", "projection"}),
    ],
)
def test_embeddings_are_shared_as_configured(share: Any, own: set[str]) -> None:
    source_vocab_size = None if share == "all" else 7
    model = Transformer(
        TransformerConfig(**TINY, share_embeddings=share, source_vocab_size=source_vocab_size)
    )
    tables = {n: p.shape for n, p in model.parameters().items() if "." not in n}
    shapes = {"embedding": (11, 8), "source_embedding": (7, 8), "projection": (11, 8)}
    assert tables == {name: shapes[name] for name in own}
