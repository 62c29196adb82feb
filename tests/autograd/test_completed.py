"""`completed`: the tape reports each Parameter as soon as its gradient is whole."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import Parameter, ParameterBuffer, Tape, Tensor, op, ops


def parameters(count: int) -> list[Parameter]:
    return [Parameter([float(n), 1.0]) for n in range(1, count + 1)]


def numbers(ps: Sequence[Parameter], chosen: Sequence[Parameter]) -> list[int]:
    """The places of the chosen Parameters among `ps`."""
    places = {p.serial: number for number, p in enumerate(ps)}
    return [places[p.serial] for p in chosen]


def played_back(
    loss: Callable[[], Tensor], **how: Any
) -> tuple[list[Parameter], list[np.ndarray], list[np.ndarray]]:
    """What was reported, its gradients at that moment, and those after the backward pass."""
    reported: list[Parameter] = []
    then: list[np.ndarray] = []

    def completed(p: Parameter) -> None:
        assert p.grad is not None
        reported.append(p)
        then.append(p.grad.copy())

    with Tape() as tape:
        y = loss()
    tape.backward(y, completed=completed, **how)
    return reported, then, [np.array(p.grad) for p in reported]


@given(data=st.data())
def test_a_parameter_is_reported_once_when_nothing_more_will_be_added(data: st.DataObject) -> None:
    ps = parameters(4)
    taken = st.sampled_from(range(4))
    pairs = data.draw(st.lists(st.tuples(taken, taken, st.booleans()), min_size=1, max_size=8))
    accumulate = data.draw(st.booleans())

    def loss() -> Tensor:
        total = ps[pairs[0][0]] * 1
        for first, second, counts in pairs:
            product = ps[first] * ps[second]  # of one Parameter with itself, too
            total = total + product if counts else total
        _ = ps[3] * total  # newer than the output
        return total.sum()

    reported, then, after = played_back(loss, accumulate=accumulate)
    used = {pairs[0][0]} | {n for first, second, counts in pairs if counts for n in (first, second)}
    assert sorted(numbers(ps, reported)) == sorted(used)
    for early, late in zip(then, after, strict=True):
        np.testing.assert_array_equal(early, late)


def test_parameters_are_reported_in_the_order_in_which_they_are_completed() -> None:
    ps = parameters(3)
    ran: list[Any] = []

    @op
    def noted(x: Any, p: Any) -> Any:
        def vjp(dy: Any) -> Any:
            ran.append("operation")
            return dy * p, dy * x

        return x * p, vjp

    with Tape() as tape:
        x = noted(ps[0], np.ones(2))
        for p in (ps[0], ps[1], ps[2]):
            x = noted(x, p)
        loss = x.sum()
    tape.backward(loss, completed=lambda p: ran.extend(numbers(ps, [p])))
    assert ran == ["operation", 2, "operation", 1, "operation", "operation", 0]


def test_a_report_waits_for_operations_that_are_not_played_back() -> None:
    """They are no part of the loss, and still the last use decides."""
    w, v = parameters(2)

    def loss() -> Tensor:
        _ = w * v
        return (w * 2 + ops.exp(v) * w).sum()

    reported, then, after = played_back(loss)
    assert sorted(numbers([w, v], reported)) == [0, 1]
    for early, late in zip(then, after, strict=True):
        np.testing.assert_array_equal(early, late)


def test_a_parameter_that_the_output_does_not_depend_on_is_never_reported() -> None:
    buffer = ParameterBuffer({"w": np.ones(2), "idle": np.ones(2)}, np.float64)
    buffer.allocate_gradients()[...] = np.nan
    w, idle = buffer.parameters.values()

    def loss() -> Tensor:
        _ = idle * 2
        return (w * 2).sum()

    assert numbers([w, idle], played_back(loss)[0]) == [0]
    np.testing.assert_array_equal(idle.grad, 0)


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_wanted_parameter_is_reported_when_its_gradient_is_written(accumulate: bool) -> None:
    w, v = parameters(2)
    w.grad = np.array([10.0, 10.0])
    reported, then, after = played_back(
        lambda: (w * v * v).sum(), wanted=[w, v], accumulate=accumulate
    )
    assert sorted(numbers([w, v], reported)) == [0, 1]
    for early, late in zip(then, after, strict=True):
        np.testing.assert_array_equal(early, late)
    np.testing.assert_array_equal(w.grad, v.value**2 + 10 * accumulate)


def test_an_error_of_what_is_told_empties_the_tape() -> None:
    w = Parameter([1.0])

    def completed(p: Parameter) -> None:
        raise ArithmeticError

    with Tape() as tape:
        loss = w * 2
    with pytest.raises(ArithmeticError):
        tape.backward(loss, completed=completed)
    assert len(tape) == 0


def test_an_error_on_the_way_back_reports_only_what_was_complete() -> None:
    @op
    def broken(x: Any) -> Any:
        def vjp(dy: Any) -> Any:
            raise ArithmeticError

        return x * 1, vjp

    w, v = parameters(2)
    reported: list[Parameter] = []
    with Tape() as tape:
        loss = (broken(w * 2) * v).sum()
    with pytest.raises(ArithmeticError):
        tape.backward(loss, completed=reported.append)
    assert numbers([w, v], reported) == [1]
