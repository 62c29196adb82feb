"""Random models and batches, and the comparison of whole models' gradients."""

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from autograd import DropoutStream, to_host
from npformer import Batch, Packed, Transformer, TransformerConfig
from train.adam import Adam
from train.step import train_step

BEGIN, END = 1, 2
TINY: dict[str, Any] = {
    "vocab_size": 11,
    "layers": 1,
    "d_model": 8,
    "d_ff": 12,
    "heads": 2,
    "max_length": 16,
}

rates = st.sampled_from([0.0, 0.3])


@st.composite
def configs(draw: st.DrawFn, **fixed: Any) -> TransformerConfig:
    """A tiny model with random options."""
    share = draw(st.sampled_from(["all", "target", "none"]))
    options: dict[str, Any] = {
        **TINY,
        "norm": draw(st.sampled_from(["post", "pre"])),
        "positions": draw(st.sampled_from(["interleaved", "concatenated", "learned"])),
        "position_spacing": draw(st.sampled_from(["d/2", "d/2-1"])),
        "first_position": draw(st.sampled_from([0, 2])),
        "share_embeddings": share,
        "source_vocab_size": None if share == "all" else draw(st.sampled_from([None, 7])),
        "smoothing": draw(st.sampled_from([0.0, 0.1])),
        "smoothing_over": draw(st.sampled_from(["vocabulary", "others"])),
        "decoder_start": draw(st.sampled_from(["token", "zero"])),
        "decoder_layers": draw(st.sampled_from([None, 2])),
        "activation": draw(st.sampled_from(["relu", "gelu", "swish"])),
        "scale_embeddings": draw(st.booleans()),
        "output_bias": draw(st.booleans()),
        "d_k": draw(st.sampled_from([None, 3])),
        "d_v": draw(st.sampled_from([None, 5])),
        "dropout": draw(rates),
        "attention_dropout": draw(rates),
        "ffn_dropout": draw(rates),
        "attention_window": draw(st.sampled_from([None, None, 1, 2, 3])),
        "initialisation": draw(st.sampled_from(["separate", "fused"])),
    }
    return TransformerConfig(**{**options, **fixed})


lengths = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4
)  # lengths of source and target, without begin and end tokens
seeds = st.integers(0, 2**32 - 1)


def random_batch(config: TransformerConfig, sizes: list[tuple[int, int]], seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    source_vocab = config.source_vocab_size or config.vocab_size
    return Batch.of(
        [rng.integers(3, source_vocab, n).tolist() for n, _ in sizes],
        [rng.integers(3, config.vocab_size, m).tolist() for _, m in sizes],
        begin_id=BEGIN,
        end_id=END,
    )


def part(batch: Batch, i: int, j: int) -> Batch:
    """Pairs i to j - 1 of a batch."""
    return Batch(
        *(
            Packed.of(list(side)[i:j])
            for side in (batch.source, batch.target_input, batch.target_output)
        )
    )


def lively(model: Transformer, seed: int = 0) -> Transformer:
    """The model with noise in every parameter, so that no bias is 0 and no gain is 1."""
    rng = np.random.default_rng(seed)
    for parameter in model.parameters().values():
        noise = 0.2 * rng.standard_normal(parameter.shape)
        parameter.assign(parameter.numpy() + noise)
    return model


def gradients(
    model: Transformer, batches: list[Batch], dropout: DropoutStream | None = None
) -> dict[str, np.ndarray]:
    """The gradients of one training step with learning rate 0, which does not change the model."""
    train_step(model, Adam(model.buffer), batches, rate=0.0, dropout=dropout)
    return {name: to_host(p.grad).copy() for name, p in model.parameters().items()}


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], within: float):
    assert found.keys() == expected.keys()
    size = math.sqrt(sum(float((g**2).sum()) for g in expected.values()))
    for name in expected:
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=within * size, err_msg=name
        )
