"""The JAX peer computes what ours does: losses, gradient norms and steps of Adam."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")

from autograd import references  # noqa: E402
from benchmarks.jax_transformer import rows_of, steps  # noqa: E402
from npformer import Batch, Transformer, TransformerConfig  # noqa: E402
from train.adam import Adam  # noqa: E402
from train.step import train_step  # noqa: E402

CONFIG = TransformerConfig(
    vocab_size=31, layers=2, d_model=16, d_ff=24, heads=2, dropout=0.1, smoothing=0.1
)


def make_batches() -> list[Batch]:
    rng = np.random.default_rng(0)

    def sentences(count: int) -> list[list[int]]:
        return [rng.integers(3, 31, n).tolist() for n in rng.integers(1, 100, count)]

    return [Batch.of(sentences(n), sentences(n), begin_id=1, end_id=2) for n in (9, 17)]


def test_rows_hold_every_token_of_a_batch_once() -> None:
    batches = make_batches()
    made = rows_of(batches)
    assert len({x.shape for rows in made for x in jax.tree.leaves(rows)}) == 1
    assert len({x.shape for rows in rows_of(batches, 99, 2) for x in jax.tree.leaves(rows)}) == 2
    for batch, rows in zip(batches, made, strict=True):
        for packed, side in ((batch.source, rows.source), (batch.target_input, rows.target)):
            found = {}
            for row, place in zip(*np.nonzero(side.sentences), strict=True):
                sentence = int(row), int(side.sentences[row, place])
                found.setdefault(sentence, []).append(
                    (int(side.positions[row, place]), int(side.ids[row, place]))
                )
            expected = [[*enumerate(ids.tolist())] for ids in packed]
            assert sorted(found.values()) == sorted(expected)
        assert (rows.output[rows.target.sentences == 0] == 0).all()
        # A pair's sentences are in one row, with one number.
        pairs = [
            set(zip(*np.nonzero(s.sentences), strict=True)) for s in (rows.source, rows.target)
        ]
        numbers = [
            {(int(r), int(s.sentences[r, c])) for r, c in of}
            for s, of in zip((rows.source, rows.target), pairs, strict=True)
        ]
        assert numbers[0] == numbers[1]


def test_a_step_has_our_loss_and_norm_and_changes_the_model_as_ours() -> None:
    batches, model = make_batches(), Transformer(CONFIG, seed=0)
    rows = rows_of(batches, 99, shapes=2)
    run = steps(CONFIG, rows, model, "float32", rate=1e-2, with_dropout=False)
    optimizer = Adam(model.buffer)
    with references():
        for k in (0, 1, 0, 1):
            result = train_step(model, optimizer, [batches[k]], 1e-2)
            loss, _, norm = result.numbers.tolist()
            theirs = [float(x) for x in run(k)]
            np.testing.assert_allclose(theirs, [loss / result.target_tokens, norm], rtol=2e-4)


def test_a_step_in_bfloat16_with_dropout_is_close_to_ours() -> None:
    batches, model = make_batches(), Transformer(CONFIG, seed=0)
    loss, _ = steps(CONFIG, rows_of(batches), model)(0)
    with references():
        numbers = train_step(model, Adam(model.buffer), [batches[0]], 1e-4).numbers
    assert float(loss) == pytest.approx(numbers[0] / batches[0].target_tokens, rel=0.05)
