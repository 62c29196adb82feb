"""The exchange of gradients: the sum over ranks, in buckets, in one order."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import DropoutStream, Parameter, ParameterBuffer
from npformer import Batch, Transformer, TransformerConfig
from tests.train.sums_in_threads import Meeting, Member
from train.adam import Adam
from train.ranks.exchange import BucketedExchange
from train.ranks.shares import Part
from train.step import Interrupted, StepResult, train_step

STEP = 256  # bytes to which Parameters are aligned


def buffer_of(sizes: list[int], dtype: Any = np.float32) -> ParameterBuffer:
    buffer = ParameterBuffer({f"p{i}": np.zeros(size) for i, size in enumerate(sizes)}, dtype)
    buffer.allocate_gradients()
    return buffer


@given(data=st.data())
def test_every_gradient_and_number_becomes_the_sum_over_ranks(data: st.DataObject) -> None:
    """Whatever each rank reports, in whatever order; gaps stay zero."""
    sizes = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=6))
    count, dtype = data.draw(st.integers(1, 4)), data.draw(st.sampled_from([np.float32, float]))
    bucket_bytes = data.draw(st.integers(8, 3000))
    reports = [
        data.draw(st.lists(st.sampled_from(range(len(sizes))), unique=True)) for _ in range(count)
    ]
    steps = data.draw(st.integers(1, 2))

    def work(rank: int, member: Member) -> list[np.ndarray]:
        buffer = buffer_of(sizes, dtype)
        exchange = BucketedExchange(buffer, member, bucket_bytes)
        parameters = list(buffer.parameters.values())
        found = []
        for step in range(steps):
            for i, p in enumerate(parameters):
                assert p.grad is not None
                p.grad[...] = 0 if i in reports[rank] else 10 * step + rank
            numbers = np.array([rank, step], dtype)
            exchange.begin(numbers)
            for i in reports[rank]:
                gradient = parameters[i].grad
                assert gradient is not None
                assert not gradient.any()  # it was not sent before it was reported
                gradient[...] = 10 * step + rank
                exchange.completed(parameters[i])
            exchange.finish()
            found += [numbers, np.array(buffer.grads)]
            assert sum(np.count_nonzero(p.grad) for p in parameters) == np.count_nonzero(found[-1])
            for p in parameters:
                np.testing.assert_array_equal(p.grad, sum(10 * step + r for r in range(count)))
            np.testing.assert_array_equal(numbers, [sum(range(count)), step * count])
        return found

    results = Meeting(count).run(work)
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


def sent_after_each(buffer: ParameterBuffer, order: list[int], bucket_bytes: int) -> list[int]:
    """How many elements of gradients were sent when each Parameter had been reported."""
    meeting = Meeting(1)
    parameters = list(buffer.parameters.values())

    def work(rank: int, member: Member) -> list[int]:
        exchange = BucketedExchange(buffer, member, bucket_bytes)
        exchange.begin(np.zeros(2, np.float32))
        sent = []
        for i in order:
            exchange.completed(parameters[i])
            sent.append(sum(array.size for array in meeting.sent[0][1:]))
        exchange.finish()
        assert sum(array.size for array in meeting.sent[0][1:]) == buffer.values.size
        return sent

    return meeting.run(work)[0]


def test_a_bucket_is_sent_as_soon_as_its_gradients_are_complete() -> None:
    buffer = buffer_of([64, 64, 64, 64])
    assert sent_after_each(buffer, [3, 2, 1, 0], STEP) == [64, 128, 192, 256]
    assert sent_after_each(buffer, [3, 2, 1, 0], 2 * STEP) == [0, 128, 128, 256]
    assert sent_after_each(buffer, [3, 2, 1, 0], 100 * STEP) == [0, 0, 0, 256]


def test_a_bucket_waits_for_its_predecessor() -> None:
    buffer = buffer_of([64, 64, 64, 64])
    assert sent_after_each(buffer, [0, 1, 3, 2], STEP) == [0, 0, 64, 256]


def test_a_parameter_larger_than_a_bucket_is_sent_in_pieces() -> None:
    meeting = Meeting(1)
    buffer = buffer_of([64 * 5, 64])

    def work(rank: int, member: Member) -> None:
        exchange = BucketedExchange(buffer, member, 2 * STEP)
        exchange.begin(np.zeros(2, np.float32))
        exchange.completed(buffer.parameters["p1"])
        assert len(meeting.sent[0]) == 1
        exchange.completed(buffer.parameters["p0"])

    meeting.run(work)
    assert [array.size for array in meeting.sent[0]] == [2, 128, 128, 128]


def test_a_gradient_that_no_loss_depends_on_holds_up_only_the_sending() -> None:
    buffer = buffer_of([64, 64, 64])
    assert sent_after_each(buffer, [2, 0], STEP) == [64, 64]


def test_a_parameter_outside_of_the_buffer_is_not_exchanged() -> None:
    def work(rank: int, member: Member) -> None:
        exchange = BucketedExchange(buffer_of([64]), member)
        exchange.begin(np.zeros(2, np.float32))
        exchange.completed(Parameter(np.ones(3)))
        exchange.finish()

    Meeting(1).run(work)


def test_a_step_that_broke_off_is_not_gone_on_from() -> None:
    def work(rank: int, member: Member) -> None:
        exchange = BucketedExchange(buffer_of([64]), member)
        exchange.begin(np.zeros(2, np.float32))
        with pytest.raises(RuntimeError, match="an earlier step has broken off"):
            exchange.begin(np.zeros(2, np.float32))

    Meeting(1).run(work)


def test_an_exchange_does_not_serve_for_a_buffer_that_was_moved() -> None:
    def work(rank: int, member: Member) -> None:
        buffer = buffer_of([64])
        exchange = BucketedExchange(buffer, member)
        buffer.to("strict")
        buffer.allocate_gradients()
        with pytest.raises(RuntimeError, match="the parameters were moved"):
            exchange.begin(np.zeros(2, np.float32))

    Meeting(1).run(work)


# Steps of a model.

CONFIG = TransformerConfig(
    vocab_size=9, layers=2, d_model=8, d_ff=8, heads=2, dropout=0.3, smoothing=0.1
)
SOURCES = [[3, 4, 5], [6], [7, 8, 3, 4, 5], [8, 8], [5, 4]]
TARGETS = [[5, 6], [7, 8, 3, 4], [3], [6, 5, 4], [7]]


def batch(begin: int, end: int) -> Batch:
    return Batch.of(SOURCES[begin:end], TARGETS[begin:end], begin_id=1, end_id=2)


def trained(
    batches: list[Batch], part: Part | None, member: Member | None
) -> tuple[Transformer, list[StepResult]]:
    model = Transformer(CONFIG, 0, np.float64)
    optimizer, results = Adam(model.buffer), []
    exchange = BucketedExchange(model.buffer, member, STEP) if member else None
    for step in (1, 2, 3):
        dropout = DropoutStream(5, step)
        results.append(
            train_step(model, optimizer, batches, 0.01, dropout, 0.5, part=part, exchange=exchange)
        )
    return model, results


@pytest.mark.parametrize(
    "shares",
    [
        [[(0, 2)], [(2, 5)]],
        [[(0, 1), (1, 3)], [(3, 5)]],
        [[(0, 4)], [], [(4, 5)]],
        [[], [(0, 5)]],
    ],
    ids=["halves", "accumulated", "a rank without sentences", "the first rank without"],
)
def test_ranks_take_the_steps_of_the_whole_batch(shares: list[list[tuple[int, int]]]) -> None:
    whole, expected = trained([batch(0, 5)], None, None)
    starts = np.cumsum(
        [[0, 0], *([len(s) + 1, len(t) + 1] for s, t in zip(SOURCES, TARGETS, strict=True))], axis=0
    )
    tokens = int(starts[-1][1])

    def work(rank: int, member: Member) -> tuple[Transformer, list[StepResult]]:
        rows = [(int(starts[a][0]), int(starts[a][1])) for a, _ in shares[rank]]
        return trained([batch(a, b) for a, b in shares[rank]], Part(rows, tokens), member)

    found = Meeting(len(shares)).run(work)
    for model, results in found:
        np.testing.assert_array_equal(model.buffer.values, found[0][0].buffer.values)
        # Where a gradient is zero but for rounding, Adam makes a step of it.
        np.testing.assert_allclose(model.buffer.values, whole.buffer.values, rtol=0, atol=1e-9)
        for result, one in zip(results, expected, strict=True):
            np.testing.assert_allclose(result.numbers, one.numbers, rtol=1e-11)
            assert result.target_tokens == one.target_tokens == tokens


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_step_that_is_not_finite_on_one_rank_is_skipped_on_all() -> None:
    tokens = sum(len(t) + 1 for t in TARGETS)

    def work(rank: int, member: Member) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        model = Transformer(CONFIG, 0, np.float64)
        before = np.array(model.buffer.values)
        adam = Adam(model.buffer)
        exchange = BucketedExchange(model.buffer, member)
        share = batch(0, 3) if rank == 0 else batch(3, 5)
        losses = model.losses

        def spoilt(*arguments: Any) -> Any:
            loss, nll = losses(*arguments)
            return (loss * np.inf if rank == 1 else loss), nll

        model.losses = spoilt  # type: ignore[method-assign]
        result = train_step(
            model, adam, [share], 0.1, part=Part([(0, 0)], tokens), exchange=exchange
        )
        assert not np.isfinite(result.numbers).all()
        assert not adam.first.any()
        return before, np.array(model.buffer.values), np.array(result.numbers)

    (before, one, _), (_, other, _) = Meeting(2).run(work)
    np.testing.assert_array_equal(one, before)
    np.testing.assert_array_equal(other, before)


def test_a_step_that_is_given_up_or_fails_before_its_last_backward_pass_leaves_nothing() -> None:
    """The next step is as if nothing had happened, if all ranks do so alike."""
    _, expected = trained([batch(0, 5)], None, None)

    def work(rank: int, member: Member) -> None:
        model = Transformer(CONFIG, 0, np.float64)
        adam = Adam(model.buffer)
        exchange = BucketedExchange(model.buffer, member, STEP)
        parts = [batch(0, 2), batch(2, 5)]
        with pytest.raises(Interrupted):
            train_step(model, adam, parts, 0.01, give_up=lambda: True, exchange=exchange)
        losses, calls = model.losses, []

        def failing(*arguments: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise MemoryError
            return losses(*arguments)

        model.losses = failing  # type: ignore[method-assign]
        with pytest.raises(MemoryError):
            train_step(model, adam, parts, 0.01, exchange=exchange)
        model.losses = losses  # type: ignore[method-assign]
        for step, result in enumerate(expected, start=1):
            dropout = DropoutStream(5, step)
            found = train_step(model, adam, parts, 0.01, dropout, 0.5, exchange=exchange)
            np.testing.assert_allclose(found.numbers, result.numbers, rtol=1e-11)

    Meeting(1).run(work)


def test_a_step_that_fails_in_its_last_backward_pass_ends_the_exchange() -> None:
    def work(rank: int, member: Member) -> None:
        model = Transformer(CONFIG, 0, np.float64)
        adam = Adam(model.buffer)
        exchange = BucketedExchange(model.buffer, member, STEP)
        poll = member.poll

        def failing() -> None:
            raise MemoryError

        member.poll = failing  # type: ignore[method-assign]
        before = np.array(model.buffer.values)
        with pytest.raises(MemoryError):
            train_step(model, adam, [batch(0, 5)], 0.01, exchange=exchange)
        member.poll = poll  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="broken off"):
            train_step(model, adam, [batch(0, 5)], 0.01, exchange=exchange)
        np.testing.assert_array_equal(model.buffer.values, before)
        assert adam.steps == 0

    Meeting(1).run(work)
