"""Steps that are recorded and replayed (CUDA graphs) are those that are not, bit for bit.

Where there is no GPU, the stand-in for the CUDA runtime replays launches with their arguments as
they were at the recording (tests/without_gpu), and so finds what is frozen by mistake.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autograd.backend import backend
from autograd.cuda.device import device_of
from autograd.cuda.mask import mask_of
from autograd.cuda.memory import arena
from npformer import Batch
from npformer.attention import SelfAttention
from npformer.parts import Parts
from tests.gpu.trainings import RATES, Training, batches, poison

cupy = pytest.importorskip("cupy")


@pytest.mark.parametrize("precision", ["bf16", "float32"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_replayed_steps_are_those_that_run(precision, accumulate):
    """While everything changes that a launch could have frozen: see `batches`, and below."""
    config = {**RATES, "smoothing": 0.1}
    recorded = Training(precision, True, 0.9, **config)
    eager = Training(precision, False, 0.9, **config)
    made = batches(8)
    assert len({b.target_tokens for b in made}) > 3
    for step in range(1, 9):
        chosen = [made[(step + i) % 8] for i in range(accumulate)]
        rate = 1e-3 * step
        poison()
        found = recorded.step(chosen, rate, 1000 * step)
        poison()
        np.testing.assert_array_equal(found, eager.step(chosen, rate, 1000 * step))
        for name, expected in eager.state().items():
            np.testing.assert_array_equal(recorded.state()[name], expected, err_msg=name)
    assert recorded.optimizer.steps == eager.optimizer.steps == 8
    assert recorded.replayed[:1] == [False]
    assert recorded.replayed[3:] == [True] * 5
    assert not any(eager.replayed)


def recorded(run: Any) -> tuple[Any, list[int]]:
    """The replay of a function, and a list that grows whenever the function itself is called."""
    calls: list[int] = []

    def counted() -> Any:
        calls.append(1)
        return run()

    return backend("cupy").record(counted), calls


def test_a_replay_reads_what_arrays_hold_and_returns_the_arrays_of_the_recording():
    x = cupy.arange(5.0)
    replay, calls = recorded(lambda: (x * 2, x.sum()))
    first = replay()  # as it is
    kept = [y.get() for y in first]
    twice, total = replay()  # recorded
    for step in range(3):
        x[...] = step
        again = replay()
        assert again[0] is twice
        assert again[1] is total
        assert (twice.get() == 2 * step).all()
        assert float(total) == 5 * step
    assert len(calls) == 2
    assert [y.get().tolist() for y in first] == [y.tolist() for y in kept]


def test_results_that_are_large_are_not_where_others_work():
    """What is recorded later, and what only runs, leaves them as they are."""
    empty = backend("cupy").empty

    def filled_with(number: Any) -> Any:
        y = empty((1 << 16,), np.float32)
        y[...] = number
        return y

    numbers = cupy.zeros(2, np.float32)
    (one, _), (other, calls) = (recorded(lambda i=i: filled_with(numbers[i])) for i in range(2))
    for replay in (one, one, other, other):
        replay()
    numbers[...] = cupy.asarray([5, 6], np.float32)
    found = one()
    other()
    poison()
    assert (found.get() == 5).all()
    assert len(calls) == 2


def test_a_function_runs_as_it_is_while_arrays_are_where_its_own_would_be():
    x, empty = cupy.ones(1 << 16, np.float32), backend("cupy").empty

    def run() -> Any:
        y = empty(x.shape, x.dtype)
        y[...] = x
        return y.sum()

    replay, calls = recorded(run)
    for _ in range(3):
        replay()
    assert len(calls) == 2
    held = empty((1 << 20,), np.float32)
    held[...] = 7
    assert float(replay()) == 1 << 16
    assert len(calls) == 3
    assert (held.get() == 7).all()
    del held
    replay()
    assert len(calls) == 3
    arena().release()  # the block that it was recorded in is gone
    x[...] = 2
    for _ in range(4):
        assert float(replay()) == 2 << 16
    assert len(calls) == 5
    with cupy.cuda.Stream():
        assert float(replay()) == 2 << 16
    assert len(calls) == 6


def test_arrays_that_a_recording_reads_stay_while_it_is_used():
    kept = {"x": cupy.full(1 << 10, 3, np.float32)}

    def run() -> Any:
        y = backend("cupy").empty((1 << 10,), np.float32)
        sizes = {"mask": mask_of(None), "rows": 32, "columns": 32}
        shape = (1,), 256
        device_of(y).launch(
            *("dropout", {"REAL_BYTES": 4}, "dropout", *shape), x=kept["x"], y=y, **sizes
        )
        return y

    replay, _ = recorded(run)
    for _ in range(2):
        replay()
    kept["x"] = cupy.zeros(1 << 10, np.float32)  # the other one is gone, but for the recording
    others = [cupy.full(1 << 10, 9, np.float32) for _ in range(4)]
    assert (replay().get() == 3).all()
    assert all((x.get() == 9).all() for x in others)


@pytest.mark.parametrize(
    "unrecordable",
    [lambda x: float(x.sum()), lambda x: x.reshape(5, 1) @ x.reshape(1, 5), lambda x: x.argsort()],
    ids=["a number is read", "cuBLAS", "a sort"],
)
def test_what_cannot_be_recorded_runs_as_it_is(unrecordable):
    x = cupy.arange(5.0)

    def run() -> Any:
        unrecordable(x)
        return x.sum()

    replay, calls = recorded(run)
    for step in range(4):
        x[...] = step
        assert float(replay()) == 5 * step
    assert len(calls) == 5  # one of them was to be recorded


def test_errors_of_a_function_that_is_recorded_are_its_own():
    x, wrong = cupy.arange(5.0), []

    def run() -> Any:
        if wrong:
            raise KeyError("wrong")
        return x.sum()

    replay, _ = recorded(run)
    replay()
    wrong.append(1)
    with pytest.raises(KeyError, match="wrong"):
        replay()
    wrong.clear()
    x[...] = 3
    assert float(replay()) == float(replay()) == 15


class ByLengths(SelfAttention):
    """An attention that uses the lengths of sentences on the host."""

    def attend(self, x: Any, sentences: Any, dropout: Any) -> Any:
        longest = int(sentences.lengths.max())
        return super().attend(x, sentences, dropout) * (1 + 0.01 * longest)


class KeepsLengths(SelfAttention):
    """One that keeps what it has derived from them."""

    def attend(self, x: Any, sentences: Any, dropout: Any) -> Any:
        longest = sentences.cached("longest", lambda: int(sentences.lengths.max()))
        return super().attend(x, sentences, dropout) * (1 + 0.01 * longest)


@pytest.mark.parametrize("attention", [ByLengths, KeepsLengths])
def test_a_model_that_uses_lengths_on_the_host_is_not_recorded(attention):
    found = []
    for is_recorded in (True, False):
        training = Training("float32", is_recorded, parts=Parts(self_attention=attention))
        for step, batch in enumerate(batches(5)):
            result = training.step([batch], 1e-3, step + 1)
        found.append((result, training.state()["values"]))
        assert not any(training.replayed)
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


def test_a_longer_table_of_positions_is_another_recording():
    """Those of more than 256 tokens need one, which a recording from before does not have."""
    found = []
    for is_recorded in (True, False):
        training = Training("bf16", is_recorded)
        for step, longest in enumerate((12, 12, 12, 300, 12, 300, 300)):
            sentence = np.random.default_rng(step).integers(3, 51, longest).tolist()
            batch = Batch.of([sentence], [sentence[:5]], begin_id=1, end_id=2)
            result = training.step([batch.filled(400, 100)], 1e-3, step + 1)
        found.append((result, training.state()["values"]))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


_VARIANTS = {
    "pre-norm, learned positions": (
        {"norm": "pre", "positions": "learned", "max_length": 16, "share_embeddings": "none"},
        True,
    ),
    "swish, output bias": ({"activation": "swish", "output_bias": True}, True),
    "a window, others": ({"smoothing_over": "others", "attention_window": 3}, True),
    # Its ids are sorted on the device, which cannot be recorded.
    "no token at the start": ({"decoder_start": "zero"}, False),
    # Products of sizes that the kernels do not cover are cuBLAS's.
    "odd": ({"d_ff": 33, "d_k": 5, "d_v": 3}, False),
}


@pytest.mark.parametrize(("config", "can_be_recorded"), _VARIANTS.values(), ids=_VARIANTS)
def test_variants_of_the_model_take_the_same_steps(config, can_be_recorded):
    """Recorded or, where something cannot be, as before."""
    found = []
    for is_recorded in (True, False):
        training = Training("bf16", is_recorded, **config, **RATES)
        for step, batch in enumerate(batches(4)):
            result = training.step([batch], 1e-3, step + 1)
        found.append((result, training.state()["values"]))
        assert training.replayed == [False, False, *[is_recorded and can_be_recorded] * 2]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
