"""Decoding one token at a time gives the same as decoding whole sentences."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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
        found = model.step(ids[:, -1], state).value @ model.projection.value.T
        whole = model.logits(
            Batch(
                Packed.of([s for s in sources for _ in range(beam)]),
                Packed.of(ids),
                Packed.of(ids),
            )
        ).numpy()
        last = whole.reshape(rows, ids.shape[1], -1)[:, -1]
        np.testing.assert_allclose(found, last, rtol=1e-10, atol=1e-10)
        chosen = (
            np.arange(len(sizes))[:, None] * beam + rng.integers(0, beam, (len(sizes), beam))
        ).reshape(-1)
        state.reorder(chosen)
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
