"""Gradients that are not arrays: writers that write later, and arrays with their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
import pytest

from autograd import Parameter, Tape, Tensor, op
from autograd.writers import WithSum, parted, takes_sum


class Late:
    """Writes a number. `calls` has the count of writers of each call of `together`."""

    calls: ClassVar[list[int]] = []

    def __init__(self, number: float) -> None:
        self.number = number

    def __call__(self, out: np.ndarray, add: bool) -> None:
        out[...] = out + self.number if add else self.number

    @staticmethod
    def together(writers: Sequence[tuple[Late, np.ndarray, bool]]) -> None:
        outs = [id(out) for _, out, _ in writers]
        assert len(set(outs)) == len(outs)
        Late.calls.append(len(writers))
        for writer, out, add in writers:
            writer(out, add)


@pytest.fixture(autouse=True)
def no_calls():
    Late.calls = []


@op
def shifted(x, a, b):
    """x, with a and b whose gradients are 2 and 3, by late writers."""
    return x * 1, lambda dy: (dy, Late(2), Late(3))


@op
def failing(x):
    """x, without a gradient."""

    def vjp(dy):
        raise ArithmeticError

    return x * 1, vjp


def of_two_operations() -> tuple[Tape, Tensor, list[Parameter]]:
    parameters = [Parameter(np.zeros(1)) for _ in range(5)]
    x, a, b, c, d = parameters
    with Tape() as tape:
        y = shifted(shifted(x, a, b), c, d).sum()
    return tape, y, parameters


def test_late_writers_are_called_together_at_the_end():
    tape, y, (x, *others) = of_two_operations()
    tape.backward(y)
    assert Late.calls == [4]
    assert [float(p.grad[0]) for p in (x, *others)] == [1, 2, 3, 2, 3]


def test_late_gradients_are_accumulated():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    for accumulate in (False, True):
        with Tape() as tape:
            y = shifted(x, a, b).sum()
        tape.backward(y, accumulate=accumulate)
    assert (a.grad[0], b.grad[0]) == (4, 6)


def test_a_parameter_that_is_used_twice_gets_both_gradients():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    with Tape() as tape:
        y = (shifted(shifted(x * a, a, a), a, b) * b).sum()
    tape.backward(y)
    assert a.grad[0] == 2 + 3 + 2  # and x · dy, which is 0
    assert b.grad[0] == 3


def test_a_late_gradient_is_written_before_its_parameter_is_reported():
    tape, y, parameters = of_two_operations()
    reported = {}
    tape.backward(y, completed=lambda p: reported.update({p.serial: float(p.grad[0])}))
    assert [reported[p.serial] for p in parameters] == [1, 2, 3, 2, 3]


def test_gradients_that_are_wanted_or_not_of_parameters_do_not_wait():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    with Tape() as tape:
        y = shifted(x, a, b * 1).sum()
    [da] = tape.backward(y, wanted=[a])
    assert (da[0], b.grad[0]) == (2, 3)
    assert Late.calls == []


def test_a_late_writer_of_a_constant_is_not_called():
    x, a = Parameter(np.zeros(1)), Parameter(np.zeros(1))
    with Tape() as tape:
        y = shifted(x, a, np.zeros(1)).sum()
    tape.backward(y)
    assert Late.calls == [1]


def test_after_an_error_nothing_waits():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    with Tape() as tape:
        y = shifted(failing(x), a, b).sum()
    with pytest.raises(ArithmeticError):
        tape.backward(y)
    assert Late.calls == []


class Background:
    """Writes a number when it is waited for. `waited` are the numbers that were."""

    waited: ClassVar[list[float]] = []

    def __init__(self, number: float) -> None:
        self.number = number

    def __call__(self, out: np.ndarray, add: bool) -> None:
        out[...] = out + self.number if add else self.number

    def begin(self, out: np.ndarray, add: bool) -> Callable[[], None] | None:
        if self.number < 0:
            return None

        def finish() -> None:
            self(out, add)
            Background.waited.append(self.number)

        return finish


@op
def moved(x, a, b):
    """x, with a and b whose gradients are 2, in the background, and -3, which cannot be."""
    return x * 1, lambda dy: (dy, Background(2), Background(-3))


@pytest.fixture(autouse=True)
def nothing_waited_for():
    Background.waited = []


def test_what_is_written_in_the_background_is_waited_for_at_the_end():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    with Tape() as tape:
        y = moved(x, a, b).sum()
    tape.backward(y)
    assert Background.waited == [2]
    assert (a.grad[0], b.grad[0]) == (2, -3)


def test_another_gradient_of_the_same_parameter_waits_for_the_first():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    with Tape() as tape:
        y = (moved(moved(x + a, a, b), a, b) * b).sum()
    tape.backward(y)
    assert Background.waited == [2, 2]
    assert (a.grad[0], b.grad[0]) == (2 + 2 + 0, -6)  # b's number, 0, is the factor of x + a


def test_what_is_written_in_the_background_is_there_before_its_parameter_is_reported():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    with Tape() as tape:
        y = moved(x, a, b).sum()
    reported = {}
    tape.backward(y, completed=lambda p: reported.update({p.serial: float(p.grad[0])}))
    assert (reported[a.serial], reported[b.serial]) == (2, -3)


def test_after_an_error_what_had_begun_is_waited_for():
    x, a, b = (Parameter(np.zeros(1)) for _ in range(3))
    with Tape() as tape:
        y = moved(failing(x), a, b).sum()
    with pytest.raises(ArithmeticError):
        tape.backward(y)
    assert Background.waited == [2]


class Interrupted(Background):
    """An interruption comes when it is waited for the first time."""

    def begin(self, out: np.ndarray, add: bool) -> Callable[[], None] | None:
        finish, interruptions = super().begin(out, add), [KeyboardInterrupt]

        def wait() -> None:
            if interruptions:
                raise interruptions.pop()
            assert finish is not None
            finish()

        return wait


@pytest.mark.parametrize("reports", [False, True])
def test_after_an_interruption_nothing_goes_on_writing(reports):
    @op
    def interrupted(x, a):
        return x * 1, lambda dy: (dy, Interrupted(5))

    x, b, *some = (Parameter(np.zeros(1)) for _ in range(5))
    with Tape() as tape:
        y = moved(interrupted(moved(x, some[0], b), some[1]), some[2], b).sum()
    with pytest.raises(KeyboardInterrupt):
        tape.backward(y, completed=(lambda p: None) if reports else None)
    # With reports, it comes before the operation that was recorded first has begun to write.
    assert sorted(Background.waited) == ([2, 5] if reports else [2, 2])


def written(total: np.ndarray):
    def into(out: np.ndarray, add: bool) -> None:
        out[...] = out + total if add else total

    return into


@op
def summing(x):
    """x, with the sum of its gradient, which is 100 too large, so that one sees who uses it."""
    return x * 1, lambda dy: WithSum(dy, written(dy.sum(axis=0) + 100))


@op
def biased(x, b):
    """x + b, with a gradient that takes a sum if there is one."""

    @takes_sum
    def vjp(dy):
        dy, total = parted(dy)
        return dy, dy.sum(axis=0) if total is None else total

    return x + b, vjp


def two_by_three() -> tuple[Parameter, Parameter]:
    return Parameter(np.ones((2, 3))), Parameter(np.zeros(3))


def test_a_sum_goes_to_the_operation_whose_output_it_is_the_whole_gradient_of():
    x, b = two_by_three()
    with Tape() as tape:
        y = summing(biased(x, b)).sum()
    tape.backward(y)
    assert b.grad.tolist() == [102] * 3
    assert x.grad.tolist() == [[1] * 3] * 2


@pytest.mark.parametrize("first", [True, False])
def test_a_sum_is_dropped_where_another_gradient_is_added(first):
    x, b = two_by_three()
    with Tape() as tape:
        z = biased(x, b)
        y = summing(z) + z * 2 if first else z * 2 + summing(z)
        y = y.sum()
    tape.backward(y)
    assert b.grad.tolist() == [6] * 3
    assert x.grad.tolist() == [[3] * 3] * 2


def test_a_sum_is_dropped_where_an_operation_takes_none():
    x, _ = two_by_three()
    with Tape() as tape:
        y = summing(x * 2).sum()
    tape.backward(y)
    assert x.grad.tolist() == [[2] * 3] * 2


def test_a_gradient_with_a_sum_may_be_that_of_a_parameter_or_wanted():
    x, b = two_by_three()
    with Tape() as tape:
        z = biased(summing(x), b)
        y = summing(z).sum()
    [dz] = tape.backward(y, wanted=[z])
    assert dz.tolist() == x.grad.tolist() == [[1] * 3] * 2
    leaf = Tensor(np.ones((2, 3)))
    with Tape() as tape:
        y = summing(leaf).sum()
    [dleaf] = tape.backward(y, wanted=[leaf])
    assert dleaf.tolist() == [[1] * 3] * 2


def test_a_sum_of_a_gradient_that_is_broadcast_is_dropped():
    row, b = Parameter(np.ones((1, 3))), Parameter(np.zeros(3))

    @op
    def spread(x):
        return np.broadcast_to(x, (2, 3)).copy(), lambda dy: WithSum(dy, written(dy[0] * 0))

    with Tape() as tape:
        y = spread(biased(row, b)).sum()
    tape.backward(y)
    assert b.grad.tolist() == [2] * 3
