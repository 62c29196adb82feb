"""Training on a GPU: NumPy's steps in float32, close to them in bfloat16, and reproducible."""

import numpy as np
import pytest

from autograd import DropoutStream, Tape, backend, to_host
from benchmarks.spin import spin
from npformer import Transformer, TransformerConfig
from tests.examples.small import small_batch, small_config
from tests.examples.test_parts import PARTS
from tests.npformer.test_emulated_training import CONFIG, batches, losses
from tests.train.runs import assert_same_run, settings, start, stopped_at
from tests.train.small_corpus import make_corpus
from train.adam import Adam
from train.runs.run import Run
from train.step import train_step
from train.trainer import Trainer

LARGER = {"layers": 2, "d_model": 64, "d_ff": 128, "vocab_size": 51}


def test_twenty_steps_in_float32_match_numpys():
    expected, _ = losses("numpy", "float32", 20, **LARGER)
    found, _ = losses("cupy", "float32", 20, **LARGER)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_two_hundred_steps_stay_close_to_numpys():
    # Batches and rates for which rounding errors do not grow: NumPy's float32 is within 0.2 % of
    # float64. With a rate of 2e-3 and 5 pairs it is 10 % away.
    calm = {"rate": 5e-4, "pairs": 30, **LARGER}
    expected, _ = losses("numpy", "float32", 200, **calm)
    single, _ = losses("cupy", "float32", 200, **calm)
    rounded, _ = losses("cupy", "bf16", 200, **calm)
    assert expected[-1] < 0.7 * expected[0]
    np.testing.assert_allclose(single, expected, rtol=0.01)
    np.testing.assert_allclose(rounded, single, rtol=0.02)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_seed_gives_the_same_parameters_bit_by_bit(precision):
    def trained() -> bytes:
        _, model = losses("cupy", precision, 10, **LARGER)
        return bytes(to_host(model.buffer.values).tobytes())

    assert trained() == trained()


@pytest.mark.parametrize("name", sorted(PARTS))
def test_parts_of_ones_own_train_in_bfloat16(name):
    losses = {}
    for backend_name, precision in (("numpy", "float32"), ("cupy", "bf16")):
        model = Transformer(small_config(), seed=0, parts=PARTS[name]).to(backend_name, precision)
        optimizer, batch = Adam(model.buffer), model.prepared(small_batch())
        results = [
            train_step(model, optimizer, [batch], 1e-2, DropoutStream(0, step)) for step in (1, 2)
        ]
        losses[precision] = [float(to_host(result.loss_sum)) for result in results]
    np.testing.assert_allclose(losses["bf16"], losses["float32"], rtol=0.02)


@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-5), ("bf16", 2e-2)])
def test_gradients_of_the_whole_model_match_float64(precision, within):
    config = TransformerConfig(**{**CONFIG, **LARGER})
    batch, dropout = batches(1)[0], DropoutStream(7, 1)

    def gradients(model: Transformer) -> dict[str, np.ndarray]:
        model.buffer.allocate_gradients()
        with Tape() as tape:
            loss = model.loss(batch, dropout)
        tape.backward(loss)
        return {n: to_host(p.grad).astype(np.float64) for n, p in model.parameters().items()}

    expected = gradients(Transformer(config, seed=2, dtype=np.float64))
    found = gradients(Transformer(config, seed=2).to("cupy", precision))
    whole = np.sqrt(sum((g**2).sum() for g in expected.values()))
    for name, g in expected.items():
        assert np.linalg.norm(found[name] - g) <= within * whole, name


def test_results_gradients_and_moments_of_a_step_are_float32():
    """No dtype is promoted by accident."""
    model = Transformer(TransformerConfig(**CONFIG)).to("cupy", "bf16")
    optimizer = Adam(model.buffer)
    result = train_step(model, optimizer, [model.prepared(batches(1)[0])], 1e-3)
    for number in (result.loss_sum, result.nll_sum, result.gradient_norm):
        assert number.dtype == np.float32
    assert optimizer.first.dtype == optimizer.grads.dtype == np.float32
    assert model.buffer.rounded is not None
    assert model.buffer.rounded.dtype == backend.bfloat16()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_is_queued_without_waiting_for_the_device(precision):
    """A whole step is queued while the device is busy."""
    gpu = backend.backend("cupy")
    model = Transformer(TransformerConfig(**{**CONFIG, **LARGER}), seed=1).to("cupy", precision)
    optimizer, batch = Adam(model.buffer), model.prepared(batches(1)[0])

    def step() -> None:
        train_step(model, optimizer, [batch], 1e-3, DropoutStream(0, 1), 1.0)

    for _ in range(3):  # compiles the kernels
        step()
    spin(gpu, 1)  # compiles this kernel, too
    gpu.synchronize()
    spin(gpu, 4_000_000_000)  # about two seconds
    spun = gpu.xp.cuda.Event()
    spun.record()
    step()
    assert not spun.done
    gpu.synchronize()
    assert spun.done


def test_a_resumed_run_computes_its_products_as_it_began_to(tmp_path):
    corpus = make_corpus(tmp_path)
    chosen = settings(backend="cupy", max_steps=2, validate_every=9)
    start(chosen, corpus, tmp_path / "whole")
    stopped_at(1, chosen, corpus, tmp_path / "parts")
    Trainer.resume(chosen, corpus, Run(tmp_path / "parts")).train()
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    made, expected = (
        {path.name: path.read_bytes() for path in Run(tmp_path / name).products.iterdir()}
        for name in ("parts", "whole")
    )
    assert made == expected != {}
