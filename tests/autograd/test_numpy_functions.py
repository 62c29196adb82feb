"""NumPy's functions, operators and conversions on a Tensor: an operation, or a clear error."""

import copy
import math
import pickle

import numpy as np
import pytest

from autograd import Parameter, Tape, Tensor, backend, check_gradients, ops, to_host, using

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.3, 2, (3, 4)), RNG.uniform(0.3, 2, (3, 4))
C = RNG.uniform(0.3, 2, (3, 4))  # a constant

WORK = {
    "np.add": lambda m, x, y: m.add(x, y),
    "np.subtract": lambda m, x, y: m.subtract(C, y),
    "np.multiply": lambda m, x, y: m.multiply(x, 2),
    "np.divide": lambda m, x, y: m.divide(x, y),
    "np.power": lambda m, x, y: m.power(x, y),
    "np.matmul": lambda m, x, y: m.matmul(x, y.T),
    "np.negative": lambda m, x, y: m.negative(x),
    "np.positive": lambda m, x, y: m.positive(x),
    "np.abs": lambda m, x, y: m.abs(x - 1),
    "np.square": lambda m, x, y: m.square(x),
    "np.exp": lambda m, x, y: m.exp(x),
    "np.log": lambda m, x, y: m.log(x),
    "np.sqrt": lambda m, x, y: m.sqrt(x),
    "np.sin": lambda m, x, y: m.sin(x),
    "np.cos": lambda m, x, y: m.cos(x),
    "np.tanh": lambda m, x, y: m.tanh(x),
    "np.maximum": lambda m, x, y: m.maximum(x, y),
    "np.minimum": lambda m, x, y: m.minimum(C, y),
    "np.sum": lambda m, x, y: m.sum(x, 0, keepdims=True),
    "np.mean": lambda m, x, y: m.mean(x, axis=1),
    "np.max": lambda m, x, y: m.max(x, axis=1),
    "np.min": lambda m, x, y: m.min(x),
    "np.var": lambda m, x, y: m.var(x, axis=0, ddof=1),
    "np.std": lambda m, x, y: m.std(x, 1, keepdims=True),
    "np.clip": lambda m, x, y: m.clip(x, 0.5, 1.5),
    "np.clip by name": lambda m, x, y: m.clip(x, max=1.5),
    "np.where": lambda m, x, y: m.where(C > 1, x, 0),
    "np.where of two": lambda m, x, y: m.where(x > 1, 2 * x, y),
    "np.concatenate": lambda m, x, y: m.concatenate([x, C, y], axis=1),
    "np.stack": lambda m, x, y: m.stack((x, y), axis=1),
    "np.split": lambda m, x, y: m.split(x, [1, 3], axis=1)[1],
    "np.reshape": lambda m, x, y: m.reshape(x, (2, -1)),
    "np.ravel": lambda m, x, y: m.ravel(x),
    "np.transpose": lambda m, x, y: m.transpose(x, (1, 0)),
    "array + x": lambda m, x, y: C + x,
    "array - x": lambda m, x, y: C - x,
    "array @ x": lambda m, x, y: C.T @ x,
    "array ** x": lambda m, x, y: C**x,
    "number * x": lambda m, x, y: np.float64(2) * x / np.float32(4),
    "x ** y": lambda m, x, y: x**y,
    "2 ** x": lambda m, x, y: 2**x,
    "lists": lambda m, x, y: [1.0, 2.0, 3.0, 4.0] * x + [[1], [2], [3]],
    "x @ a list": lambda m, x, y: x @ [[1.0], [2.0], [3.0], [4.0]],
    "abs(x)": lambda m, x, y: abs(-x),
    "+x": lambda m, x, y: +x,
    "sum([x, y])": lambda m, x, y: sum([x, y]),
    "methods": lambda m, x, y: x.clip(0.5, 1.5).flatten() + x.min() + x.var() + x.std(axis=0).sum(),
    "rows": lambda m, x, y: sum(row * (i + 1) for i, row in enumerate(x)),
}


@pytest.mark.parametrize("name", WORK)
def test_supported_functions_give_numpys_values_and_right_gradients(name):
    f = WORK[name]
    expected = f(np, X, Y)
    np.testing.assert_allclose(f(np, Tensor(X), Tensor(Y)).numpy(), expected, rtol=1e-14)
    check_gradients(lambda x, y: f(np, x, y) + 0 * x.sum() * y.sum(), X, Y)


def test_methods_equal_the_operations():
    x = Tensor(X)
    for name in ("exp", "log", "sqrt", "sin", "cos", "tanh", "sigmoid"):
        y = getattr(x, name)()
        np.testing.assert_array_equal(y.value, getattr(ops, name)(X))
    np.testing.assert_array_equal(x.flatten().value, X.flatten())
    for name in ("min", "max", "var", "std", "sum", "mean"):
        got = getattr(x, name)(axis=1, keepdims=True)
        np.testing.assert_allclose(got.value, getattr(X, name)(axis=1, keepdims=True))


