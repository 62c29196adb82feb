"""The layers of Table 1: what they compute, their gradients, and the chains that they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import Sentences, Tape, Tensor, check_gradients, ops
from tests.autograd.cases import CASES
from tests.autograd.drawing import seeds
from tests.autograd.sequence_cases import lengths, widths


def recurrent_arrays(sentences, d_in, d, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (sentences.rows, d_in), (d_in, d), (d, d), (d,)
    return [0.5 * rng.standard_normal(shape) for shape in shapes]


@given(lengths, widths, widths, seeds)
@settings(max_examples=40)
def test_a_recurrence_is_its_formula_and_so_is_its_gradient(lengths, d_in, d, seed):
    sentences = Sentences(lengths)
    x, w, u, b = recurrent_arrays(sentences, d_in, d, seed)
    expected = np.zeros((len(x), d))
    for start, end in zip(sentences.offsets[:-1], sentences.offsets[1:], strict=True):
        h = np.zeros(d)
        for t in range(start, end):
            expected[t] = h = np.tanh(x[t] @ w + h @ u + b)
    got = ops.recurrence(*map(Tensor, (x, w, u, b)), sentences=sentences)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    check_gradients(lambda *t: ops.recurrence(*t, sentences=sentences), x, w, u, b)


def test_a_recurrence_is_a_chain_of_all_positions():
    def chain(lengths):
        sentences = Sentences(lengths)
        tensors = map(Tensor, recurrent_arrays(sentences, 2, 3))
        with Tape() as tape:
            ops.recurrence(*tensors, sentences=sentences)
        return tape.longest_chain()

    assert chain([20]) - chain([10]) == 10
    assert chain([20, 7, 20]) == chain([20, 5]) == chain([20]) + 2  # and rows in their order


@given(CASES[ops.convolution])
@settings(max_examples=40)
def test_a_convolution_is_its_formula(case):
    x, weight, bias = case.arrays
    sentences, dilation = case.settings["sentences"], case.settings["dilation"]
    k = len(weight)
    expected = np.zeros((len(x), weight.shape[2])) + bias
    for start, end in zip(sentences.offsets[:-1], sentences.offsets[1:], strict=True):
        for t in range(start, end):
            for j in range(k):
                neighbour = t + (j - k // 2) * dilation
                if start <= neighbour < end:
                    expected[t] += x[neighbour] @ weight[j]
    np.testing.assert_allclose(case.run(*case.arrays), expected, atol=1e-12)


@given(CASES[ops.depthwise_convolution], st.integers(1, 4), seeds)
@settings(max_examples=40)
def test_a_separable_convolution_is_one_with_a_product_as_its_weight(case, d_out, seed):
    x, depthwise = case.arrays
    rng = np.random.default_rng(seed)
    pointwise, bias = rng.standard_normal((x.shape[1], d_out)), rng.standard_normal(d_out)

    def separable(*tensors):
        return ops.separable_convolution(*tensors, **case.settings)

    whole = ops.convolution(x, depthwise[:, :, None] * pointwise, bias, **case.settings)
    arrays = x, depthwise, pointwise, bias
    np.testing.assert_allclose(separable(*map(Tensor, arrays)).numpy(), whole, atol=1e-12)
    check_gradients(separable, *arrays)


def test_wrong_arguments_are_named():
    x, sentences = np.ones((3, 2)), Sentences([3])
    with pytest.raises(ValueError, match=r"weight must be \[k, d_in, d_out\], got shape \(2, 2\)"):
        ops.convolution(x, np.ones((2, 2)), np.ones(2), sentences=sentences)
    with pytest.raises(ValueError, match="x has 2 columns, and weight is for 4"):
        ops.convolution(x, np.ones((3, 4, 2)), np.ones(2), sentences=sentences)
    with pytest.raises(ValueError, match="bias must have shape"):
        ops.convolution(x, np.ones((3, 2, 2)), np.ones(3), sentences=sentences)
    with pytest.raises(ValueError, match="must have 3 rows in all, got 2"):
        ops.depthwise_convolution(x, np.ones((3, 2)), sentences=Sentences([2]))
    with pytest.raises(ValueError, match="dilation must be 1 or more, got 0"):
        ops.depthwise_convolution(x, np.ones((3, 2)), sentences=sentences, dilation=0)
    with pytest.raises(ValueError, match=r"x \(4, 2\) and weight \(2, 2\) do not match"):
        ops.recurrent_step(x, np.ones((4, 2)), np.ones((2, 2)))
