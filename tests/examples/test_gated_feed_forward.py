"""A feed-forward network with a gate."""

from __future__ import annotations

import numpy as np

from autograd import DropoutStream, Tensor, check_gradients
from examples.gated_feed_forward import GatedFeedForward, swiglu
from npformer import Parts, Transformer
from npformer.parameters import Scope
from tests.examples.small import small_config


def test_the_gate_is_the_formula_of_the_paper() -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 5, 3))
    got = swiglu(np.hstack([a, b]))
    np.testing.assert_allclose(got, a / (1 + np.exp(-a)) * b, rtol=1e-12)


def test_the_gradient_of_the_gate_is_right() -> None:
    check_gradients(swiglu, np.random.default_rng(0).standard_normal((4, 6)))


def test_a_gate_may_be_far_open_or_shut() -> None:
    x = np.array([[1e4, -1e4, 2.0, 3.0]], np.float32)
    np.testing.assert_array_equal(swiglu(x), [[2e4, 0]])


def test_the_gradient_of_the_network_is_right() -> None:
    scope = Scope()
    network = GatedFeedForward(scope, small_config())
    scope.allocate(seed=0, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((3, 8))
    check_gradients(lambda x, *_: network(x), x, *scope.parameters.values())


def test_dropout_happens_inside() -> None:
    scope = Scope()
    network = GatedFeedForward(scope, small_config(ffn_dropout=0.5))
    scope.allocate(seed=0)
    x = Tensor(np.ones((3, 8), np.float32))
    assert not np.array_equal(network(x, DropoutStream(0, 1)).value, network(x).value)


def test_it_has_about_as_many_parameters_as_the_papers() -> None:
    sizes = [
        Transformer(small_config(d_model=64, d_ff=256), parts=parts, allocate=False)
        for parts in (Parts(), Parts(feed_forward=GatedFeedForward))
    ]
    papers, gated = (sum(p.size for p in model.parameters().values()) for model in sizes)
    assert abs(papers - gated) < 0.01 * papers