p = Parameter([3.0, 5.0])

REFUSED = {
    "np.array": (lambda: np.array(p), r"x\.numpy\(\)"),
    "np.asarray": (lambda: np.asarray(p), r"x\.numpy\(\)"),
    "np.array of several": (lambda: np.array([p, p]), r"ops\.stack"),
    "Tensor of Tensors": (lambda: Tensor([p, p]), r"ops\.stack"),
    "a list of Tensors": (lambda: p * [p, p], r"ops\.stack"),
    "another function": (lambda: np.linalg.norm(p), r"autograd\.ops.*np\.linalg\.norm\(x"),
    "another ufunc": (lambda: np.arctan(p), r"np\.arctan.*autograd\.ops"),
    "a part of a ufunc": (lambda: np.add.reduce(p), r"np\.add\.reduce.*autograd\.ops"),
    "p % 2": (lambda: p % 2, r"x\.numpy\(\) %"),
    "7 // p": (lambda: 7 // p, r"x\.numpy\(\) %"),
    "divmod": (lambda: divmod(p, 2), r"x\.numpy\(\) %"),
    "an argument": (lambda: np.sum(p, dtype=np.float32), r"np\.sum with dtype"),
    "an argument of a ufunc": (lambda: np.exp(p, where=[True, False]), r"np\.exp with where"),
    "where of one": (lambda: np.where(p), r"np\.where"),
    "out": (lambda: np.exp(p, out=np.zeros(2)), "omit `out`"),
    "array += p": (lambda: np.zeros(2).__iadd__(p), r"y = x \+ p"),
    "p += 1": (lambda: p.__iadd__(1), r"p\.assign"),
    "p[0] = 1": (lambda: p.__setitem__(0, 1.0), r"ops\.where"),
    "a Tensor as a condition": (lambda: ops.where(p, p, 0), "where: the condition is a Tensor"),
    "where a Tensor": (lambda: np.where(p, 1, 0), "where: the condition is a Tensor.*x != 0"),
    "an array to clip to": (
        lambda: np.clip(p, 0, 1, out=np.zeros(2)),
        "np.clip with out does not accept Tensors",
    ),
    "a setting that an operation lacks": (
        lambda: np.sum(p, axis=0, initial=1),
        "np.sum with initial does not accept Tensors",
    ),
    "too many arguments": (lambda: np.clip(p, 0, 1, np.zeros(2)), "np.clip with these arguments"),
    "a list to stack": (lambda: ops.stack([p, p]), r"ops\.stack\(x, y\), without a list"),
    "a Tensor as a bound": (lambda: p.clip(p.min()), "clip: min has no gradient"),
    "a Tensor as an index": (lambda: p[p], "take: index has no gradient"),
    "complex numbers": (lambda: p * 1j, "complex128"),
    "text": (lambda: Tensor(["a"]), "<U1"),
    "f'{p:.2f}'": (lambda: f"{p:.2f}", r"a single number, got shape \(2,\)"),
    "going over no axes": (lambda: list(p.sum()), "without axes"),
    "copy": (lambda: copy.copy(p), "deepcopy"),
    "range": (lambda: range(p.sum()), "interpreted as an integer"),
    "None": (lambda: p + None, "NoneType"),
    "None among axes": (lambda: Tensor(X).transpose(None, 1), "NoneType"),
    "bounds by position and by name": (lambda: np.clip(p, 0, 1, min=2), "np.clip: .* not both"),
    "a bound by position, one by name": (
        lambda: np.clip(p, None, 1, min=0),
        "np.clip: .* not both",
    ),
    "a single Tensor wanted": (lambda: backward(p), "a list of Tensors"),
    "no argument": (lambda: ops.exp(), "exp takes 1 argument"),
}


def backward(wanted):
    with Tape() as tape:
        y = p.sum()
    return tape.backward(y, wanted=wanted)


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_uses_are_errors_of_one_line(name):
    act, sentence = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=sentence) as caught:
        act()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "act",
    [lambda: bool(p), lambda: p.item(), lambda: float(p), lambda: math.exp(p), lambda: int(p)],
)
def test_a_tensor_of_several_numbers_does_not_convert_to_one(act):
    with pytest.raises((ValueError, TypeError)):
        act()


def test_a_tensor_of_one_number_converts_to_it():
    x = Tensor([2.5])[0]
    assert (x.item(), float(x), int(x), bool(x), f"{x:.2f}") == (2.5, 2.5, 2, True, "2.50")
    assert f"{x}" == str(x) == repr(x)
    assert math.exp(x) == math.exp(2.5)
    assert not Tensor(0.0)


