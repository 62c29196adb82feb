"""Invalid arguments are refused in the forward pass with a clear error; others work."""

import math
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import (
    DropoutSite,
    DropoutStream,
    Parameter,
    Sentences,
    Tape,
    Tensor,
    check_gradients,
    ops,
    references,
    to_host,
)
from autograd.backend import backend
from tests.autograd.cases import CASES
from tests.autograd.drawing import values_and_gradients
from tests.autograd.odd import odd_cases, result_of
from tests.without_gpu import emulator

every_op = pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)


def several(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


@every_op
@settings(max_examples=80)
@given(data=st.data())
def test_unusual_arguments_are_refused_at_once_or_have_right_gradients(operation, data):
    case = data.draw(odd_cases(operation))
    with references(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|Degrees of freedom|invalid value")
        outputs = result_of(case, [Tensor(x) for x in case.arrays])
        if outputs is not None and all(
            np.isfinite(to_host(getattr(y, "value", y))).all() for y in several(outputs)
        ):
            check_gradients(case.outputs, *case.arrays)


@pytest.mark.parametrize(
    "operation",
    [
        ops.linear,
        ops.feed_forward,
        ops.dropout,
        ops.layer_norm,
        ops.add_dropout_norm,
        ops.embedding,
        ops.attention,
        ops.projected_cross_entropy,
    ],
    ids=lambda o: o.name,
)
@settings(max_examples=60)
@given(data=st.data())
def test_fast_implementations_refuse_what_references_refuse(operation, data):
    pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
    case = data.draw(odd_cases(operation))
    arrays = [x.astype(np.float32) for x in case.arrays]
    with references():
        outputs = result_of(case, [Tensor(x) for x in arrays])
        expected = outputs is not None and values_and_gradients(case.run, arrays)
    if outputs is None:
        assert result_of(case, [Tensor(x) for x in arrays]) is None
        return
    got = values_and_gradients(case.run, arrays)
    for one, other in zip(got[0] + got[1], expected[0] + expected[1], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


x, weight = np.ones((3, 4)), np.ones((5, 4))
ids = np.array([0, 4, 1])
attention = {"heads": 1, "d_k": 1, "sentences": Sentences([2, 1])}
cached = {"heads": 1, "d_k": 2, "slots": np.array([[0], [1]]), "lengths": np.full(2, 2)}
q, kv = np.ones((2, 1, 4)), np.ones((3, 2, 4))
adam = {"rate": 1, "beta1": 0, "beta2": 0, "epsilon": 1, "step": 1}

# Invalid arguments and the messages about them, for every implementation.
REFUSED = {
    "too few targets": (
        lambda t: ops.projected_cross_entropy(t(x), t(weight), targets=ids[:1]),
        r"targets must have shape \(3,\), \[tokens\], got \(1,\)",
    ),
    "a target out of the vocabulary": (
        lambda t: ops.projected_cross_entropy(t(x), t(weight), targets=ids + 1),
        "targets: index 5 is out of range for 5 rows",
    ),
    "targets of probabilities": (
        lambda t: ops.projected_cross_entropy(t(x), t(weight), targets=ids * 1.0),
        "array of integers, got an array of float64",
    ),
    "a weight of other columns": (
        lambda t: ops.projected_cross_entropy(t(x), t(weight[:, :3]), targets=ids),
        r"x \(3, 4\) and weight \(5, 3\) differ",
    ),
    "no vocabulary": (
        lambda t: ops.projected_cross_entropy(t(x), t(weight[:0]), targets=ids),
        "targets: index 4 is out of range for 0 rows",
    ),
    "an id out of the vocabulary": (
        lambda t: ops.embedding(t(weight), ids=ids + 1),
        "ids: index 5 is out of range for 5 rows",
    ),
    "ids in a list": (lambda t: ops.embedding(t(weight), ids=[0]), "ids must be .*, got list"),
    "ids of several axes": (
        lambda t: ops.embedding(t(weight), ids=ids[None]),
        r"ids must have shape \(3,\), \[tokens\], got \(1, 3\)",
    ),
    "a position id below 0": (
        lambda t: ops.embedding(t(weight), t(x), ids=ids, position_ids=np.array([0, 2, -1])),
        "position_ids: index -1 is out of range for 3 rows",
    ),
    "no position ids": (
        lambda t: ops.embedding(t(weight), t(x), ids=ids),
        "position_ids must be .*, got NoneType",
    ),
    "positions of other columns": (
        lambda t: ops.embedding(t(weight), t(x[:, :2]), ids=ids, position_ids=ids),
        r"positions \(3, 2\) and table \(5, 4\)",
    ),
    "sentences of other rows": (
        lambda t: ops.attention(t(x), **{**attention, "sentences": Sentences([2, 2])}),
        "sentences must have 3 rows in all, got 4",
    ),
    "lengths for sentences": (
        lambda t: ops.attention(t(x), **{**attention, "sentences": [2, 1]}),
        r"sentences must be a Sentences, got list: write Sentences\(lengths\)",
    ),
    "too few sentences of keys": (
        lambda t: ops.attention(t(x[:, :1]), t(x), **attention, key_sentences=Sentences([3])),
        "1 key_sentences for 2 sentences",
    ),
    "no sentences of keys": (
        lambda t: ops.attention(t(x[:, :1]), t(np.ones((5, 4))), **attention),
        "key_sentences must have 5 rows in all, got 3",
    ),
    **{
        f"smoothing of {smoothing}": (
            lambda t, smoothing=smoothing: ops.projected_cross_entropy(
                t(x), t(weight), targets=ids, smoothing=smoothing
            ),
            r"smoothing must be in \[0, 1\), got " + str(smoothing),
        )
        for smoothing in (-0.1, 1.0, math.nan, math.inf)
    },
    "heads that do not divide": (
        lambda t: ops.attention(t(x), **{**attention, "heads": 3}),
        "q has 4 columns",
    ),
    "a bias of other columns": (
        lambda t: ops.linear(t(x), t(weight.T), t(x[0])),
        r"bias \(4,\) and weight \(4, 5\)",
    ),
    "an unknown activation": (
        lambda t: ops.feed_forward(t(x), t(weight.T), t(0.0), t(weight), activation="tanh"),
        "activation must be relu, gelu, swish, got 'tanh'",
    ),
    "inner widths that differ": (
        lambda t: ops.feed_forward(t(x), t(weight.T), t(0.0), t(weight.T)),
        r"w1 \(4, 5\) and w2 \(4, 5\) do not match",
    ),
    "an inner bias of other columns": (
        lambda t: ops.feed_forward(t(x), t(weight.T), t(x[0]), t(weight)),
        r"b1 \(4,\) and its weight \(4, 5\)",
    ),
    "no inner bias": (
        lambda t: ops.feed_forward(t(x), t(weight.T), None, t(weight)),
        "feed_forward: b1 must be an array, and only b2 may be None",
    ),
    "a weight that is not a matrix": (
        lambda t: ops.linear(t(x), t(x[0])),
        "weight must be a matrix",
    ),
    "a gain of other columns": (
        lambda t: ops.layer_norm(t(x), t(x[0, :3]), t(x[0])),
        r"gain \(3,\) and x \(3, 4\)",
    ),
    "rows of nothing": (
        lambda t: ops.layer_norm(t(x[:, :0]), t(x[0, :0]), t(x[0, :0])),
        "at least one column, got shape",
    ),
    "a residual of other rows": (
        lambda t: ops.add_dropout_norm(t(x), t(x[:2]), t(x[0]), t(x[0])),
        r"x \(3, 4\) and residual \(2, 4\)",
    ),
    "a mask of more axes": (
        lambda t: ops.dropout(t(x[None]), site=DropoutSite(0.5, 0, 0, 0)),
        r"x must be a matrix \[rows, columns\], got shape",
    ),
    **{
        f"{name} of {site!r}": (
            lambda t, operation=operation, site=site: operation(t, site),
            f"{name}: site must be a DropoutSite or None, got ",
        )
        for name, operation in {
            "dropout": lambda t, site: ops.dropout(t(x), site=site),
            "add_dropout_norm": lambda t, site: ops.add_dropout_norm(
                t(x), t(x), t(x[0]), t(x[0]), site=site
            ),
            "attention": lambda t, site: ops.attention(t(x), **attention, site=site),
        }.items()
        for site in (0.1, 0, True, np.array(0.1), DropoutStream(0, 1))
    },
    "more tokens than there are": (
        lambda t: ops.top_k(t(x), t(weight), k=6),
        "k must be 1 to the size of the vocabulary, 5, got 6",
    ),
    "no tokens": (lambda t: ops.top_k(t(x), t(weight), k=0), "got 0"),
    "a vocabulary of other columns": (
        lambda t: ops.top_k(t(x), t(x[:, :2]), k=1),
        r"x \(3, 4\) and weight \(3, 2\)",
    ),
    "a bias of another vocabulary": (
        lambda t: ops.top_k(t(x), t(weight), t(x[0]), k=1),
        r"bias \(4,\) and weight \(5, 4\)",
    ),
    "ids of another vocabulary": (
        lambda t: ops.top_k(t(x), t(weight), k=1, ids=t(np.arange(4))),
        r"top_k: ids .*\[vocabulary\]",
    ),
    "groups that do not divide the rows": (
        lambda t: ops.top_k(t(x), t(weight), t(weight[:2] @ weight.T), k=1),
        r"the groups of bias \(2, 5\) do not divide x \(3, 4\)",
    ),
    "a slot out of range": (
        lambda t: ops.cached_attention(t(q), t(kv), **{**cached, "slots": cached["slots"] + 2}),
        "slots: index 3 is out of range for 3 rows",
    ),
    "a length beyond the cache": (
        lambda t: ops.cached_attention(t(q), t(kv), **{**cached, "lengths": np.full(2, 3)}),
        "lengths must be 0 to 2, got 3",
    ),
    "heads that do not match the cache": (
        lambda t: ops.cached_attention(t(q), t(kv), **{**cached, "heads": 3}),
        r"3 heads of d_k 2 do not match q \(2, 1, 4\)",
    ),
    "a cache of another dtype": (
        lambda t: ops.cached_attention(t(q), kv.astype(np.float16), **cached),
        "and kv float16",
    ),
    "a row without its new token": (
        lambda t: ops.append_to_cache(t(x), t(kv), slots=ids % 3, lengths=ids * 0),
        "lengths must be 1 to 2147483647, got 0",
    ),
    "keys of too few columns": (
        lambda t: ops.append_to_cache(t(x[:, :3]), t(kv), slots=ids % 3, lengths=ids * 0 + 1),
        r"new \(3, 3\) and kv \(3, 2, 4\)",
    ),
    **{
        f"a mask {name}={mask!r}": (
            lambda t, name=name, mask=mask: ops.scaled_dot_product(
                t(x), t(x), t(x), **{name: mask}
            ),
            sentence,
        )
        for name in ("hidden", "keep")
        for mask, sentence in (
            (
                np.array(False),
                name + r" must be .* to \(3, 3\), not an array of bool, of shape \(\)",
            ),
            (np.True_, name + r" must be .*, not an array of bool, of shape \(\)"),
            (True, name + " must be .*, not bool"),
            ([True] * 3, name + " must be .*, not list"),
            (np.ones(3), name + r" must be .*, not an array of float64, of shape \(3,\)"),
            (np.ones(2, bool), name + r" \(2,\) does not broadcast to \(3, 3\)"),
            (np.ones((1, 3, 3), bool), name + r" \(1, 3, 3\) does not broadcast to \(3, 3\)"),
        )
    },
    **{
        f"a scale of {scale!r}": (
            lambda t, scale=scale: ops.scaled_dot_product(t(x), t(x), t(x), scale=scale),
            "scaled_dot_product: scale must be a number, not ",
        )
        for scale in ("2", None, np.ones(3), [2.0])
    },
    "moments of another size": (
        lambda t: ops.adam_step(t(x[0]), t(x[0]), t(x[0, :3]), t(x[0]), **adam),
        r"first must have shape \(.*, flat, as values, got \(3,\)",
    ),
    "parts along no axis": (
        lambda t: ops.concatenate(t(x), axis=None),
        "axis must be an integer, got",
    ),
    "parts that are not equal": (
        lambda t: ops.split(t(x), sections=3, axis=1),
        r"axis 1 of \(3, 4\) cannot be split into 3 equal parts",
    ),
    "parts of no section": (
        lambda t: ops.split(t(x), sections=0),
        "sections must be 1 or more, .* got 0",
    ),
    **{
        f"parts of sections {sections!r}": (
            lambda t, sections=sections: ops.split(t(x), sections=sections),
            "split: sections must be an integer, or a flat sequence of integers, got ",
        )
        for sections in (2.0, None, [1.0], [[1]], "ab", np.array([1.0]), np.array([[1], [2]]))
    },
    "parts along half an axis": (
        lambda t: ops.stack(t(x), axis=0.5),
        "axis must be an integer, got",
    ),
    "no sections": (lambda t: ops.split(t(x)), r"^split\(\) missing .* 'sections'"),
    **{
        f"a bound of {bound!r}": (
            lambda t, bound=bound: ops.clip(t(x), max=bound),
            "clip: max must be a number, or an array or list of numbers, got ",
        )
        for bound in ([None] * 4, "0.5", ["0.5"], 1j, np.array([1j]), np.datetime64(1, "D"))
    },
    "one id without an axis": (
        lambda t: ops.embedding(t(weight), ids=np.array(1)),
        r"ids must have shape .*\[tokens\], got \(\)",
    ),
    "one target without an axis": (
        lambda t: ops.projected_cross_entropy(t(x), t(weight), targets=np.array(1)),
        r"targets must have shape .*\[tokens\], got \(\)",
    ),
}


@pytest.mark.parametrize("kind", ["reference", "fast", "strict"])
@pytest.mark.parametrize("name", REFUSED)
def test_invalid_arguments_are_named_before_anything_runs(name, kind):
    if kind == "fast":
        pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
    there = backend("strict" if kind == "strict" else "numpy")
    act, sentence = REFUSED[name]
    with pytest.raises((TypeError, ValueError, IndexError), match=sentence) as caught:
        act(lambda x: there.asarray(np.array(x, np.float32 if kind == "fast" else np.float64)))
    assert "\n" not in str(caught.value)


def test_indices_on_a_device_are_not_checked():
    there = backend("strict")
    wrong = there.asarray(ids + 100)
    ops.embedding._check(there.asarray(weight), ids=wrong)
    ops.projected_cross_entropy._check(*map(there.asarray, (x, weight)), targets=wrong)


def test_smoothing_needs_tokens_to_share_the_probability():
    for vocabulary, over in ((0, "vocabulary"), (1, "others")):
        with pytest.raises(ValueError, match=f"a vocabulary of {vocabulary} has no {over}"):
            ops.projected_cross_entropy(
                x[:0], weight[:vocabulary], targets=ids[:0], smoothing=0.1, smoothing_over=over
            )


@pytest.mark.parametrize("number", [np.int64, np.array])
def test_integers_may_be_numpys(number):
    for axis in (0, 1):
        for got in (
            ops.concatenate(*ops.split(x, sections=number(2), axis=number(1)), axis=number(1)),
            ops.take(ops.stack(x, x, axis=number(axis)), index=(slice(None),) * axis + (0,)),
        ):
            np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("axis", [0, -1, None, ()])
@pytest.mark.parametrize("operation", [ops.sum, ops.max, ops.min])
def test_scalars_can_be_reduced(operation, axis):
    check_gradients(lambda t: operation(t, axis=axis), np.array(2.0))
    p = Parameter(2.0)
    with Tape() as tape:
        y = operation(p, axis=axis, keepdims=True)
    tape.backward(y)
    assert p.grad == 1


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (0, 4), (2, 0, 4)])
def test_linear_and_layer_norm_accept_any_leading_axes(shape):
    rng = np.random.default_rng(0)
    rows, w, b = rng.standard_normal(shape), rng.standard_normal((4, 5)), rng.standard_normal(5)
    for relu in (False, True):
        check_gradients(lambda x, w, b, relu=relu: ops.linear(x, w, b, relu=relu), rows, w, b)
    check_gradients(ops.linear, rows, w)
    check_gradients(ops.layer_norm, rows, *rng.standard_normal((2, 4)))


NUMBERS_FOR_ARRAYS = {
    "bias": lambda x, w: ops.linear(x, w, 0.5),
    "bias, and ReLU": lambda x, w: ops.linear(x, w, 0.5, relu=True),
    "gain and bias": lambda x, w: ops.layer_norm(x, 1.5, 0.5),
    "bias of a norm": lambda x, w: ops.layer_norm(x, w[0], 0.5),
    "residual": lambda x, w: ops.add_dropout_norm(x, 0.5, w[0], w[1]),
    "all": lambda x, w: ops.add_dropout_norm(x, 0.5, 1.5, 0.5),
    "all, after dropout": lambda x, w: ops.add_dropout_norm(
        x, 0.5, 1.5, 0.5, site=DropoutSite(0.5, 0, 0, 0)
    ),
}


@pytest.mark.parametrize("name", NUMBERS_FOR_ARRAYS)
@pytest.mark.parametrize("kind", ["reference", "fast", "cuda"])
def test_numbers_are_accepted_in_the_place_of_arrays(name, kind):
    """The fast implementations leave them to the references."""
    f = NUMBERS_FOR_ARRAYS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((8, 8)) for _ in range(2)]
    if kind == "reference":
        check_gradients(lambda x, w: f(x, w) + 0 * w.sum(), *arrays)
        return
    if kind == "fast":
        pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
    with emulator.on_strict_arrays() if kind == "cuda" else nullcontext():
        there = backend("strict" if kind == "cuda" else "numpy")
        x, w = (there.asarray(a.astype(np.float32)) for a in arrays)
        y = f(x, w)
    assert y.dtype == np.float32
    np.testing.assert_allclose(to_host(y), f(*arrays), rtol=1e-3, atol=1e-4)
