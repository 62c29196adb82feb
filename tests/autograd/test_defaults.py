"""The defaults of operations."""

import inspect

import numpy as np
import pytest

from autograd import DropoutSite, DropoutStream, Sentences, Tensor, cpu, cuda, ops
from autograd.ops.large.norm import EPSILON

DEFAULTS = {
    "adam_step": {"scale": 1.0, "rounded": None},
    "add_dropout_norm": {"site": None, "epsilon": 1e-6},
    "attention": {"kv": None, "key_sentences": None, "causal": False, "window": None, "site": None},
    "attention_weights": {"kv": None, "key_sentences": None, "causal": False, "window": None},
    "beam_step": {
        "until_full": False,
        "coverage": None,
        "groups": 1,
        "diversity": 0.0,
        "tokens": (),
        "histories": (),
    },
    "clip": {"min": None, "max": None},
    "concatenate": {"axis": 0},
    "embedding": {
        **dict.fromkeys(["positions", "position_ids", "order", "position_order"]),
        "scale": 1.0,
        "site": None,
    },
    "feed_forward": {"b2": None, "activation": "relu", "site": None},
    "int8_embedding": {**dict.fromkeys(["positions", "position_ids"]), "scale": 1.0},
    "int8_linear": {"bias": None, "relu": False},
    "int8_top_k": {"bias": None, "ids": None},
    "layer_norm": {"epsilon": 1e-6},
    "linear": {"bias": None, "relu": False},
    "max": {"axis": None, "keepdims": False},
    "mean": {"axis": None, "keepdims": False},
    "min": {"axis": None, "keepdims": False},
    "convolution": {"dilation": 1},
    "depthwise_convolution": {"dilation": 1},
    "separable_convolution": {"dilation": 1},
    "projected_cross_entropy": {"smoothing": 0.0, "smoothing_over": "vocabulary"},
    "scaled_dot_product": {"hidden": None, "keep": None, "scale": 1.0},
    "split": {"axis": 0},
    "stack": {"axis": 0},
    "std": {"axis": None, "ddof": 0, "keepdims": False},
    "sum": {"axis": None, "keepdims": False},
    "top_k": {"bias": None, "ids": None, "packed": None},
    "transpose": {"axes": None},
    "var": {"axis": None, "ddof": 0, "keepdims": False},
}


