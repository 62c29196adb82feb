"""A model on another array library and a copy of a model learn like the original."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from autograd import DropoutStream, to_host, using
from npformer import Transformer, TransformerConfig
from tests.npformer.models import TINY, part, random_batch
from train.adam import Adam
from train.step import train_step


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
def test_a_copy_learns_like_its_original_and_does_not_change_it(copy_of: Any) -> None:
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
