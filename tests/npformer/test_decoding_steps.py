"""Decoding one token at a time gives the same as decoding whole sentences."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import ops, references
from npformer import Batch, Packed, Transformer, TransformerConfig
from tests.npformer.models import BEGIN, configs, lengths, lively, random_batch, seeds


@given(configs(), lengths, st.integers(1, 3), seeds)
def test_decoding_step_by_step_gives_the_logits_of_whole_sentences(
    config: TransformerConfig, sizes: list[tuple[int, int]], beam: int, seed: int
) -> None:
    # Hypotheses are random tokens, and are reordered between steps as in a search.
    rng = np.random.default_rng(seed)
    model = lively(Transformer(config, dtype=np.float64))
    sources = random_batch(config, sizes, seed).source
    steps = 4
    state = model.start(sources, beam, capacity=steps)
    rows = len(sizes) * beam
    ids = np.full((rows, 1), BEGIN)
    for _ in range(steps):
        found = model.next_log_p(ids[:, -1], state)
        whole = model.logits(
            Batch(
                Packed.of([s for s in sources for _ in range(beam)]),
                Packed.of(ids),
                Packed.of(ids),
            )
        ).numpy()
        last = whole.reshape(rows, ids.shape[1], -1)[:, -1]
        np.testing.assert_allclose(found, ops.log_softmax(last), rtol=1e-10, atol=1e-10)
        chosen = (
            np.arange(len(sizes))[:, None] * beam + rng.integers(0, beam, (len(sizes), beam))
        ).reshape(-1)
        for slots in state.tokens:  # those of later tokens stay
            slots[:, : ids.shape[1]] = slots[chosen, : ids.shape[1]]
        ids = np.concatenate([ids[chosen], rng.integers(0, config.vocab_size, (rows, 1))], axis=1)


@given(configs(), st.integers(1, 2), seeds, st.data())
@settings(max_examples=10)
def test_dropping_sentences_does_not_change_the_others(
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


@pytest.mark.parametrize("fast", [True, False])
def test_a_source_without_tokens_is_decoded_whatever_is_beside_it(fast: bool) -> None:
    config = TransformerConfig(9, layers=1, d_model=8, d_ff=8, heads=2)
    model = lively(Transformer(config))

    def outputs(source: list[list[int]]) -> np.ndarray:
        state = model.start(Packed.of(source), beam=2, capacity=2)
        return model.step(np.full(2 * len(source), BEGIN), state).numpy()

    with nullcontext() if fast else references():
        expected = outputs([[], [3, 4]])[:2]
        np.testing.assert_allclose(outputs([[], []]), np.tile(expected, (2, 1)), atol=1e-6)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("source", [[], [[3, 4]]])
def test_without_running_sentences_there_are_no_rows(source: list[list[int]], fast: bool) -> None:
    model = Transformer(TransformerConfig(9, layers=1, d_model=8, d_ff=8, heads=2))
    with nullcontext() if fast else references():
        state = model.start(Packed.of(source), beam=2, capacity=2)
        state.keep(np.zeros(0, int))
        log_p, ids = model.top_k(np.zeros(0, int), state, 3)
    assert log_p.shape == ids.shape == (0, 3)
