"""The whole model: its gradients, what each output depends on, and its first values."""

import copy
import dataclasses
import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import DropoutStream, Tape, check_gradients, ops, to_host, using, watching
from npformer import Batch, Packed, Transformer, TransformerConfig, UserError
from npformer.positions import sinusoids
from tests.npformer.initial import initial_values
from train.adam import Adam
from train.step import train_step

BEGIN, END = 1, 2
TINY: dict[str, Any] = {
    "vocab_size": 11,
    "layers": 1,
    "d_model": 8,
    "d_ff": 12,
    "heads": 2,
    "max_length": 16,
}

rates = st.sampled_from([0.0, 0.3])


@st.composite
def configs(draw: st.DrawFn, **fixed: Any) -> TransformerConfig:
    """A tiny model with any of the options."""
    share = draw(st.sampled_from(["all", "target", "none"]))
    options: dict[str, Any] = {
        **TINY,
        "norm": draw(st.sampled_from(["post", "pre"])),
        "positions": draw(st.sampled_from(["interleaved", "concatenated", "learned"])),
        "position_spacing": draw(st.sampled_from(["d/2", "d/2-1"])),
        "share_embeddings": share,
        "source_vocab_size": None if share == "all" else draw(st.sampled_from([None, 7])),
        "smoothing": draw(st.sampled_from([0.0, 0.1])),
        "smoothing_spread": draw(st.sampled_from(["vocabulary", "others"])),
        "decoder_start": draw(st.sampled_from(["symbol", "zero"])),
        "d_k": draw(st.sampled_from([None, 3])),
        "d_v": draw(st.sampled_from([None, 5])),
        "dropout": draw(rates),
        "attention_dropout": draw(rates),
        "ffn_dropout": draw(rates),
        "initialisation": draw(st.sampled_from(["separate", "fused"])),
    }
    return TransformerConfig(**{**options, **fixed})


lengths = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4
)  # of source and target, without begin and end
seeds = st.integers(0, 2**32 - 1)


def random_batch(config: TransformerConfig, sizes: list[tuple[int, int]], seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    source_vocab = config.source_vocab_size or config.vocab_size
    return Batch.of(
        [rng.integers(3, source_vocab, n).tolist() for n, _ in sizes],
        [rng.integers(3, config.vocab_size, m).tolist() for _, m in sizes],
        begin_id=BEGIN,
        end_id=END,
    )


def part(batch: Batch, i: int, j: int) -> Batch:
    """Pairs i to j - 1 of a batch."""
    return Batch(
        *(
            Packed.of(side.sentences()[i:j])
            for side in (batch.source, batch.target_input, batch.target_output)
        )
    )


def lively(model: Transformer, seed: int = 0) -> Transformer:
    """The model with every parameter moved, so that no bias is 0 and no gain is 1."""
    rng = np.random.default_rng(seed)
    for parameter in model.parameters().values():
        noise = 0.2 * rng.standard_normal(parameter.shape)
        parameter.assign(parameter.numpy() + noise)
    return model


def gradients(
    model: Transformer, batches: list[Batch], dropout: DropoutStream | None = None
) -> dict[str, np.ndarray]:
    """What one training step finds; at a rate of 0 it leaves the model as it was."""
    train_step(model, Adam(model.buffer), batches, rate=0.0, dropout=dropout)
    return {name: to_host(p.grad).copy() for name, p in model.parameters().items()}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], within: float):
    assert found.keys() == expected.keys()
    size = math.sqrt(sum(float((g**2).sum()) for g in expected.values()))
    for name in expected:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=within * size, err_msg=name
        )


# The gradient


@given(configs(), lengths, seeds, st.booleans())
def test_the_gradient_of_every_parameter_is_right(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int, dropping: bool
) -> None:
    model = lively(Transformer(config, seed=seed, dtype=np.float64), seed)
    batch = random_batch(config, sizes, seed)
    stream = DropoutStream(seed=seed, step=3) if dropping else None
    # A small step, lest one of the many inputs of ReLUs crosses 0 on its way.
    check_gradients(
        lambda *_: model.losses(batch, stream),
        *model.parameters().values(),
        step=1e-6,
        tolerance=1e-7,
        seed=seed,
    )


