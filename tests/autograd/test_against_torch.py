"""Values and gradients agree with an independent implementation, in float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import DropoutStream, Sentences, ops, references
from tests.autograd.cases import CASES
from tests.autograd.drawing import values_and_gradients

torch = pytest.importorskip("torch", reason="needs PyTorch to compare with: pip install torch")
F = torch.nn.functional


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def torch_values_and_gradients(f, arrays, seed=0):
    rng = np.random.default_rng(seed)
    tensors = [torch.tensor(np.ascontiguousarray(a)).requires_grad_() for a in arrays]
    outputs = f(*tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    weights = [torch.tensor(np.asarray(rng.standard_normal(tuple(y.shape)))) for y in outputs]
    total = sum((y * w).sum() for y, w in zip(outputs, weights, strict=True))
    gradients = torch.autograd.grad(total, tensors, allow_unused=True, materialize_grads=True)
    return [y.detach().numpy() for y in outputs], [g.numpy() for g in gradients]


def assert_same(case, peer):
    with references():
        ours = values_and_gradients(case.run, case.arrays)
    theirs = torch_values_and_gradients(peer, case.arrays)
    for kind, got, expected in zip(("output", "gradient"), ours, theirs, strict=True):
        for i, (x, y) in enumerate(zip(got, expected, strict=True)):
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10, err_msg=f"{kind} {i}")


def reduced(reduce):
    def peer(x, axis=None, keepdims=False):
        axes = tuple(range(x.ndim)) if axis is None else axis
        axes = (axes,) if isinstance(axes, int) else axes
        return reduce(x, axes, keepdims) if axes else x * 1

    return peer


PRIMITIVES = {
    ops.add: torch.add,
    ops.subtract: torch.subtract,
    ops.multiply: torch.multiply,
    ops.divide: torch.divide,
    ops.negative: torch.negative,
    ops.power: lambda x, exponent: x**exponent,
    ops.exp: torch.exp,
    ops.log: torch.log,
    ops.sqrt: torch.sqrt,
    ops.tanh: torch.tanh,
    ops.relu: torch.relu,
    ops.swish: F.silu,
    ops.gelu: lambda x: F.gelu(x, approximate="tanh"),
    ops.softmax: lambda x: F.softmax(x, dim=-1),
    ops.log_softmax: lambda x: F.log_softmax(x, dim=-1),
    ops.sum: reduced(torch.sum),
    ops.mean: reduced(torch.mean),
    ops.max: reduced(torch.amax),
    ops.reshape: lambda x, shape: x.reshape(shape),
    ops.transpose: lambda x, axes: x.permute(axes or tuple(range(x.ndim))[::-1]),
    ops.concatenate: lambda *parts, axis: torch.cat(parts, axis),
    ops.matmul: torch.matmul,
}


@pytest.mark.parametrize("operation", PRIMITIVES, ids=lambda o: o.name)
@given(data=st.data())
def test_primitives_match_pytorch(operation, data):
    case = data.draw(CASES[operation])
    assert_same(case, lambda *t: PRIMITIVES[operation](*t, **case.settings))


@given(case=CASES[ops.linear])
def test_linear_matches_pytorch(case):
    def peer(x, weight, bias=None):
        y = F.linear(x, weight.T, bias)
        return torch.relu(y) if case.settings["relu"] else y

    assert_same(case, peer)


@given(case=CASES[ops.layer_norm])
def test_layer_norm_matches_pytorch(case):
    epsilon = case.settings["epsilon"]
    assert_same(case, lambda x, gain, bias: F.layer_norm(x, gain.shape, gain, bias, epsilon))


@given(case=CASES[ops.add_dropout_norm])
def test_add_dropout_norm_matches_pytorch(case):
    site, epsilon = case.settings["site"], case.settings["epsilon"]
    factor = 1.0
    if site is not None:
        factor = torch.tensor(site.keep_matrix(np, *case.arrays[0].shape) * site.scale)
    assert_same(
        case,
        lambda x, residual, gain, bias: F.layer_norm(
            residual + x * factor, gain.shape, gain, bias, epsilon
        ),
    )


@given(case=CASES[ops.embedding])
def test_embedding_matches_pytorch(case):
    """A negative id is PyTorch's padding_idx, here of an additional row."""
    ids, position_ids = case.settings["ids"], case.settings.get("position_ids")
    site, scale = case.settings["site"], case.settings["scale"]

    def peer(table, positions=None):
        padded = torch.cat([table, torch.zeros_like(table[:1])])
        unknown = len(table)
        looked_up = F.embedding(torch.tensor(np.where(ids < 0, unknown, ids)), padded, unknown)
        y = looked_up * scale
        if positions is not None:
            y = y + F.embedding(torch.tensor(position_ids), positions)
        if site is not None:
            y = y * torch.tensor(site.keep_matrix(np, *y.shape) * site.scale)
        return y

    assert_same(case, peer)


