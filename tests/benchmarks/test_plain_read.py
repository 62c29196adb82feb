"""What one sentence at a time is held to: a read of the weights that each of its steps reads."""

from __future__ import annotations

import pytest

from benchmarks.plain_read import bytes_of_a_step, read_side
from npformer import Transformer, TransformerConfig

SIZES = {"vocab_size": 100, "d_model": 16, "d_ff": 24, "heads": 2, "d_k": 8, "d_v": 8}
# Self-attention, cross-attention without its keys and values, and the feed-forward network; their
# biases, and three norms.
MATRICES = 16 * (48 + 16) + 16 * (16 + 16) + 2 * 16 * 24
VECTORS = (48 + 16) + (16 + 16) + (24 + 16) + 3 * 2 * 16


@pytest.mark.parametrize("shared", ["all", "target", "none"])
def test_a_step_reads_the_decoder_and_the_projection(shared: str) -> None:
    config = TransformerConfig(**SIZES, layers=2, share_embeddings=shared)
    size = bytes_of_a_step(Transformer(config, seed=0))
    assert size == 4 * (2 * (MATRICES + VECTORS) + 100 * 16)


def test_in_8_bits_it_reads_about_a_quarter() -> None:
    sizes = {**SIZES, "d_model": 256, "vocab_size": 1024}
    model = Transformer(TransformerConfig(**sizes, layers=2), seed=0)
    whole = bytes_of_a_step(model)
    assert 0.25 < bytes_of_a_step(model.quantize()) / whole < 0.3


@pytest.mark.parametrize("size", [1, 1024, 1_000_000])
def test_all_of_it_is_read(size: int) -> None:
    pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
    read_side(lambda: None, size, 2)()  # it adds ones up, and counts them