@given(configs(), lengths, seeds)
def test_every_parameter_takes_part(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int
) -> None:
    model = lively(Transformer(config, seed=seed, dtype=np.float64), seed)
    batch = random_batch(config, [*sizes, (3, 3)], seed)
    for name, gradient in gradients(model, [batch]).items():
        assert gradient.any(), name


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


# What an output depends on


@given(configs(), lengths, seeds)
def test_a_sentence_knows_nothing_of_the_others_in_its_batch(
    config: TransformerConfig, sizes: list[tuple[int, int]], seed: int
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    batch = random_batch(config, sizes, seed)
    together = Packed(model.logits(batch).numpy(), batch.target_input.lengths).sentences()
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
def test_a_symbol_does_not_see_those_after_it(
    config: TransformerConfig, size: int, seed: int, data: st.DataObject
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    batch = random_batch(config, [(3, size)], seed)
    place = data.draw(st.integers(1, size))
    changed = batch.target_input.tokens.copy()
    changed[place] = 3 + (changed[place] - 2) % (config.vocab_size - 3)
    other = dataclasses.replace(batch, target_input=Packed(changed, [size + 1]))
    before, after = model.logits(batch).numpy(), model.logits(other).numpy()
    np.testing.assert_array_equal(after[:place], before[:place])
    assert (after[place:] != before[place:]).any(axis=1).all()


@given(configs(), st.integers(1, 5), seeds, st.data())
@settings(max_examples=10)
def test_every_symbol_sees_the_whole_source(
    config: TransformerConfig, size: int, seed: int, data: st.DataObject
) -> None:
    model = lively(Transformer(config, dtype=np.float64))
    batch = random_batch(config, [(size, 3)], seed)
    changed = batch.source.tokens.copy()
    changed[data.draw(st.integers(0, size - 1))] = BEGIN
    other = dataclasses.replace(batch, source=Packed(changed, [size + 1]))
    assert (model.logits(other).numpy() != model.logits(batch).numpy()).any(axis=1).all()


def test_with_decoder_start_zero_the_first_symbol_is_none_at_all() -> None:
    zero, symbol = (
        lively(Transformer(TransformerConfig(**TINY, decoder_start=start), dtype=np.float64))
        for start in ("zero", "symbol")
    )
    batch = random_batch(zero.config, [(3, 3), (2, 0)])
    for model, matters in ((zero, False), (symbol, True)):
        before = model.logits(batch).numpy()
        tokens = batch.target_input.tokens.copy()
        tokens[batch.target_input.offsets[:-1]] = 5
        other = dataclasses.replace(batch, target_input=Packed(tokens, batch.target_input.lengths))
        assert (model.logits(other).numpy() != before).any() == matters


# One symbol at a time


@given(configs(), lengths, st.integers(1, 3), seeds)
def test_the_decoder_says_the_same_step_by_step(
    config: TransformerConfig, sizes: list[tuple[int, int]], beam: int, seed: int
) -> None:
    # Hypotheses are of unrelated symbols; between steps the beam is shuffled, as a search does.
    rng = np.random.default_rng(seed)
    model = lively(Transformer(config, dtype=np.float64))
    sources = random_batch(config, sizes, seed).source
    steps = 4
    state = model.start(sources, beam, capacity=steps)
    rows = len(sizes) * beam
    symbols = np.full((rows, 1), BEGIN)
    for _ in range(steps):
        found = model.step(symbols[:, -1], state).value @ model.projection.value.T
        whole = model.logits(
            Batch(
                Packed.of([s for s in sources.sentences() for _ in range(beam)]),
                Packed.of(symbols),
                Packed.of(symbols),
            )
        ).numpy()
        last = whole.reshape(rows, symbols.shape[1], -1)[:, -1]
        np.testing.assert_allclose(found, last, rtol=1e-10, atol=1e-10)
        chosen = (
            np.arange(len(sizes))[:, None] * beam + rng.integers(0, beam, (len(sizes), beam))
        ).reshape(-1)
        state.reorder(chosen)
        symbols = np.concatenate(
            [symbols[chosen], rng.integers(0, config.vocab_size, (rows, 1))], axis=1
        )


@given(configs(), st.integers(1, 2), seeds, st.data())
@settings(max_examples=10)
def test_sentences_that_are_kept_go_on_as_before(
    config: TransformerConfig, beam: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    model = lively(Transformer(config, dtype=np.float64))
    source = random_batch(config, [(n, 0) for n in (3, 0, 5, 2)], seed).source
    ids = rng.integers(0, config.vocab_size, (3, 4, beam))
    kept = data.draw(st.lists(st.integers(0, 3), unique=True, min_size=1))

    def run(keeping: bool) -> np.ndarray:
        state = model.start(source, beam, capacity=3)
        model.step(ids[0].reshape(-1), state)
        model.step(ids[1].reshape(-1), state)
        if keeping:
            state.keep(np.array(kept, int))
            return model.step(ids[2][kept].reshape(-1), state).value
        y = model.step(ids[2].reshape(-1), state).value
        return y.reshape(4, beam, -1)[kept].reshape(-1, config.d_model)

    np.testing.assert_allclose(run(True), run(False), rtol=1e-12, atol=1e-12)


# Dropout


@given(configs(dropout=0.3, attention_dropout=0.3, ffn_dropout=0.3), lengths, seeds)
@settings(max_examples=10)
def test_dropout_happens_where_a_stream_is_passed_and_nowhere_else(
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
def test_every_place_drops_on_its_own(norm: Any) -> None:
    config = TransformerConfig(
        **{**TINY, "layers": 2}, norm=norm, dropout=0.1, attention_dropout=0.2, ffn_dropout=0.3
    )
    watched = (ops.embedding, ops.add_dropout_norm, ops.attention, ops.dropout)
    with watching(*watched) as calls:
        Transformer(config).loss(random_batch(config, [(2, 2)]), DropoutStream(0, 1))
    sites = [call[1]["site"] for kernel in watched for call in calls[kernel]]
    # Two embeddings; a layer has 2 or 3 sub-layers, of which the last is feed-forward.
    assert sorted(s.rate for s in sites) == [0.1] * (2 + 2 * 5) + [0.2] * 2 * 3 + [0.3] * 2 * 2
    assert len({s.site for s in sites}) == len(sites)


@given(configs(), lengths, seeds, st.data())
def test_a_step_in_parts_has_the_gradient_of_the_whole(
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


# Another array library


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("positions", ["interleaved", "learned"])
def test_another_array_library_takes_the_same_training_steps(norm: Any, positions: Any) -> None:
    config = TransformerConfig(
        **TINY,
        norm=norm,
        positions=positions,
        dropout=0.2,
        attention_dropout=0.2,
        ffn_dropout=0.2,
        decoder_start="zero",
    )
    batch = random_batch(config, [(3, 2), (1, 4), (3, 2)])

    def trained(backend: str) -> tuple[list[float], dict[str, np.ndarray]]:
        with using(backend):
            model = Transformer(config, seed=3, dtype=np.float64)
            optimizer = Adam(model.buffer)
            batches = [part(batch, 0, 1), part(batch, 1, 3)]
            losses = [
                float(
                    train_step(model, optimizer, batches, 0.01, DropoutStream(0, s), 1.0).loss_sum
                )
                for s in range(1, 4)
            ]
            return losses, {n: to_host(p.value) for n, p in model.parameters().items()}

    losses, values = trained("numpy")
    strict_losses, strict_values = trained("strict")
    np.testing.assert_allclose(strict_losses, losses, rtol=1e-12)
    for name in values:
        np.testing.assert_allclose(strict_values[name], values[name], atol=1e-9, err_msg=name)


def test_a_model_moves_to_another_array_library_and_back() -> None:
    config = TransformerConfig(**TINY)
    batch = random_batch(config, [(3, 2), (1, 4)])
    model = Transformer(config, dtype=np.float64)
    before = model.logits(batch).numpy()
    moved = model.to("strict")
    assert moved is model
    assert not isinstance(model.logits(batch).value, np.ndarray)
    np.testing.assert_allclose(model.logits(batch).numpy(), before, rtol=1e-12, atol=1e-12)
    model.to("numpy")
    np.testing.assert_array_equal(model.logits(batch).numpy(), before)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_learns_as_its_original_does_and_leaves_it_alone(copy_of: Any) -> None:
    config = TransformerConfig(**TINY)
    batch = random_batch(config, [(3, 2), (1, 4)])
    model = Transformer(config, seed=1)
    before = model.logits(batch).numpy()
    losses = []
    for each in (copy_of(model), model):
        optimizer = Adam(each.buffer)
        losses.append([train_step(each, optimizer, [batch], 0.01).loss_sum for _ in range(3)])
        if each is not model:
            np.testing.assert_array_equal(model.logits(batch).numpy(), before)
    assert losses[0] == losses[1]
    assert losses[0][2] < losses[0][0]


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
def test_ids_that_the_vocabulary_does_not_have_are_refused(
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


def test_ids_are_whole_numbers() -> None:
    model = Transformer(TransformerConfig(**TINY))
    with pytest.raises(ValueError, match="whole numbers, and not float64"):
        model.encode(Packed(np.array([3.0]), np.array([1])))


# First values


def glorot(d_in: int, d_out: int) -> float:
    return math.sqrt(6 / (d_in + d_out))


@pytest.mark.parametrize("d_v", [16, 48])
def test_projections_begin_glorot_uniform_as_if_they_were_separate(d_v: int) -> None:
    d, h, d_k, d_ff = 64, 4, 16, 128
    config = TransformerConfig(
        vocab_size=9, layers=1, d_model=d, heads=h, d_k=d_k, d_v=d_v, d_ff=d_ff
    )
    values = initial_values(config, seed=0)
    qkv = values["decoder.0.self_attention.qkv.weight"]
    kv = values["decoder.0.cross_attention.kv.weight"]
    k, v = h * d_k, h * d_v
    blocks = [
        (qkv[:, :k], glorot(d, k)),
        (qkv[:, k : 2 * k], glorot(d, k)),
        (qkv[:, 2 * k :], glorot(d, v)),
        (kv[:, :k], glorot(d, k)),
        (kv[:, k:], glorot(d, v)),
        (values["decoder.0.cross_attention.q.weight"], glorot(d, k)),
        (values["encoder.0.self_attention.output.weight"], glorot(v, d)),
        (values["encoder.0.feed_forward.inner.weight"], glorot(d, d_ff)),
        (values["encoder.0.feed_forward.outer.weight"], glorot(d_ff, d)),
    ]
    for block, bound in blocks:
        assert 0.99 * bound < np.abs(block).max() <= bound * (1 + 1e-6)
        assert block.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert abs(block.mean()) < 0.05 * bound


def test_fused_projections_begin_with_a_smaller_gain() -> None:
    config = TransformerConfig(
        vocab_size=9, layers=1, d_model=64, heads=4, d_ff=128, initialisation="fused"
    )
    values = initial_values(config, seed=0)
    for name, bound in {
        "encoder.0.self_attention.qkv": glorot(64, 192) * math.sqrt(0.5),
        "decoder.0.cross_attention.kv": glorot(64, 128) * math.sqrt(0.5),
        "decoder.0.cross_attention.q": glorot(64, 64),
        "encoder.0.feed_forward.inner": glorot(64, 128),
    }.items():
        weight = values[f"{name}.weight"]
        assert 0.99 * bound < np.abs(weight).max() <= bound * (1 + 1e-6), name
        assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name


def test_embeddings_begin_normal_biases_zero_and_gains_one() -> None:
    config = TransformerConfig(
        vocab_size=500,
        layers=1,
        d_model=64,
        heads=4,
        d_ff=16,
        norm="pre",
        share_embeddings="none",
        positions="learned",
        max_length=300,
    )
    values = initial_values(config, seed=0)
    tables = {
        "embedding",
        "source_embedding",
        "projection",
        "source_positions",
        "target_positions",
    }
    for name, value in values.items():
        assert value.dtype == np.float32
        if name in tables:
            assert value.std() == pytest.approx(1 / math.sqrt(64), rel=0.03), name
            assert abs(value.mean()) < 0.005, name
        elif name.endswith(".gain"):
            assert (value == 1).all(), name
        elif name.endswith(".bias"):
            assert (value == 0).all(), name
        else:
            assert name.endswith(".weight")
    random = [v for n, v in values.items() if n in tables or n.endswith(".weight")]
    assert len({v.tobytes()[:64] for v in random}) == len(random)  # no two are alike


@given(configs(), configs(), seeds)
def test_a_first_value_depends_on_the_seed_and_its_name_alone(
    one: TransformerConfig, other: TransformerConfig, seed: int
) -> None:
    first = initial_values(one, seed)
    second = initial_values(dataclasses.replace(other, layers=2), seed)
    third = initial_values(one, seed + 1)
    shapes = ("d_k", "d_v", "initialisation", "source_vocab_size")
    for name in first.keys() & second.keys():
        if all(getattr(one, f) == getattr(other, f) for f in shapes):
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        if name.endswith((".weight", "embedding")):
            assert (first[name] != third[name]).any(), name


# Positions


@pytest.mark.parametrize("layout", ["interleaved", "concatenated"])
@pytest.mark.parametrize("spacing", ["d/2", "d/2-1"])
@pytest.mark.parametrize("d", [2, 4, 6, 32])
def test_positions_follow_the_paper_element_by_element(layout: str, spacing: str, d: int) -> None:
    table = sinusoids(40, d, layout, spacing)
    assert table.shape == (40, d)
    for position in range(40):
        for i in range(d // 2):
            # Section 3.5, or as tensor2tensor has it: 1 to 10000 in equal steps of the logarithm.
            if spacing == "d/2":
                wavelength = 10000 ** (2 * i / d)
            else:
                wavelength = math.exp(i * math.log(10000) / max(d // 2 - 1, 1))
            sine, cosine = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, d // 2 + i)
            angle = position / wavelength
            assert table[position, sine] == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[position, cosine] == pytest.approx(math.cos(angle), abs=1e-12)


@given(st.lists(st.integers(0, 5), max_size=5))
def test_places_count_from_0_in_each_sentence(sizes: list[int]) -> None:
    packed = Packed.of([[3] * n for n in sizes])
    assert packed.places.tolist() == [i for n in sizes for i in range(n)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_embedding_is_scaled_and_then_placed(dtype: Any) -> None:
    config = TransformerConfig(**TINY)
    model = Transformer(config, dtype=dtype)
    ids = np.array([4, 4, 5])
    found = model.source_embedding(ids, np.array([0, 7, 300]), 301).numpy()
    waves = sinusoids(301, 8, "interleaved", "d/2")[[0, 7, 300]]
    expected = model.parameters()["embedding"].numpy()[ids] * math.sqrt(8) + waves
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=10 * np.finfo(dtype).eps)


def test_a_sentence_longer_than_learned_positions_is_refused() -> None:
    model = Transformer(TransformerConfig(**TINY, positions="learned"))
    model.logits(random_batch(model.config, [(15, 15)]))
    for size in ((16, 3), (3, 16)):
        with pytest.raises(UserError, match=r"17 tokens is longer than the 16 .*max_length"):
            model.logits(random_batch(model.config, [size]))


# Parameters that are shared


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
