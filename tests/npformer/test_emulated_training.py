"""A whole model trains on emulated GPU kernels as it does on NumPy.

From the embedding to Adam, with dropout: backends differ only in rounding. tests/gpu has the same
tests on a real GPU.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ml_dtypes", reason="bfloat16 on NumPy needs ml_dtypes")

from autograd import DropoutStream, Tape, ops, watching
from autograd.backend import backend
from npformer import Batch, Transformer, TransformerConfig
from npformer.attention_maps import attention_maps
from tests.autograd.on_device import fresh_arrays
from tests.train.runs import settings
from tests.train.small_corpus import make_corpus
from tests.train.sums_in_threads import Meeting, Member
from tests.without_gpu import emulator, strict_arrays
from tests.without_gpu.strict_arrays import StrictArray
from train.adam import Adam
from train.ranks.exchange import BucketedExchange
from train.ranks.shares import Part
from train.runs.metrics import read_metrics
from train.runs.run import Run
from train.step import train_step
from train.trainer import Trainer

pytestmark = pytest.mark.skipif(
    emulator.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
)

CONFIG: dict[str, Any] = {
    "vocab_size": 51,
    "layers": 1,
    "d_model": 32,
    "d_ff": 64,
    "heads": 2,
    "dropout": 0.1,
    "smoothing": 0.1,
}
LARGE = (
    *(ops.embedding, ops.linear, ops.feed_forward, ops.attention, ops.add_dropout_norm),
    *(ops.projected_cross_entropy, ops.adam_step, ops.squared_norm),
)


@pytest.fixture(scope="module", autouse=True)
def emulated_gpu():
    with emulator.on_strict_arrays():
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def batches(count: int, pairs: int = 5) -> list[Batch]:
    rng = np.random.default_rng(0)

    def sentences() -> list[list[int]]:
        return [rng.integers(3, 51, n).tolist() for n in rng.integers(1, 12, pairs)]

    return [Batch.of(sentences(), sentences(), begin_id=1, end_id=2) for _ in range(count)]


def losses(
    backend: str,
    precision: str,
    steps: int,
    rate: float = 2e-3,
    pairs: int = 5,
    **changes: Any,
) -> tuple[np.ndarray, Transformer]:
    """The loss per token of each step, on repeated batches, and the trained model."""
    model = Transformer(TransformerConfig(**{**CONFIG, **changes}), seed=1)
    model.to(backend, precision)
    optimizer, chosen, found = Adam(model.buffer), batches(4, pairs), []
    for step in range(1, steps + 1):
        batch = model.prepared(chosen[step % 4])
        result = train_step(model, optimizer, [batch], rate, DropoutStream(5, step), 1.0)
        found.append(float(result.loss_sum) / batch.target_tokens)
    return np.array(found), model


def test_twenty_steps_in_float32_match_numpys():
    expected, model = losses("numpy", "float32", 20)
    found, moved = losses("strict", "float32", 20)
    assert expected[-1] < 0.95 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for name, p in model.parameters().items():
        # A key's bias shifts all scores of a query equally, which softmax ignores: its
        # gradient is only rounding, and Adam makes it large.
        if not name.endswith(("qkv.bias", "kv.bias")):
            np.testing.assert_allclose(
                moved.parameters()[name].numpy(), p.numpy(), atol=2e-4, err_msg=name
            )


def test_twenty_steps_in_bfloat16_stay_close_to_float32():
    expected, _ = losses("numpy", "float32", 20)
    found, model = losses("strict", "bf16", 20)
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert all(p.numpy().dtype == np.float32 for p in model.parameters().values())
    assert model.projection.dtype.name == "bfloat16"
    np.testing.assert_array_equal(
        model.projection.value.get(), model.projection.numpy().astype(model.projection.dtype)
    )


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_fillers_change_no_step_on_a_gpu(precision):
    found = []
    for fill in (lambda batch: batch, lambda batch: batch.filled(100, 120)):
        model = Transformer(TransformerConfig(**CONFIG), seed=1).to("strict", precision)
        optimizer, of_steps = Adam(model.buffer), []
        for step in range(3):
            there = [model.prepared(fill(batch)) for batch in batches(2)]
            result = train_step(model, optimizer, there, 2e-3, DropoutStream(5, step), 1.0)
            of_steps += [*result.numbers.get(), result.target_tokens]
        found.append(of_steps)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5 if precision == "float32" else 0.01)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_two_ranks_sum_float32_gradients_of_either_precision(precision):
    """The second rank has all sentences, and the first one none."""
    whole = batches(1)[0]
    _, alone = losses("strict", precision, 0)
    expected = train_step(alone, Adam(alone.buffer), [alone.prepared(whole)], 1e-3)

    def work(rank: int, member: Member) -> None:
        _, model = losses("strict", precision, 0)
        own = [model.prepared(whole)] if rank == 1 else []
        exchange = BucketedExchange(model.buffer, member, 1 << 12)
        part = Part([(0, 0)] * len(own), whole.target_tokens)
        result = train_step(model, Adam(model.buffer), own, 1e-3, part=part, exchange=exchange)
        assert result.numbers.dtype == model.buffer.grads.dtype == np.float32
        np.testing.assert_array_equal(result.numbers.get(), expected.numbers.get())
        for found, one in [
            (model.buffer.grads, alone.buffer.grads),
            (model.buffer.values, alone.buffer.values),
            (model.projection.value, alone.projection.value),
        ]:
            np.testing.assert_array_equal(found.get(), one.get())

    Meeting(2).run(work)


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "pre", "ffn_dropout": 0.1, "attention_dropout": 0.1},
        {"positions": "learned", "max_length": 16, "share_embeddings": "none"},
        {"decoder_start": "zero", "smoothing_over": "others", "d_k": 8, "d_v": 24},
        {"d_ff": 33, "d_k": 5, "d_v": 3, "ffn_dropout": 0.1},  # sizes that the kernels do not cover
    ],
    ids=["pre", "learned", "zero", "odd"],
)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_variants_of_the_model_take_the_same_steps(changes, precision):
    expected, _ = losses("numpy", "float32", 3, **changes)
    found, _ = losses("strict", precision, 3, **changes)
    np.testing.assert_allclose(found, expected, rtol=1e-5 if precision == "float32" else 0.02)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_runs_only_fast_implementations_and_promotes_no_dtype(precision):
    model = Transformer(TransformerConfig(**CONFIG), seed=1).to("strict", precision)
    optimizer = Adam(model.buffer)
    batch = model.prepared(batches(1)[0])
    with watching(*LARGE) as calls:
        train_step(model, optimizer, [batch], 1e-3, DropoutStream(0, 1))
    for operation, made in calls.items():
        assert made, operation
        assert {chosen for _, _, chosen in made} == {"fast"}, operation
    compute = "bfloat16" if precision == "bf16" else "float32"
    for operation in LARGE[:6]:
        for arrays, _, _ in calls[operation]:
            dtypes = [a.dtype.name for a in arrays if a.ndim > 1]
            assert set(dtypes) == {compute}, operation
    with Tape() as tape:
        memory = model.encode(batch.source, DropoutStream(0, 1))
    gradient = memory.value.copy()
    (found,) = tape.backward(memory, gradient, wanted=[memory])
    assert found.dtype.name == memory.dtype.name == compute
    assert all(p.grad.dtype == np.float32 for p in model.parameters().values())


@pytest.mark.parametrize("positions", ["interleaved", "learned"])
def test_a_step_of_a_prepared_batch_sorts_nothing_on_the_device(positions, monkeypatch):
    """CuPy's sort waits for the device."""
    config = TransformerConfig(**CONFIG, positions=positions, max_length=16)
    model = Transformer(config, seed=1).to("strict")
    batch = model.prepared(batches(1)[0])

    def waits(*_: Any, **__: Any) -> None:
        raise AssertionError("this waits for the device")

    monkeypatch.setattr(strict_arrays.xp, "argsort", waits)
    train_step(model, Adam(model.buffer), [batch], 1e-3, DropoutStream(0, 1))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_frees_all_its_memory(precision):
    """At once, without the garbage collector: autograd.cuda.memory relies on it."""
    model = Transformer(TransformerConfig(**CONFIG), seed=1).to("strict", precision)
    optimizer, batch = Adam(model.buffer), model.prepared(batches(1)[0])
    empty, made = backend("strict").empty, []

    def noted(shape: tuple[int, ...], dtype: Any) -> StrictArray:
        x = empty(shape, dtype)
        made.append(weakref.ref(x._data))
        return x

    gc.disable()
    try:
        with fresh_arrays(noted):
            train_step(model, optimizer, [batch], 1e-3, DropoutStream(0, 1))
        assert made
        assert [x() for x in made if x() is not None] == []
    finally:
        gc.enable()


