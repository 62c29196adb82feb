"""Adam: algorithm 1 of Kingma and Ba, over flat arrays."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from autograd import ParameterBuffer, Tape, to_host, using
from train.adam import Adam
from train.schedule import Schedule

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(array_shapes(max_dims=2, max_side=5), min_size=1, max_size=3)


def buffer_of(values: list[np.ndarray], dtype: Any = np.float64) -> ParameterBuffer:
    return ParameterBuffer({f"p{i}": v for i, v in enumerate(values)}, dtype)


def set_gradients(buffer: ParameterBuffer, gradients: list[np.ndarray]) -> None:
    for parameter, gradient in zip(buffer.parameters.values(), gradients, strict=True):
        assert parameter.grad is not None
        parameter.grad[...] = gradient


@given(
    shapes,
    seeds,
    st.sampled_from([(0.9, 0.98, 1e-9), (0.9, 0.999, 1e-8), (0.0, 0.5, 1e-3)]),
)
@settings(max_examples=6)
def test_fifty_steps_match_pytorch(
    sizes: list[tuple[int, ...]], seed: int, betas: tuple[float, float, float]
) -> None:
    torch = pytest.importorskip("torch", reason="Adam is compared with PyTorch's")
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(s) for s in sizes]
    buffer = buffer_of(values)
    beta1, beta2, epsilon = betas
    ours = Adam(buffer, beta1, beta2, epsilon)
    rate = Schedule("paper", warmup=10, d_model=16)

    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in values]
    optimizer = torch.optim.Adam(theirs, lr=1.0, betas=(beta1, beta2), eps=epsilon)
    # LambdaLR counts from 0, the paper from 1.
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: rate(k + 1))

    for step in range(1, 51):
        # Sparse and tiny gradients: there epsilon and the bias corrections matter.
        gradients = [
            rng.standard_normal(s) * 10.0 ** rng.integers(-9, 2) * (rng.random(s) < 0.7)
            for s in sizes
        ]
        set_gradients(buffer, gradients)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        assert schedule.get_last_lr()[0] == pytest.approx(rate(step), rel=1e-14)
        ours.step(rate(step))
        optimizer.step()
        schedule.step()
        for parameter, their in zip(buffer.parameters.values(), theirs, strict=True):
            np.testing.assert_allclose(
                parameter.value, their.detach().numpy(), rtol=1e-12, atol=1e-12
            )


@given(st.floats(1e-3, 1.0), seeds)
def test_the_first_step_is_minus_the_rate_times_the_gradients_sign(rate: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradient = rng.standard_normal(5)
    buffer = buffer_of([np.zeros(5)])
    adam = Adam(buffer)
    set_gradients(buffer, [gradient])
    adam.step(rate)
    np.testing.assert_allclose(buffer.parameters["p0"].value, -rate * np.sign(gradient), rtol=1e-6)


@given(shapes, seeds, st.floats(0.01, 2.0))
def test_scale_multiplies_the_gradients_without_changing_their_array(
    sizes: list[tuple[int, ...]], seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal(s) for s in sizes]
    one, other = buffer_of(values), buffer_of(values)
    scaled, plain = Adam(one), Adam(other)
    for _ in range(3):
        gradients = [rng.standard_normal(s) for s in sizes]
        set_gradients(one, gradients)
        set_gradients(other, [g * scale for g in gradients])
        scaled.step(0.1, scale=scale)
        plain.step(0.1)
        for parameter, gradient in zip(one.parameters.values(), gradients, strict=True):
            np.testing.assert_array_equal(parameter.grad, gradient)
    np.testing.assert_allclose(one.values, other.values, rtol=1e-9, atol=1e-12)


@given(shapes, seeds)
def test_the_gradient_norm_is_over_all_parameters(sizes: list[tuple[int, ...]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradients = [rng.standard_normal(s) for s in sizes]
    buffer = buffer_of(gradients)
    adam = Adam(buffer)
    set_gradients(buffer, gradients)
    expected = np.sqrt(sum(float((g**2).sum()) for g in gradients))
    assert adam.gradient_norm() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_are_flat_have_the_parameters_dtype_and_zero_padding(dtype: Any) -> None:
    buffer = buffer_of([np.ones((3, 3)), np.ones(5)], dtype)
    adam = Adam(buffer)
    for _ in range(3):
        set_gradients(buffer, [np.full((3, 3), 0.5), np.full(5, -2.0)])
        adam.step(0.01)
    assert adam.steps == 3
    for flat in (buffer.values, adam.first, adam.second):
        assert flat.dtype == dtype
        assert flat.shape == buffer.values.shape
        assert np.count_nonzero(flat) == 14
    assert np.isfinite(buffer.values).all()


def test_a_parameter_without_a_gradient_still_moves_by_momentum() -> None:
    # As in the paper's algorithm; a gradient of an earlier step must not count again.
    buffer = buffer_of([np.ones(2), np.ones(2)])
    adam = Adam(buffer)
    first, second = buffer.parameters.values()
    with Tape() as tape:
        loss = (first * second).sum()
    tape.backward(loss)
    adam.step(0.1)
    with Tape() as tape:
        loss = (first * first).sum()
    tape.backward(loss)
    assert not second.grad.any()
    before = second.numpy().copy()
    adam.step(0.1)
    assert (second.numpy() < before).all()


@given(shapes, seeds)
@settings(max_examples=5)
def test_another_array_library_takes_the_same_steps(
    sizes: list[tuple[int, ...]], seed: int
) -> None:
    def run(name: str) -> tuple[np.ndarray, float]:
        rng = np.random.default_rng(seed)
        with using(name) as backend:
            buffer = buffer_of([rng.standard_normal(s) for s in sizes])
            adam = Adam(buffer)
            for _ in range(3):
                set_gradients(buffer, [backend.asarray(rng.standard_normal(s)) for s in sizes])
                adam.step(0.1, scale=0.5)
            return to_host(buffer.values), float(adam.gradient_norm())

    values, norm = run("numpy")
    strict_values, strict_norm = run("strict")
    np.testing.assert_allclose(strict_values, values, rtol=1e-12)
    assert strict_norm == pytest.approx(norm)


def test_an_optimizer_refuses_parameters_that_were_moved_after_it_was_created() -> None:
    buffer = ParameterBuffer({"w": np.ones((2, 3))})
    adam = Adam(buffer)
    buffer.to("numpy")  # no move
    adam.step(0.1)
    buffer.to("strict")
    for use in (adam.gradient_norm, lambda: adam.step(0.1)):
        with pytest.raises(RuntimeError, match="moved to another backend or precision"):
            use()


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_continues_as_the_original_would(copy_of):
    buffer = ParameterBuffer({"a": np.ones((3, 4)), "b": np.zeros(5)})
    optimizer = Adam(buffer)
    rng = np.random.default_rng(0)

    def step(adam, gradient):
        adam.grads[...] = gradient
        adam.step(0.1)

    gradients = rng.standard_normal((6, buffer.values.size))
    for gradient in gradients[:3]:
        step(optimizer, gradient)
    other_buffer, other = copy_of((buffer, optimizer))
    assert other.buffer is other_buffer
    assert other.grads is other_buffer.grads
    before = buffer.values.copy()
    for gradient in gradients[3:]:
        step(other, gradient)
    np.testing.assert_array_equal(buffer.values, before)
    assert optimizer.steps == 3
    for gradient in gradients[3:]:
        step(optimizer, gradient)
    np.testing.assert_array_equal(buffer.values, other_buffer.values)
    with pytest.raises(TypeError, match=r"copy\.deepcopy"):
        copy.copy(optimizer)
