"""Gradients agree with central differences, and with compositions of primitives."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import Sentences, Tape, Tensor, check_gradients, op, ops, references, to_host
from autograd.backend import backend
from autograd.operation import Op
from autograd.ops.large.cross_entropy import smoothed_target
from autograd.ops.large.packed_attention import HEAD_COLUMNS
from tests.autograd.cases import CASES
from tests.autograd.drawing import Case, sides, values_and_gradients

every_op = pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)


def test_every_operation_has_cases():
    exported = {getattr(ops, name) for name in ops.__all__}
    assert {o for o in exported if isinstance(o, Op)} == set(CASES)


def test_every_operation_is_exported():
    modules = [m for name, m in sys.modules.items() if name.startswith("autograd.ops.")]
    defined = {o for m in modules for o in vars(m).values() if isinstance(o, Op)}
    assert defined == set(CASES)


@every_op
@settings(max_examples=100)
@given(data=st.data())
def test_gradients_match_central_differences(operation, data):
    case = data.draw(CASES[operation])
    with references():
        check_gradients(case.outputs, *case.arrays)


@pytest.mark.parametrize("keepdims", [False, True])
def test_equal_largest_elements_share_the_gradient(keepdims):
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    _, (dx,) = values_and_gradients(lambda t: t.max(axis=1, keepdims=keepdims).sum(), [x], seed=1)
    share = dx.sum() / 2  # the gradient of each row
    np.testing.assert_allclose(dx, share * np.array([[0, 1 / 2, 1 / 2], [1 / 3, 1 / 3, 1 / 3]]))


def test_operators_of_a_tensor_equal_the_operations():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(1, 2, (3, 3)), rng.uniform(1, 2, (3, 3))
    check_gradients(lambda a, b: (a + b, a - b, a * b, a / b, a @ b, -a, a**3, a.T, a[1:]), x, y)
    check_gradients(lambda a: (2 + a, 2 - a, 2 * a, 2 / a, y @ a, y + a, y / a, y - a), x)
    check_gradients(lambda a: (a.sum(0), a.mean(1), a.reshape(9), a.reshape(1, -1)), x)
    check_gradients(lambda a: (a.reshape(3, 3, 1).transpose(2, 0, 1), a.T), x)


# Large operations as compositions of primitives. `dropped` is dropout written as a product with
# a constant; one-hot rows make a look-up a matrix product.


def dropped(x, site):
    return x if site is None else x * (site.keep_matrix(np, *x.shape) * site.scale)


def one_hot(ids, size):
    return (ids[:, None] == np.arange(size)).astype(float)


def composed_softmax(x):
    e = ops.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def composed_gelu(x):
    return x * 0.5 * (1 + ops.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def composed_linear(x, weight, bias=0.0, *, relu):
    y = x @ weight + bias
    return ops.relu(y) if relu else y


def composed_feed_forward(x, w1, b1, w2, b2=0.0, *, activation, site):
    activations = {"relu": ops.relu, "gelu": composed_gelu, "swish": lambda x: x * ops.sigmoid(x)}
    return dropped(activations[activation](x @ w1 + b1), site) @ w2 + b2


def composed_layer_norm(x, gain, bias, *, epsilon):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / ops.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon) * gain + bias


def composed_add_dropout_norm(x, residual, gain, bias, *, site, epsilon):
    return composed_layer_norm(residual + dropped(x, site), gain, bias, epsilon=epsilon)


def composed_embedding(table, positions=None, *, ids, position_ids=None, scale, site):
    y = one_hot(ids, len(table)) @ table * scale
    if positions is not None:
        y = y + one_hot(position_ids, len(positions)) @ positions
    return dropped(y, site)


def composed_attention(
    q, kv=None, *, heads, d_k, sentences, key_sentences=None, causal, window=None, site
):
    lengths, key_lengths = sentences.lengths, (key_sentences or sentences).lengths
    width = heads * d_k
    queries = q[:, :width]
    keys = q[:, width : 2 * width] if kv is None else kv[:, :width]
    values = q[:, 2 * width :] if kv is None else kv[:, width:]
    d_v = values.shape[1] // heads
    sentences = []
    row = key_row = 0
    for n, m in zip(lengths, key_lengths, strict=True):
        outputs = []
        for head in range(heads):
            of_k, of_v = slice(head * d_k, (head + 1) * d_k), slice(head * d_v, (head + 1) * d_v)
            if m == 0:
                outputs.append(np.zeros((n, d_v)))
                continue
            Q = queries[row : row + n, of_k]
            K, V = keys[key_row : key_row + m, of_k], values[key_row : key_row + m, of_v]
            scores = Q @ K.T / math.sqrt(d_k)
            if causal:
                scores = scores + np.where(np.arange(m) > np.arange(n)[:, None], -np.inf, 0)
            if window is not None:
                left = window - 1 if causal else window // 2
                places = np.arange(m) - np.arange(n)[:, None] + left  # within the window
                scores = scores + np.where((places >= 0) & (places < window), 0, -np.inf)
            weights = ops.softmax(scores)
            if site is not None:
                rows = np.arange(row, row + n)[:, None]
                columns = head * HEAD_COLUMNS + np.arange(m)[None, :]
                weights = weights * (site.keep(np, rows, columns) * site.scale)
            outputs.append(weights @ V)
        sentences.append(ops.concatenate(*outputs, axis=1))
        row, key_row = row + n, key_row + m
    # Adding 0 · q makes it a Tensor where no sentence has keys.
    nothing = (q * 0).sum() + (0 if kv is None else (kv * 0).sum())
    return nothing + (ops.concatenate(*sentences) if sentences else np.zeros((0, heads * d_v)))


def composed_cross_entropy(x, weight, *, targets, smoothing, smoothing_over):
    there = np.flatnonzero(targets >= 0)
    log_p = ops.log_softmax(x[there] @ weight.T)
    hit = one_hot(targets[there], len(weight))
    a, b = smoothed_target(smoothing, len(weight), smoothing_over)
    return -(log_p * (a * hit + b)).sum(), -(log_p.value * hit).sum()


COMPOSITIONS = {
    ops.softmax: composed_softmax,
    ops.log_softmax: lambda x: ops.log(composed_softmax(x)),
    ops.gelu: composed_gelu,
    ops.dropout: lambda x, site: dropped(x, site) * 1,
    ops.linear: composed_linear,
    ops.feed_forward: composed_feed_forward,
    ops.layer_norm: composed_layer_norm,
    ops.add_dropout_norm: composed_add_dropout_norm,
    ops.embedding: composed_embedding,
    ops.attention: composed_attention,
    ops.projected_cross_entropy: composed_cross_entropy,
}


@pytest.mark.parametrize("operation", COMPOSITIONS, ids=lambda o: o.name)
@settings(max_examples=100)
@given(data=st.data())
def test_large_operations_match_compositions_of_primitives(operation, data):
    case: Case = data.draw(CASES[operation])
    with references():
        ours = values_and_gradients(case.run, case.arrays)
    composed = values_and_gradients(
        lambda *t: COMPOSITIONS[operation](*t, **case.settings), case.arrays
    )
    for kind, got, expected in zip(("output", "gradient"), ours, composed, strict=True):
        for i, (x, y) in enumerate(zip(got, expected, strict=True)):
            np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-10, err_msg=f"{kind} {i}")


@given(
    smoothing=st.floats(0, 1),
    vocabulary=st.integers(2, 1000),
    smoothing_over=st.sampled_from(["vocabulary", "others"]),
)
def test_the_smoothed_target_is_a_distribution(smoothing, vocabulary, smoothing_over):
    a, b = smoothed_target(smoothing, vocabulary, smoothing_over)
    assert a + b * vocabulary == pytest.approx(1)
    assert b >= 0
    if smoothing_over == "others":
        assert a + b == pytest.approx(1 - smoothing)


def test_smoothing_over_something_unknown_is_refused():
    with pytest.raises(ValueError, match="'vocabulary' or 'others'"):
        smoothed_target(0.1, 10, "everywhere")


@settings(max_examples=100)
@given(case=CASES[ops.attention])
def test_attention_weights_are_those_that_attention_uses(case):
    settings_ = {name: value for name, value in case.settings.items() if name != "site"}
    arrays, heads, d_k = case.arrays, settings_["heads"], settings_["d_k"]
    weights = ops.attention_weights(*arrays, **settings_)
    y = ops.attention.reference(*arrays, **settings_)[0]
    width = heads * d_k
    values = arrays[0][:, 2 * width :] if len(arrays) == 1 else arrays[1][:, width:]
    d_v = values.shape[1] // heads
    row = key_row = 0
    for w in weights:
        _, n, m = w.shape
        if m:
            np.testing.assert_allclose(w.sum(axis=-1), 1)
        if settings_["causal"]:
            assert not np.triu(w, 1).any()
        v = values[key_row : key_row + m].reshape(m, heads, d_v).transpose(1, 0, 2)
        mixed = (w @ v).transpose(1, 0, 2).reshape(n, heads * d_v)
        np.testing.assert_allclose(mixed, y[row : row + n], atol=1e-12)
        row, key_row = row + n, key_row + m


@pytest.mark.parametrize("weights_alone", [False, True])
def test_a_window_is_of_self_attention_and_has_a_position(weights_alone):
    attend = ops.attention_weights if weights_alone else ops.attention
    q, shape = np.ones((3, 6)), {"heads": 1, "d_k": 2, "sentences": Sentences([3])}
    for window in (0, -1, True):
        with pytest.raises(ValueError, match="window must be 1 or more positions, or None"):
            attend(q, **shape, window=window)
    with pytest.raises(TypeError):
        attend(q, **shape, window=2.5)
    with pytest.raises(ValueError, match="a window is of self-attention"):
        attend(q[:, :2], q[:, 2:], **shape, window=2)


@settings(max_examples=100)
@given(case=CASES[ops.attention], data=st.data())
def test_a_sentence_attends_only_to_itself(case, data):
    """Its rows do not depend on the other sentences of the batch."""
    lengths = case.settings["sentences"].lengths
    if len(case.arrays) > 1 or not lengths.sum():
        return
    settings_ = {**case.settings, "site": None}
    chosen = data.draw(st.integers(0, len(lengths) - 1))
    start, end = lengths[:chosen].sum(), lengths[: chosen + 1].sum()
    together = ops.attention(*case.arrays, **settings_)
    settings_["sentences"] = Sentences(lengths[chosen : chosen + 1])
    alone = ops.attention(case.arrays[0][start:end], **settings_)
    np.testing.assert_allclose(together[start:end], alone, atol=1e-12)


@pytest.mark.parametrize("name", ["numpy", "strict"])
@given(
    groups=sides,
    heads=sides,
    d_k=sides,
    d_v=sides,
    n=sides,
    lengths=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    data=st.data(),
)
def test_cached_attention_matches_attention_to_the_cached_keys(
    name, groups, heads, d_k, d_v, n, lengths, data
):
    rng, target = np.random.default_rng(0), backend(name)
    q = rng.standard_normal((groups, n, heads * d_k))
    longest, spare = max(lengths), data.draw(st.integers(0, 2))
    kv = rng.standard_normal((groups + spare, longest + spare, heads * (d_k + d_v)))
    full, per_key = data.draw(st.booleans()), data.draw(st.booleans())
    key_lengths = np.array([longest] * groups if full else lengths[:groups])
    slots = rng.integers(0, len(kv), (groups, longest + spare if per_key else 1))
    packed = np.concatenate([kv[slots[g, :m], np.arange(m)] for g, m in enumerate(key_lengths)])
    divided = {"sentences": Sentences([n] * groups), "key_sentences": Sentences(key_lengths)}
    with references():
        expected = ops.attention(q.reshape(groups * n, -1), packed, heads=heads, d_k=d_k, **divided)
        got = ops.cached_attention(
            target.asarray(
                np.concatenate([q, q], axis=2)
            ),  # the columns after the queries are ignored
            target.asarray(kv),
            heads=heads,
            d_k=d_k,
            slots=target.asarray(slots),
            lengths=target.asarray(key_lengths),
        )
    np.testing.assert_allclose(
        to_host(got).reshape(groups * n, -1), expected, rtol=1e-12, atol=1e-13
    )


def test_none_omits_an_optional_argument():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    check_gradients(lambda x, w: ops.linear(x, w, None), x, w)
    check_gradients(lambda t: ops.embedding(t, None, ids=np.array([0, 2, 2])), x)


def test_negative_ids_embed_as_zero():
    table = np.ones((2, 3))
    ids = np.array([-1, -3, -100, 1])
    y = ops.embedding(table, ids=ids)
    np.testing.assert_array_equal(y, (ids >= 0)[:, None] * np.ones(3))
    check_gradients(lambda t: ops.embedding(t, ids=ids), table)


def test_an_operation_on_constants_returns_an_array():
    y = ops.softmax(np.zeros(4))
    assert isinstance(y, np.ndarray)


def test_an_operation_is_declared_by_its_reference():
    @op
    def double(x):
        """Twice x."""
        return 2 * x, lambda dy: 2 * dy

    assert double.name == double.__name__ == "double"
    assert double.__doc__ == "Twice x."
    check_gradients(double, np.ones(3))


CUT = {  # a function of [-1, 0, 1], and its gradient for an infinite one
    "maximum": (lambda x: ops.maximum(x, np.zeros(3)), [0, np.inf, np.inf]),
    "minimum": (lambda x: ops.minimum(x, np.zeros(3)), [np.inf, np.inf, 0]),
    "maximum, as y": (lambda x: ops.maximum(np.zeros(3), x), [0, np.inf, np.inf]),
    "clip": (lambda x: ops.clip(x, min=-0.5, max=0.5), [0, np.inf, 0]),
    "relu": (ops.relu, [0, 0, np.inf]),
    "abs": (ops.abs, [-np.inf, 0, np.inf]),
    "linear": (lambda x: ops.linear(x[:, None], [[1.0]], relu=True), [0, 0, np.inf]),
    "max": (lambda x: ops.max(x, axis=0), [0, 0, np.inf]),
    "min": (lambda x: ops.min(x, axis=0), [np.inf, 0, 0]),
}


@pytest.mark.parametrize("name", CUT)
def test_elements_that_are_not_chosen_get_no_part_of_an_infinite_gradient(name):
    f, expected = CUT[name]
    x = Tensor([-1.0, 0.0, 1.0])
    with Tape() as tape:
        y = f(x)
    (dx,) = tape.backward(y, np.full(y.shape, np.inf), wanted=[x])
    np.testing.assert_array_equal(dx, expected)


def test_the_largest_of_numbers_is_nan_if_one_of_them_is():
    x = Tensor([1.0, np.nan, 2.0])
    for reduce in (ops.max, ops.min):
        with Tape() as tape:
            y = reduce(x)
        np.testing.assert_array_equal(tape.backward(y, wanted=[x])[0], [0, 1, 0])


@pytest.mark.parametrize("operation", [ops.maximum, ops.minimum])
def test_maximum_and_minimum_choose_the_nan(operation):
    nan = np.nan
    x, y = Tensor([nan, 1.0, nan, 2.0]), Tensor([1.0, nan, nan, 2.0])
    with Tape() as tape:
        z = operation(x, y)
    dx, dy = tape.backward(z, np.full(4, 2.0), wanted=[x, y])
    np.testing.assert_array_equal(z.value, [nan, nan, nan, 2])
    np.testing.assert_array_equal(dx, [2, 0, 1, 1])
    np.testing.assert_array_equal(dy, [0, 2, 1, 1])


def test_clip_leaves_nan():
    x = Tensor([np.nan, 1.0, 3.0])
    with Tape() as tape:
        y = ops.clip(x, min=0, max=2)
    np.testing.assert_array_equal(tape.backward(y, np.ones(3), wanted=[x])[0], [1, 1, 0])


def test_whole_numbers_may_be_clipped_to_fractions():
    np.testing.assert_array_equal(ops.clip(np.array([0, 1]), min=[0.5, 0.5]), [0.5, 1])


def test_overlapping_parts_add_up_their_gradients():
    check_gradients(lambda x: ops.split(x, sections=[3, 1]), np.arange(5.0))
    check_gradients(lambda x: ops.split(x, sections=[-1, 1], axis=1), np.ones((2, 4)))


def test_one_layer_of_attention_connects_every_pair_of_tokens():
    """The maximum path length of table 1 is 1: each output has a gradient for each input."""
    tokens, d = 7, 4
    qkv = np.random.default_rng(0).standard_normal((tokens, 3 * d))
    setting = {"heads": 2, "d_k": 2, "sentences": Sentences([tokens])}
    for output in range(tokens):
        _, vjp = ops.attention.reference(qkv, **setting)
        dy = np.zeros((tokens, d))
        dy[output] = 1
        assert (vjp(dy)[:, d:] != 0).any(axis=1).all()  # of its keys and values