def defaults_of(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


@pytest.mark.parametrize("name", ops.__all__)
def test_operations_have_these_defaults(name):
    assert defaults_of(getattr(ops, name)) == DEFAULTS.get(name, {})


@pytest.mark.parametrize("kernel", cuda.MODULES, ids=lambda k: k.name)
def test_every_implementation_has_the_references_signature(kernel):
    from importlib import import_module

    modules = [f"autograd.cuda.{cuda.MODULES[kernel][0]}"]
    if kernel in cpu.MODULES:
        pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
        modules.append(f"autograd.cpu.{cpu.MODULES[kernel]}")
    for module in modules:
        fast = getattr(import_module(module), f"fast_{kernel.name}")
        ours = [(p.name, p.kind, p.default) for p in inspect.signature(fast).parameters.values()]
        reference = inspect.signature(kernel).parameters.values()
        assert ours == [(p.name, p.kind, p.default) for p in reference]


x = np.random.default_rng(0).standard_normal((3, 4))
ROW, SQUARE = x[0], x[:, :3]
ATTENTION = {"heads": 1, "d_k": 1, "sentences": Sentences([3])}
TARGETS = np.array([0, 2, 1])
SITE = DropoutSite(0.5, seed=0, step=0, site=0)

# A call without a setting, and an equivalent of it.
EQUIVALENTS = {
    "sum": (lambda: ops.sum(x), lambda: np.add.reduce(x.ravel())),
    "mean": (lambda: ops.mean(x), lambda: x.ravel().sum() / 12),
    "max": (lambda: ops.max(x), lambda: np.sort(x.ravel())[-1]),
    "min": (lambda: ops.min(x), lambda: np.sort(x.ravel())[0]),
    "var": (lambda: ops.var(x), lambda: ((x - x.mean()) ** 2).mean()),
    "std": (lambda: ops.std(x), lambda: np.sqrt(((x - x.mean()) ** 2).mean())),
    "sum over an axis": (lambda: ops.sum(x, axis=1), lambda: x @ np.ones(4)),
    "mean over an axis": (lambda: ops.mean(x, axis=1), lambda: x @ np.ones(4) / 4),
    "max over an axis": (lambda: ops.max(x, axis=1), lambda: np.sort(x)[:, -1]),
    "min over an axis": (lambda: ops.min(x, axis=1), lambda: np.sort(x)[:, 0]),
    "var over an axis": (lambda: ops.var(x, axis=1), lambda: (x**2).mean(1) - x.mean(1) ** 2),
    "std over an axis": (lambda: ops.std(x, axis=1) ** 2, lambda: ops.var(x, axis=1)),
    "transpose": (lambda: ops.transpose(x), lambda: np.array(list(zip(*x, strict=True)))),
    "concatenate": (lambda: ops.concatenate(x, x), lambda: np.array([*x, *x])),
    "stack": (lambda: ops.stack(x, x), lambda: np.array([x, x])),
    "split": (lambda: ops.split(x, sections=[1])[1], lambda: x[1:]),
    "clip": (lambda: ops.clip(x), lambda: x),
    "linear": (lambda: ops.linear(x, x.T), lambda: x @ x.T),
    "dropout": (lambda: ops.dropout(x, site=None), lambda: x),
    "layer_norm": (
        lambda: ops.layer_norm(x * 1e-3, ROW, ROW),
        lambda: ops.layer_norm(x, ROW, ROW, epsilon=EPSILON * 1e6),
    ),
    "add_dropout_norm": (
        lambda: ops.add_dropout_norm(x, x, ROW, ROW),
        lambda: ops.layer_norm(2 * x, ROW, ROW),
    ),
    "embedding": (lambda: ops.embedding(x, ids=TARGETS), lambda: x[TARGETS]),
    "attention": (
        lambda: ops.attention(SQUARE, **ATTENTION),
        lambda: ops.softmax(x[:, :1] * x[:, 1]) @ x[:, 2:3],
    ),
    "attention_weights": (
        lambda: ops.attention_weights(SQUARE, **ATTENTION)[0][0],
        lambda: ops.softmax(x[:, :1] * x[:, 1]),
    ),
    "projected_cross_entropy": (
        lambda: ops.projected_cross_entropy(x, x, targets=TARGETS)[0],
        lambda: -np.log(ops.softmax(x @ x.T)[range(3), TARGETS]).sum(),
    ),
    "where smoothing goes": (
        lambda: ops.projected_cross_entropy(x, x, targets=TARGETS, smoothing=0.3)[0],
        lambda: (
            -(0.7 * ops.log_softmax(x @ x.T)[range(3), TARGETS]).sum()
            - 0.1 * ops.log_softmax(x @ x.T).sum()
        ),
    ),
    "the first row of a mask": (
        lambda: ops.dropout(x, site=SITE),
        lambda: ops.dropout(x, site=DropoutStream(seed=0, step=0, row=0).site(0, 0.5)),
    ),
}


@pytest.mark.parametrize("name", EQUIVALENTS)
def test_a_call_by_default_equals_its_equivalent(name):
    by_default, equivalent = EQUIVALENTS[name]
    expected = np.asarray(equivalent())
    assert np.shape(by_default()) == expected.shape
    np.testing.assert_allclose(by_default(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "std"])
def test_the_methods_of_a_tensor_have_the_same_defaults(name):
    assert defaults_of(getattr(Tensor, name)) == DEFAULTS[name]
    got = getattr(Tensor(x), name)()
    assert got.shape == ()
    np.testing.assert_allclose(got.value, getattr(ops, name)(x))


def test_adams_default_scale_is_1():
    def step(**settings):
        state = [np.full(2, v) for v in (1.0, 0.5, 0.0, 0.0)]
        numbers = {"rate": 0.1, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-2, "step": 1}
        ops.adam_step(*state, **numbers, **settings)
        return state

    np.testing.assert_array_equal(step(), step(scale=1.0))
    assert (step()[0] != step(scale=0.1)[0]).all()