def test_steps_do_not_wait_for_the_device(corpus, tmp_path, monkeypatch):
    """Results are fetched when the log, a checkpoint or a validation needs them."""
    transfers: list[str] = []
    within: list[int] = []

    def counting(name: str) -> Any:
        found = getattr(StrictArray, name)

        def counted(self: StrictArray, *arguments: Any) -> Any:
            transfers.append(name)
            return found(self, *arguments)

        return counted

    def counted_step(*arguments: Any) -> Any:
        before = len(transfers)
        result = train_step(*arguments)
        within.append(len(transfers) - before)
        return result

    for name in ("get", "item", "tolist", "__float__", "__int__", "__bool__"):
        monkeypatch.setattr(StrictArray, name, counting(name))
    monkeypatch.setattr("train.loop.train_step", counted_step)
    chosen = settings(
        backend="strict", max_steps=6, log_every=3, checkpoint_every=6, validate_every=6
    )
    trainer = Trainer.start(chosen, corpus, Run(tmp_path / "run"))
    seen: list[int] = []
    trainer.train(lambda entry: seen.append(len(transfers)))
    assert within == [0] * 6
    assert seen[1] - seen[0] == 1  # one transfer for the second log entry
    assert [e["step"] for e in read_metrics(tmp_path / "run")] == [3, 6, 6]


def test_a_model_in_bfloat16_gives_attention_maps():
    model, batch = Transformer(TransformerConfig(**CONFIG), seed=1), batches(1)[0]
    expected = attention_maps(model, batch)
    found = attention_maps(model.to("strict", "bf16"), batch)
    for a, b in zip(found, expected, strict=True):
        for name in ("encoder", "decoder", "cross"):
            weights = getattr(a, name)
            np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)
            np.testing.assert_allclose(weights, getattr(b, name), atol=0.02)


def test_moving_a_model_to_bfloat16_and_back_keeps_its_parameters():
    model = Transformer(TransformerConfig(**CONFIG), seed=1)
    before = {n: p.numpy().copy() for n, p in model.parameters().items()}
    batch = batches(1)[0]
    expected = float(model.losses(batch)[0])
    model.to("strict", "bf16")
    assert float(model.losses(batch)[0]) == pytest.approx(expected, rel=0.01)
    model.to("numpy")
    assert float(model.losses(batch)[0]) == expected
    for name, p in model.parameters().items():
        np.testing.assert_array_equal(p.numpy(), before[name])
