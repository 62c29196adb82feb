"""Parameters are declared where they are used, and named by the part that declares them."""

import copy
from typing import Any

import numpy as np
import pytest

from autograd import Tensor, ops
from npformer import Parts, Transformer, TransformerConfig, UserError
from npformer.layers import Linear, Norm
from npformer.parameters import Dropout, Scope, normal, ones, zeros
from tests.npformer.models import TINY, random_batch


def test_parameters_have_the_declared_names_shapes_and_values() -> None:
    scope = Scope()
    linear = Linear(scope / "decoder" / 0 / "inner", 3, 4)
    gain = scope.parameter("gain", (2,), ones)
    whole = (scope / "table").parameter("", (5, 2), zeros)
    assert list(scope.parameters) == [
        "decoder.0.inner.weight",
        "decoder.0.inner.bias",
        "gain",
        "table",
    ]
    assert [p.shape for p in scope.parameters.values()] == [(3, 4), (4,), (2,), (5, 2)]
    buffer = scope.allocate(seed=0)
    assert buffer.parameters["decoder.0.inner.weight"] is linear.weight
    assert np.shares_memory(linear.weight.value, buffer.values)
    assert np.shares_memory(whole.value, buffer.values)
    np.testing.assert_array_equal(gain.value, [1, 1])


def test_a_value_depends_only_on_the_seed_and_the_name() -> None:
    def values(seed: int, *names: str) -> dict[str, np.ndarray]:
        scope = Scope()
        for name in names:
            scope.parameter(name, (3, 2), normal(0.5))
        scope.allocate(seed)
        return {name: p.numpy() for name, p in scope.parameters.items()}

    one, other, another_seed = values(1, "a", "b"), values(1, "c", "b"), values(2, "a", "b")
    np.testing.assert_array_equal(one["b"], other["b"])
    assert (one["a"] != one["b"]).any()
    assert (one["b"] != another_seed["b"]).any()


def test_a_parameter_has_no_memory_before_it_is_allocated() -> None:
    scope = Scope()
    p = scope.parameter("w", (1 << 20, 1 << 20), zeros)
    assert p.shape == (1 << 20, 1 << 20)
    with pytest.raises(UserError, match=r"4,096.0 GiB|8,192.0 GiB"):
        scope.allocate(seed=0)


def test_duplicate_and_enormous_parameters_are_refused() -> None:
    scope = Scope()
    scope.parameter("w", (2,), zeros)
    with pytest.raises(ValueError, match="two parameters called w"):
        scope.parameter("w", (2,), zeros)
    with pytest.raises(UserError, match=r"no machine has memory for the parameter x \[8388608, "):
        scope.parameter("x", (1 << 23, 1 << 23), zeros)


def test_dropouts_are_distinguished_by_their_names() -> None:
    scope = Scope() / "encoder"
    numbers = {(scope / i).dropout("residual", 0.1).number for i in range(6)}
    assert len(numbers) == 6
    assert Dropout("encoder.0.residual", 0.1).number in numbers
    assert Dropout("encoder.0.residual", 0.1).site(None) is None
    with pytest.raises(ValueError, match=r"encoder\.0\.residual have the same masks"):
        (scope / 0).dropout("residual", 0.1)
    scope = Scope()
    scope.dropout("plumless", 0.1)  # has the same CRC as buckeroo
    with pytest.raises(ValueError, match="plumless and buckeroo have the same masks"):
        scope.dropout("buckeroo", 0.1)


def test_a_buffer_knows_which_parameters_stay_float32() -> None:
    scope = Scope()
    scope.parameter("w", (2,), ones)
    scope.parameter("gain", (2,), ones, float32=True)
    buffer = copy.deepcopy(scope.allocate(seed=0))
    assert buffer._exact == {"gain"}


def test_a_parameter_without_memory_is_nan_and_read_only() -> None:
    p = Scope().parameter("w", (3,), zeros)
    with pytest.raises(ValueError, match="read-only"):
        p.assign(np.ones(3))
    assert np.isnan(p.numpy()).all()


def test_initial_values_of_another_shape_are_refused() -> None:
    scope = Scope()
    scope.parameter("w", (3,), lambda rng, shape: np.zeros(1))
    with pytest.raises(ValueError, match=r"w has shape \(3,\), and its initial values \(1,\)"):
        scope.allocate(seed=0)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_users_norm_replaces_every_norm(norm: Any) -> None:
    class RootMeanSquare(Norm):
        def __call__(self, x: Tensor) -> Tensor:
            return x / ops.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-6) * self.gain

    config = TransformerConfig(**TINY, norm=norm)
    batch = random_batch(config, [(3, 2)])
    own = Transformer(config, parts=Parts(norm=RootMeanSquare)).loss(batch)
    assert float(own) != pytest.approx(float(Transformer(config).loss(batch)), rel=1e-6)
