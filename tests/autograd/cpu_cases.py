"""Random float32 cases for compiled loops, and the comparison with their references."""

import numpy as np
from hypothesis import strategies as st

from autograd import Sentences, Tape, ops
from autograd.cpu import loops
from tests.autograd.contract import check_contract
from tests.autograd.drawing import Case, normal32, seeds, sites

rows = st.integers(0, 3 * loops.ROWS)  # up to several blocks of rows
widths = st.integers(1, 70)  # multiples of a vector register, and others
normed_widths = st.integers(3, 70)  # one number has no variance, two may have very little


@st.composite
def dropouts(draw):
    rng = np.random.default_rng(draw(seeds))
    return Case(ops.dropout, (normal32(rng, draw(rows), draw(widths)),), {"site": draw(sites)})


@st.composite
def layer_norms(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(normed_widths)
    return Case(
        ops.layer_norm,
        (normal32(rng, n, d), normal32(rng, d), normal32(rng, d)),
        {"epsilon": draw(st.sampled_from([1e-6, 1e-2]))},
    )


@st.composite
def residual_norms(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(normed_widths)
    arrays = normal32(rng, n, d), normal32(rng, n, d), normal32(rng, d), normal32(rng, d)
    return Case(ops.add_dropout_norm, arrays, {"site": draw(sites), "epsilon": 1e-2})


@st.composite
def affine_maps(draw):
    rng, n = np.random.default_rng(draw(seeds)), draw(rows)
    d_in, d_out = draw(widths), draw(widths)
    arrays = normal32(rng, n, d_in), normal32(rng, d_in, d_out), normal32(rng, d_out)
    with_bias = draw(st.booleans())
    return Case(ops.linear, arrays if with_bias else arrays[:2], {"relu": draw(st.booleans())})


@st.composite
def feed_forwards(draw):
    rng, n = np.random.default_rng(draw(seeds)), draw(rows)
    d, d_ff = draw(widths), draw(widths)
    arrays = normal32(rng, n, d), normal32(rng, d, d_ff), normal32(rng, d_ff)
    arrays += normal32(rng, d_ff, d), normal32(rng, d)
    activation = draw(st.sampled_from(["relu", "gelu", "swish"]))
    settings = {"activation": activation, "site": draw(sites)}
    return Case(ops.feed_forward, arrays if draw(st.booleans()) else arrays[:4], settings)


def activated(op):
    """Cases of an activation: numbers of the usual sizes, and some far from 0."""

    @st.composite
    def cases(draw):
        rng = np.random.default_rng(draw(seeds))
        x = normal32(rng, draw(rows), draw(widths))
        return Case(op, (x * np.float32(draw(st.sampled_from([1e-3, 1.0, 30.0]))),), {})

    return cases()


@st.composite
def embeddings(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(widths)
    vocabulary, length = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    arrays = (normal32(rng, vocabulary, d),)
    some_kind = draw(st.sampled_from([np.int64, np.int32]))
    chosen = {
        "ids": rng.integers(draw(st.sampled_from([-1, 0])), vocabulary, n, some_kind),
        "scale": draw(st.sampled_from([1.0, 3.0])),
        "site": draw(sites),
    }
    if draw(st.booleans()):
        arrays += (normal32(rng, length, d),)
        chosen["position_ids"] = rng.integers(0, length, n, some_kind)
    return Case(ops.embedding, arrays, chosen)


@st.composite
def attentions(draw):
    rng = np.random.default_rng(draw(seeds))
    heads, d_k, d_v = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    lengths = np.array(draw(st.lists(st.integers(0, 40) | st.just(100), max_size=5)), np.int64)
    chosen = {"heads": heads, "d_k": d_k, "sentences": Sentences(lengths)}
    chosen |= {"causal": draw(st.booleans()), "site": draw(sites)}
    if draw(st.booleans()):
        chosen["window"] = draw(st.none() | st.integers(1, 50))
        arrays = (normal32(rng, lengths.sum(), heads * (2 * d_k + d_v)),)
    else:
        chosen["key_sentences"] = Sentences(rng.integers(0, 40, len(lengths)))
        keys = chosen["key_sentences"].rows
        arrays = normal32(rng, lengths.sum(), heads * d_k), normal32(rng, keys, heads * (d_k + d_v))
    return Case(ops.attention, arrays, chosen)


@st.composite
def cross_entropies(draw):
    rng, n, d = np.random.default_rng(draw(seeds)), draw(rows), draw(widths)
    vocabulary = draw(st.integers(2, 200))
    chosen = {
        "targets": rng.integers(draw(st.sampled_from([-1, 0])), vocabulary, n),
        "smoothing": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "smoothing_over": draw(st.sampled_from(["vocabulary", "others"])),
    }
    return Case(
        ops.projected_cross_entropy, (normal32(rng, n, d), normal32(rng, vocabulary, d)), chosen
    )


FAST = {
    ops.dropout: dropouts(),
    ops.layer_norm: layer_norms(),
    ops.add_dropout_norm: residual_norms(),
    ops.linear: affine_maps(),
    ops.feed_forward: feed_forwards(),
    ops.swish: activated(ops.swish),
    ops.gelu: activated(ops.gelu),
    ops.embedding: embeddings(),
    ops.attention: attentions(),
    ops.projected_cross_entropy: cross_entropies(),
}


def fast(op):
    """The implementation that runs for float32."""
    return op.implementation(np.zeros(1, np.float32))


def results(operation, implementation, arrays, chosen):
    with Tape():  # without a tape, implementations prepare no gradient
        outputs, gradients = check_contract(
            implementation, *arrays, auxiliary=operation.auxiliary, **chosen
        )
    return outputs + gradients


def assert_as_exact(got, reference, truth):
    """Within 1e-5 of the norm, or as close to the float64 result as the float32 reference is."""
    for x, r, t in zip(got, reference, truth, strict=True):
        assert x.shape == r.shape
        error, size = np.linalg.norm(x - t), np.linalg.norm(t)
        assert error <= 1e-5 * size + 4 * np.linalg.norm(r - t) + 1e-6


def compare(case):
    wide = tuple(x.astype(np.float64) for x in case.arrays)
    assert_as_exact(
        results(case.op, fast(case.op), case.arrays, case.settings),
        results(case.op, case.op.reference, case.arrays, case.settings),
        results(case.op, case.op.reference, wide, case.settings),
    )
