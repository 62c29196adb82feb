"""The choice of an operation's implementation."""

import inspect

import numpy as np
import pytest

from autograd import Parameter, Tape, Tensor, cpu, op, ops, references, watching
from autograd.backend import backend
from autograd.operation import function

strict = backend("strict")


@pytest.fixture
def twice():
    """An operation whose implementations record their name in `ran`."""
    ran = []

    @op
    def twice(x):
        ran.append("reference")
        return x * 2, lambda dy: dy * 2

    @twice.on("numpy")
    def fast(x):
        ran.append("numpy")
        return x + x, lambda dy: dy + dy

    @twice.on("strict", "float32", "float64")
    def elsewhere(x):
        ran.append("strict")
        return x + x, lambda dy: dy + dy

    twice.ran = ran
    return twice


@pytest.mark.parametrize(
    ("x", "implementation"),
    [
        (np.ones(2, np.float32), "numpy"),
        (np.ones(2, np.float64), "reference"),
        (strict.asarray(np.ones(2, np.float32)), "strict"),
        (strict.asarray(np.ones(2, np.float64)), "strict"),
        (strict.asarray(np.ones(2, np.float16)), "reference"),
        (2.0, "reference"),
    ],
)
def test_the_implementation_is_chosen_by_backend_and_dtype(twice, x, implementation):
    twice(x)
    assert twice.ran == [implementation]


def test_the_implementation_for_a_tensor_is_that_for_its_value(twice):
    w = Parameter(np.ones(2, np.float32))
    with Tape() as tape:
        y = twice(w).sum()
    tape.backward(y)
    assert twice.ran == ["numpy"]
    np.testing.assert_array_equal(w.grad, 2)


def test_references_forces_the_reference_inside_its_with(twice):
    x = np.ones(2, np.float32)
    with references():
        twice(x)
    with pytest.raises(KeyError), references():
        raise KeyError
    twice(x)
    assert twice.ran == ["reference", "numpy"]


def test_watching_collects_calls_with_their_implementation(twice):
    single, double = Tensor(np.ones(2, np.float32)), np.ones(2)
    twice(single)
    with watching(twice, ops.sum) as calls:
        twice(single)
        with watching(ops.sum):
            twice(double)  # only the inner one watches, and it does not ask for `twice`
        twice(double)
        ops.sum(double, axis=0)
    twice(single)
    assert [chosen for *_, chosen in calls[twice]] == ["fast", "reference"]
    assert calls[twice][0][0][0] is single.value
    (((x,), settings, _),) = calls[ops.sum]
    assert x is double
    assert settings == {"axis": 0}


def test_help_shows_the_reference():
    assert "keepdims" in inspect.signature(ops.sum).parameters
    assert ops.sum.__doc__.startswith("The sum over")
    assert repr(ops.sum) == "<Op sum>"


def test_a_kernel_has_implementations_but_no_gradient():
    @function
    def size(x):
        return "reference"

    size.on("numpy")(lambda x: "fast")
    assert size(np.ones(1, np.float32)) == "fast"
    assert size(np.ones(1)) == "reference"
    with Tape() as tape:
        size(np.ones(1))
    assert len(tape) == 0


def test_the_error_for_too_many_arguments_lists_the_settings():
    x = Tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"sum takes 1 argument, not 2; by name .* axis, keepdims"):
        ops.sum(x, 0)
    with pytest.raises(TypeError, match="clip takes 1 argument, not 3; by name it takes min, max"):
        ops.clip(x, 0, 1)
    with pytest.raises(TypeError, match=r"add takes 2 arguments, not 3$"):
        ops.add(x, x, x)
    with pytest.raises(TypeError, match=r"concatenate takes 1 argument, not 0; by name .* axis"):
        ops.concatenate()
    assert ops.sum(x, None).item() == 3


@pytest.mark.parametrize("joined", [ops.concatenate, ops.stack], ids=lambda o: o.name)
def test_none_is_not_left_out_where_arrays_are_joined(joined):
    with pytest.raises(ValueError, match=r"same (number|shape)"):
        joined(Tensor([1.0, 2.0]), None)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_settings_that_are_unusual_arrays_are_converted_or_refused():
    q, k = np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]])
    keep = np.array([[True, False], [True, True]])
    expected = ops.scaled_dot_product(q, k, k, keep=keep)
    np.testing.assert_array_equal(ops.scaled_dot_product(q, k, k, keep=np.matrix(keep)), expected)
    with pytest.raises(TypeError, match="mask"):
        ops.where(np.ma.masked_array([True, False], [False, True]), Tensor([1.0, 2.0]), 0)


def test_an_auxiliary_value_has_no_gradient():
    @op(auxiliary=1)
    def square(x):
        return (x * x, abs(x).max()), lambda dy: 2 * dy * x

    x = Tensor(np.array([3.0, -4.0]))
    with Tape() as tape:
        y, largest = square(x)
    assert largest == 4
    assert not isinstance(largest, Tensor)
    np.testing.assert_array_equal(tape.backward(y, np.ones(2), wanted=[x])[0], [6, -8])
    assert square(x.value)[1] == 4


def test_fast_implementations_can_be_disabled_and_enabled():
    x = np.ones((4, 4), np.float32)
    before = ops.dropout.implementation(x)
    cpu.disable()
    assert ops.dropout.implementation(x) is ops.dropout.reference
    for _ in range(2):
        cpu.enable()
        np.testing.assert_array_equal(ops.dropout(x, site=None), x)
    if before is not ops.dropout.reference:
        assert ops.dropout.implementation(x) is not ops.dropout.reference


def test_an_implementation_is_used_once_its_module_is_fully_imported(tmp_path, monkeypatch):
    """Another thread may call while the module is being imported."""
    (tmp_path / "late_module.py").write_text(
        "import tests.autograd.test_op as t\n"
        "@t.LATE[0].on('numpy')\n"
        "def late(x):\n"
        "    return helper(x)\n"
        "t.LATE.append(t.LATE[0].implementation(t.np.ones(1, t.np.float32)))\n"
        "def helper(x):\n"
        "    return 'fast'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    LATE[:] = [function(lambda x: "reference")]
    LATE[0].found_in("late_module", "numpy")
    x = np.ones(1, np.float32)
    before = LATE[0].implementation(x)
    assert LATE[0](x) == "fast"
    assert LATE[1] is before  # what another thread would have called, to wait for the import
    assert LATE[0].implementation(x) is not before


LATE: list = []
