"""Attention with learned vectors for the distance of two tokens."""

from __future__ import annotations

import numpy as np
import pytest

from autograd import DropoutStream, Sentences, Tensor, check_gradients
from examples.relative_positions import FARTHEST, RelativeSelfAttention
from npformer import Batch, Parts, Transformer, TransformerConfig
from npformer.attention import SelfAttention
from npformer.parameters import Scope
from npformer.positions import NoPositions
from tests.examples.small import small_config

LENGTHS = np.array([3, FARTHEST + 4, 1, 0, 3])
SENTENCES = Sentences(LENGTHS)
BATCH = int(LENGTHS.sum())


def a_layer(causal: bool, **changes: float) -> tuple[RelativeSelfAttention, Scope]:
    scope = Scope()
    layer = RelativeSelfAttention(scope, small_config(d_k=3, d_v=5, **changes), causal)
    scope.allocate(seed=0, dtype=np.float64)
    return layer, scope


def an_input(tokens: int = BATCH) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((tokens, 8))


def formula(layer: RelativeSelfAttention, x: np.ndarray, causal: bool) -> np.ndarray:
    """Equations 3 and 4 of Shaw et al. for one sentence, number by number."""
    qkv = x @ layer.qkv.weight.numpy() + layer.qkv.bias.numpy()
    q, k, v = np.split(qkv, [2 * 3, 2 * 2 * 3], axis=1)
    z = np.zeros((len(x), 2 * 5))
    for head in range(2):
        of_key, of_value = slice(3 * head, 3 * head + 3), slice(5 * head, 5 * head + 5)
        for i in range(len(x)):
            seen = range(i + 1 if causal else len(x))
            distances = [FARTHEST + max(-FARTHEST, min(FARTHEST, j - i)) for j in seen]
            a, b = layer.of_keys.numpy()[distances], layer.of_values.numpy()[distances]
            e = (k[seen, of_key] + a) @ q[i, of_key] / np.sqrt(3)
            weights = np.exp(e) / np.exp(e).sum()
            z[i, of_value] = weights @ (v[seen, of_value] + b)
    return z @ layer.output.weight.numpy() + layer.output.bias.numpy()


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_the_formula_of_the_paper_in_each_sentence(causal: bool) -> None:
    layer, _ = a_layer(causal)
    x = an_input()
    got = layer.attend(Tensor(x), SENTENCES, None).value
    parts = np.split(x, np.cumsum(LENGTHS)[:-1])
    expected = [formula(layer, sentence, causal) for sentence in parts]
    np.testing.assert_allclose(got, np.concatenate(expected), rtol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_its_gradient_is_right(causal: bool, rate: float) -> None:
    layer, scope = a_layer(causal, attention_dropout=rate)
    dropout = DropoutStream(0, 1) if rate else None
    check_gradients(
        lambda x, *_: layer.attend(x, SENTENCES, dropout), an_input(), *scope.parameters.values()
    )


def test_with_vectors_of_zero_it_is_the_papers_attention() -> None:
    layer, _ = a_layer(causal=True)
    layer.of_keys.assign(np.zeros(layer.of_keys.shape))
    layer.of_values.assign(np.zeros(layer.of_values.shape))
    x = Tensor(an_input())
    expected = SelfAttention.attend(layer, x, SENTENCES, None).value
    np.testing.assert_allclose(layer.attend(x, SENTENCES, None).value, expected, rtol=1e-10)
    for got, wanted in zip(
        layer.weights(x, SENTENCES), SelfAttention.weights(layer, x, SENTENCES), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-10)


def test_steps_with_a_cache_are_recomputation_in_whatever_slots() -> None:
    """Two rows whose tokens lie in slots that are not their own, as after a beam's reordering."""
    layer, _ = a_layer(causal=True)
    length = FARTHEST + 4
    x = an_input(2 * length).reshape(2, length, 8)
    cache = np.empty((2, length, layer.cached_columns))
    token_slots = np.zeros((2, length), np.int32)
    slots = np.array([0, 1], np.int32)
    for i in range(length):
        slots = slots[::-1].copy()
        token_slots[:, i] = slots
        step = layer.step(Tensor(x[:, i]), cache, slots, token_slots, np.full(2, i + 1)).value
        for row in range(2):
            whole = layer.attend(Tensor(x[row, : i + 1]), Sentences([i + 1]), None).value
            np.testing.assert_allclose(step[row], whole[-1], rtol=1e-10)


def test_dropout_does_not_depend_on_how_a_batch_is_split() -> None:
    """So ranks take the steps of one process, whatever each of them pads its sentences to."""
    config = TransformerConfig(
        vocab_size=9, layers=1, d_model=8, d_ff=8, heads=2, attention_dropout=0.5
    )
    parts = Parts(self_attention=RelativeSelfAttention, positions=NoPositions)
    model, dropout = Transformer(config, 0, np.float64, parts=parts), DropoutStream(1, 1)
    sources, targets = [[3], [4, 5, 6, 7]], [[5, 6], [7]]

    def loss(begin: int, end: int, rows: tuple[int, int] = (0, 0)) -> float:
        batch = Batch.of(sources[begin:end], targets[begin:end], begin_id=1, end_id=2)
        return float(model.losses(batch, dropout, rows)[0].value)

    assert loss(0, 1) + loss(1, 2, (2, 3)) == pytest.approx(loss(0, 2), rel=1e-12)