@pytest.mark.parametrize("library", ["numpy", "strict"])
def test_comparisons_are_plain_arrays(library):
    with using(library):
        x = Tensor([1.0, 2.0, 3.0])
    y = Tensor(backend.backend(library).asarray(np.array([3.0, 2.0, 1.0])))
    values = to_host(x.value)
    for name in ("gt", "lt", "ge", "le", "eq", "ne"):
        for other in (2, [3.0, 2.0, 1.0], y, y.value):
            got = getattr(x, f"__{name}__")(other)
            assert isinstance(got, type(x.value))
            assert got.dtype == bool
            plain = 2 if isinstance(other, int) else np.array([3.0, 2.0, 1.0])
            np.testing.assert_array_equal(to_host(got), getattr(values, f"__{name}__")(plain))


def test_an_array_on_the_left_is_compared_too():
    x = Tensor([1.0, 2.0])
    for f in (np.greater, np.less, np.equal, np.not_equal, np.less_equal, np.greater_equal):
        got = f(np.array([1.5, 2.0]), x)
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, f(np.array([1.5, 2.0]), x.value))
    odd = Tensor([np.nan, np.inf, 1.0])
    assert np.isnan(odd).tolist() == [True, False, False]
    assert np.isinf(odd).tolist() == [False, True, False]
    assert np.isfinite(odd).tolist() == [False, False, True]


def test_tensors_are_hashed_by_identity():
    x, y = Tensor([1.0]), Tensor([1.0])
    assert {x: "x", y: "y"}[x] == "x"
    assert len({x, y, x}) == 2


def test_results_without_a_gradient_are_plain_arrays():
    x = Tensor(X)
    assert (np.shape(x), np.ndim(x), np.size(x)) == (X.shape, X.ndim, X.size)
    assert type(np.zeros_like(x)) is type(np.ones_like(x)) is np.ndarray
    whole = x.astype(np.int64)
    assert type(whole) is np.ndarray
    assert whole.dtype == np.int64


def test_the_gradient_of_astype_has_the_original_dtype():
    x = Tensor(X)
    with Tape() as tape:
        y = x.astype(np.float32)
        loss = (y * 2).sum()
    assert y.dtype == loss.dtype == np.float32
    (g,) = tape.backward(loss, wanted=[x])
    assert g.dtype == np.float64
    np.testing.assert_array_equal(g, 2)


def test_a_constant_of_another_dtype_does_not_change_the_gradients_dtype():
    x = Tensor(X.astype(np.float32))
    with Tape() as tape:
        loss = (x * C).sum()
    assert tape.backward(loss, wanted=[x])[0].dtype == np.float32


@pytest.mark.parametrize("constant", [[1.0, 2.0], (1, 2), [[1], [2]]])
def test_a_list_takes_the_dtype_of_the_tensor(constant):
    x = Tensor(np.ones(2, np.float32))
    for y in (x + constant, constant * x, x @ np.eye(2, dtype=np.float32) - constant):
        assert y.dtype == np.float32


def test_shapes_and_axes_are_given_as_for_an_array():
    for arguments in ((None,), (), (1, 0), ((1, 0),), ([1, 0],), (np.array([1, 0]),)):
        np.testing.assert_array_equal(
            Tensor(X).transpose(*arguments).value, X.transpose(*arguments)
        )
    for arguments in ((-1,), (4, 3), ((4, 3),), ([4, 3],), (np.array([4, 3]),), (np.int64(12),)):
        np.testing.assert_array_equal(Tensor(X).reshape(*arguments).value, X.reshape(*arguments))
    np.testing.assert_array_equal(Tensor(X).reshape(np.array(12)).value, X.flatten())
    np.testing.assert_array_equal(Tensor(X[0]).transpose(np.array(0)).value, X[0])


def test_arguments_may_be_given_by_name():
    x, w = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 2))
    check_gradients(lambda x, w: ops.linear(x, weight=w, bias=None), x, w)
    check_gradients(lambda x: ops.power(x, exponent=3), x)
    with pytest.raises(TypeError, match="weight"):
        ops.linear(Tensor(x), bias=w)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("squeeze", r"write x\.reshape\(shape\)"),
        ("dot", "write x @ y"),
        ("copy", r"write copy\.deepcopy\(x\)"),
        ("argmax", r"x\.numpy\(\)\.argmax\(\.\.\.\)"),
        ("prod", r"x\.numpy\(\)\.prod\(\.\.\.\)"),
        ("tolist", r"x\.numpy\(\)\.tolist\(\.\.\.\)"),
        ("strides", r"x\.numpy\(\)\.strides for"),
    ],
)
def test_errors_for_missing_array_methods_name_a_replacement(name, instead):
    with pytest.raises(AttributeError, match=f"'Parameter' .* attribute '{name}', .*{instead}"):
        getattr(p, name)
    assert not hasattr(p, name)


def test_other_attributes_are_missing_as_usual():
    for name in ("nonsense", "__array_interface__", "__complex__"):
        with pytest.raises(AttributeError, match=f"object has no attribute '{name}'$"):
            getattr(p, name)
    for x in (Tensor(X), p):
        again = copy.deepcopy(x)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(again)).value, x.value)
