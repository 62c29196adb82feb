"""Initial values of parameters."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given

from npformer import TransformerConfig
from tests.npformer.initial import initial_values
from tests.npformer.models import configs, seeds


def glorot(d_in: int, d_out: int) -> float:
    return math.sqrt(6 / (d_in + d_out))


@pytest.mark.parametrize("d_v", [16, 48])
def test_projections_are_glorot_uniform_each_for_its_own_shape(d_v: int) -> None:
    d, h, d_k, d_ff = 64, 4, 16, 128
    config = TransformerConfig(
        vocab_size=9, layers=1, d_model=d, heads=h, d_k=d_k, d_v=d_v, d_ff=d_ff
    )
    values = initial_values(config, seed=0)
    qkv = values["decoder.0.self_attention.qkv.weight"]
    kv = values["decoder.0.cross_attention.kv.weight"]
    k, v = h * d_k, h * d_v
    blocks = [
        (qkv[:, :k], glorot(d, k)),
        (qkv[:, k : 2 * k], glorot(d, k)),
        (qkv[:, 2 * k :], glorot(d, v)),
        (kv[:, :k], glorot(d, k)),
        (kv[:, k:], glorot(d, v)),
        (values["decoder.0.cross_attention.q.weight"], glorot(d, k)),
        (values["encoder.0.self_attention.output.weight"], glorot(v, d)),
        (values["encoder.0.feed_forward.inner.weight"], glorot(d, d_ff)),
        (values["encoder.0.feed_forward.outer.weight"], glorot(d_ff, d)),
    ]
    for block, bound in blocks:
        assert 0.99 * bound < np.abs(block).max() <= bound * (1 + 1e-6)
        assert block.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert abs(block.mean()) < 0.05 * bound


def test_fused_projections_have_a_smaller_gain() -> None:
    config = TransformerConfig(
        vocab_size=9, layers=1, d_model=64, heads=4, d_ff=128, initialisation="fused"
    )
    values = initial_values(config, seed=0)
    for name, bound in {
        "encoder.0.self_attention.qkv": glorot(64, 192) * math.sqrt(0.5),
        "decoder.0.cross_attention.kv": glorot(64, 128) * math.sqrt(0.5),
        "decoder.0.cross_attention.q": glorot(64, 64),
        "encoder.0.feed_forward.inner": glorot(64, 128),
    }.items():
        weight = values[f"{name}.weight"]
        assert 0.99 * bound < np.abs(weight).max() <= bound * (1 + 1e-6), name
        assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.03), name


def test_embeddings_are_normal_biases_zero_and_gains_one() -> None:
    config = TransformerConfig(
        vocab_size=500,
        layers=1,
        d_model=64,
        heads=4,
        d_ff=16,
        norm="pre",
        share_embeddings="none",
        positions="learned",
        max_length=300,
    )
    values = initial_values(config, seed=0)
    tables = {
        "embedding",
        "source_embedding",
        "projection",
        "source_positions",
        "target_positions",
    }
    for name, value in values.items():
        assert value.dtype == np.float32
        if name in tables:
            assert value.std() == pytest.approx(1 / math.sqrt(64), rel=0.03), name
            assert abs(value.mean()) < 0.005, name
        elif name.endswith(".gain"):
            assert (value == 1).all(), name
        elif name.endswith(".bias"):
            assert (value == 0).all(), name
        else:
            assert name.endswith(".weight")
    random = [v for n, v in values.items() if n in tables or n.endswith(".weight")]
    assert len({v.tobytes()[:64] for v in random}) == len(random)  # no two are equal


@given(configs(), configs(), seeds)
def test_an_initial_value_depends_only_on_the_seed_its_name_and_its_shape(
    one: TransformerConfig, other: TransformerConfig, seed: int
) -> None:
    first = initial_values(one, seed)
    second = initial_values(dataclasses.replace(other, layers=2), seed)
    third = initial_values(one, seed + 1)
    shapes = ("d_k", "d_v", "initialisation", "source_vocab_size")
    for name in first.keys() & second.keys():
        if all(getattr(one, f) == getattr(other, f) for f in shapes):
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        if name.endswith((".weight", "embedding")):
            assert (first[name] != third[name]).any(), name
