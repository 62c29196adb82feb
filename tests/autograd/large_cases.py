"""Random cases of the large operations that the model is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from autograd import DropoutSite, Sentences, ops
from tests.autograd.drawing import Case, normal, seeds, sides, sites, spread_rows, tokens


@st.composite
def dropouts(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    columns = draw(st.integers(1, 20))
    return Case(ops.dropout, (normal(rng, draw(tokens), columns),), {"site": draw(sites)})


@st.composite
def layer_norms(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    d = draw(st.integers(1, 6))
    arrays = spread_rows(rng, draw(tokens), d), normal(rng, d), normal(rng, d)
    return Case(ops.layer_norm, arrays, {"epsilon": draw(st.sampled_from([1e-6, 1e-2]))})


@st.composite
def residual_norms(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d = draw(tokens), draw(st.integers(1, 6))
    site = draw(sites)
    x, residual = normal(rng, n, d), normal(rng, n, d)
    if site is None or d < 3:  # random sums may come close to each other; spread them
        residual = spread_rows(rng, n, d) - x * _factor(site, n, d)
    arrays = x, residual, normal(rng, d), normal(rng, d)
    return Case(ops.add_dropout_norm, arrays, {"site": site, "epsilon": 1e-2})


def _factor(site: DropoutSite | None, rows: int, columns: int) -> Any:
    """The factors of dropout at `site` for the elements of a matrix."""
    return 1.0 if site is None else site.keep_matrix(np, rows, columns) * site.scale


@st.composite
def affine_maps(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d_in, d_out = draw(tokens), draw(sides), draw(sides)
    relu, with_bias = draw(st.booleans()), draw(st.booleans())
    while True:
        arrays = normal(rng, n, d_in), normal(rng, d_in, d_out), normal(rng, d_out)
        x, weight, bias = arrays
        if np.all(abs(x @ weight + with_bias * bias) > 1e-2):  # away from ReLU's kink
            return Case(ops.linear, arrays if with_bias else arrays[:2], {"relu": relu})


@st.composite
def feed_forwards(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d, d_ff, d_out = draw(tokens), draw(sides), draw(sides), draw(sides)
    activation = draw(st.sampled_from(["relu", "gelu", "swish"]))
    with_bias, site = draw(st.booleans()), draw(sites)
    while True:
        arrays = normal(rng, n, d), normal(rng, d, d_ff), normal(rng, d_ff)
        x, w1, b1 = arrays
        if activation != "relu" or np.all(abs(x @ w1 + b1) > 1e-2):  # away from ReLU's kink
            break
    arrays += normal(rng, d_ff, d_out), normal(rng, d_out)
    settings = {"activation": activation, "site": site}
    return Case(ops.feed_forward, arrays if with_bias else arrays[:4], settings)


@st.composite
def embeddings(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d, vocabulary, length = draw(tokens), draw(sides), draw(sides), draw(sides)
    settings = {
        "ids": rng.integers(draw(st.sampled_from([-1, 0])), vocabulary, n),
        "scale": draw(st.sampled_from([1.0, 3.0])),
        "site": draw(sites),
    }
    arrays: tuple[np.ndarray, ...] = (normal(rng, vocabulary, d),)
    if draw(st.booleans()):
        arrays += (normal(rng, length, d),)
        settings["position_ids"] = rng.integers(0, length, n)
    return Case(ops.embedding, arrays, settings)


@st.composite
def scaled_dot_products(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    stack = draw(st.sampled_from([(), (2,), (2, 3)]))
    n, m, d_k, d_v = (draw(st.integers(1, 4)) for _ in range(4))
    settings: dict[str, Any] = {}
    if draw(st.booleans()):  # sometimes a whole row
        settings["hidden"] = rng.random((n, m)) < draw(st.sampled_from([0.3, 0.8]))
    if draw(st.booleans()):
        settings |= {"keep": rng.random((*stack, n, m)) < 0.5, "scale": 2.0}
    arrays = normal(rng, *stack, n, d_k), normal(rng, *stack, m, d_k), normal(rng, *stack, m, d_v)
    return Case(ops.scaled_dot_product, arrays, settings)


@st.composite
def attentions(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    heads, d_k, d_v = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lengths = np.array(draw(st.lists(st.integers(0, 6), max_size=4)), np.int64)
    settings: dict[str, Any] = {
        "heads": heads,
        "d_k": d_k,
        "sentences": Sentences(lengths),
        "causal": draw(st.booleans()),
        "site": draw(sites),
    }
    if draw(st.booleans()):
        settings["window"] = draw(st.none() | st.integers(1, 6))
        arrays: tuple[np.ndarray, ...] = (normal(rng, lengths.sum(), heads * (2 * d_k + d_v)),)
    else:
        keys = settings["key_sentences"] = Sentences(rng.integers(0, 5, len(lengths)))
        q = normal(rng, lengths.sum(), heads * d_k)
        arrays = (q, normal(rng, keys.rows, heads * (d_k + d_v)))
    return Case(ops.attention, arrays, settings)


@st.composite
def cross_entropies(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d, vocabulary = draw(tokens), draw(sides), draw(st.integers(2, 6))
    settings = {
        "targets": rng.integers(draw(st.sampled_from([-1, 0])), vocabulary, n),
        "smoothing": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "smoothing_over": draw(st.sampled_from(["vocabulary", "others"])),
    }
    arrays = normal(rng, n, d), normal(rng, vocabulary, d)
    return Case(ops.projected_cross_entropy, arrays, settings)