@given(case=CASES[ops.attention])
def test_packed_attention_matches_pytorch_on_padded_sentences(case):
    """For sentences that have keys, and without dropout, whose masks differ between libraries."""
    settings = {**case.settings, "site": None}
    heads, d_k, lengths = settings["heads"], settings["d_k"], settings["sentences"].lengths
    key_lengths = settings.get("key_sentences", settings["sentences"]).lengths
    case = type(case)(case.op, case.arrays, settings)
    batch, n, m = len(lengths), max(lengths, default=0), max(key_lengths, default=0)

    def pad(x, lengths, longest, width):
        """[tokens, heads · width] as [batch, heads, longest, width]."""
        sentences = torch.split(x, lengths.tolist()) if len(lengths) else []
        padded = [F.pad(s, (0, 0, 0, int(longest) - len(s))) for s in sentences]
        return torch.stack(padded).reshape(batch, longest, heads, width).transpose(1, 2)

    def peer(q, kv=None):
        qk = heads * d_k
        q, kv = (q, kv) if kv is not None else (q[:, :qk], q[:, qk:])
        d_v = (kv.shape[1] - qk) // heads
        if not batch or not n or not m:
            return (q.sum() + kv.sum()) * 0 + torch.zeros(len(q), heads * d_v, dtype=q.dtype)
        Q = pad(q, lengths, n, d_k)
        K, V = pad(kv[:, :qk], key_lengths, m, d_k), pad(kv[:, qk:], key_lengths, m, d_v)
        ahead = np.arange(m) - np.arange(n)[:, None]
        seen = torch.tensor(np.arange(m) < key_lengths[:, None])[:, None, None, :]
        if settings["causal"]:
            seen = seen & torch.tensor(ahead <= 0)
        if (window := settings.get("window")) is not None:
            behind = window - 1 if settings["causal"] else window // 2
            seen = seen & torch.tensor((-behind <= ahead) & (ahead < window - behind))
        alone = torch.tensor(key_lengths == 0)[:, None, None, None]
        y = F.scaled_dot_product_attention(Q, K, V, attn_mask=seen | alone) * ~alone
        y = y.transpose(1, 2).reshape(batch, n, heads * d_v)
        return torch.cat([y[i, :length] for i, length in enumerate(lengths)])

    assert_same(case, peer)


@given(case=CASES[ops.projected_cross_entropy])
def test_projected_cross_entropy_matches_pytorch(case):
    targets, smoothing = torch.tensor(case.settings["targets"]), case.settings["smoothing"]
    case = type(case)(case.op, case.arrays, {**case.settings, "smoothing_over": "vocabulary"})

    def peer(x, weight):
        logits = x @ weight.T
        return (
            F.cross_entropy(
                logits, targets, ignore_index=-1, reduction="sum", label_smoothing=smoothing
            ),
            F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum").detach(),
        )

    assert_same(case, peer)


@given(case=CASES[ops.projected_cross_entropy])
def test_smoothing_over_the_other_tokens_matches_cross_entropy_with_soft_targets(case):
    """tensor2tensor's smoothing: cross-entropy with probabilities 1 - ε and ε / (V - 1)."""
    targets, smoothing = torch.tensor(case.settings["targets"]), case.settings["smoothing"]
    case = type(case)(case.op, case.arrays, {**case.settings, "smoothing_over": "others"})

    def peer(x, weight):
        logits = (x @ weight.T)[targets >= 0]
        there = targets[targets >= 0]
        q = torch.full_like(logits, smoothing / (len(weight) - 1))
        q = q.scatter(1, there[:, None], 1 - smoothing)
        return (
            F.cross_entropy(logits, q, reduction="sum"),
            F.cross_entropy(logits, there, reduction="sum").detach(),
        )

    assert_same(case, peer)


@pytest.mark.parametrize(("beta1", "beta2", "epsilon"), [(0.9, 0.98, 1e-9), (0.9, 0.999, 1e-8)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_fifty_steps_of_adam_match_pytorch(beta1, beta2, epsilon, scale):
    """With the rate of section 5.3, which changes at every step."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal(100)
    values, first, second = start.copy(), np.zeros(100), np.zeros(100)
    peer = torch.tensor(start.copy()).requires_grad_()
    adam = torch.optim.Adam([peer], lr=1.0, betas=(beta1, beta2), eps=epsilon, foreach=False)
    for step in range(1, 51):
        rate = 512**-0.5 * min(step**-0.5, step * 20**-1.5)
        grads = np.sin(values * step) * rng.lognormal(0, 3, 100)
        grads[:10] = 0  # parameters that the loss does not depend on
        peer.grad = torch.tensor(grads * scale)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        before = grads.copy()
        with references():
            ops.adam_step(
                values, grads, first, second,
                rate=rate, beta1=beta1, beta2=beta2, epsilon=epsilon, step=step, scale=scale,
            )  # fmt: skip
        np.testing.assert_array_equal(grads, before)
        np.testing.assert_allclose(values, peer.detach().numpy(), rtol=1e-12, atol=1e-12)
    assert abs(values - start)[10:].min() > 0
    np.testing.assert_array_equal(values[:10], start[:10])


def test_attention_dropout_multiplies_the_weights_by_the_mask():
    """As PyTorch's multi-head attention does it: the weights are dropped after the softmax."""
    rng = np.random.default_rng(0)
    n, heads, d = 4, 2, 3
    packed = rng.standard_normal((n, 3 * heads * d))
    site = DropoutStream(seed=1, step=2).site(3, 0.4)
    columns = np.arange(heads)[:, None, None] * (1 << 20) + np.arange(n)
    keep = torch.tensor(site.keep(np, np.arange(n)[None, :, None], columns) * site.scale)

    def peer(x):
        q, k, v = x.reshape(n, 3, heads, d).permute(1, 2, 0, 3)
        weights = F.softmax(q @ k.transpose(1, 2) / math.sqrt(d), dim=-1) * keep
        return (weights @ v).transpose(0, 1).reshape(n, heads * d)

    arguments = {"heads": heads, "d_k": d, "sentences": Sentences([n]), "site": site}
    with references():
        ours = values_and_gradients(lambda x: ops.attention(x, **arguments), [packed])
    theirs = torch_values_and_gradients(peer, [packed])
    np.testing.assert_allclose(ours[0][0], theirs[0][0], rtol=1e-10)
    np.testing.assert_allclose(ours[1][0], theirs[1][0], rtol=1e-10, atol=1e-12)
