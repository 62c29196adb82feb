"""The memory of a pass: each layer holds only what its gradient needs, and only once."""

import gc
import tracemalloc
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest

from autograd import DropoutStream, Sentences, Tape, Tensor, references
from npformer import Transformer, TransformerConfig

LENGTHS = np.array([24, 40] * 16)
SENTENCES = Sentences(LENGTHS)
LAYERS, D_MODEL, D_FF, HEADS = 6, 64, 512, 4


class Bytes(NamedTuple):
    """Sizes in float32: an activation [tokens, d_model], and one [tokens, d_ff]."""

    matrix: int = 4 * int(LENGTHS.sum()) * D_MODEL
    hidden: int = 4 * int(LENGTHS.sum()) * D_FF

    def weights(self, lengths: np.ndarray) -> int:
        """Every head's attention weights."""
        return 4 * HEADS * int((lengths**2).sum())


def peak_of_an_encoder(dropout: float, attention_dropout: float) -> int:
    """The peak memory of six encoder layers in bytes, beyond parameters and input."""
    config = TransformerConfig(
        vocab_size=8,
        layers=LAYERS,
        d_model=D_MODEL,
        d_ff=D_FF,
        heads=HEADS,
        dropout=dropout,
        attention_dropout=attention_dropout,
    )
    model = Transformer(config, seed=0)
    model.buffer.allocate_gradients()
    values = np.random.default_rng(0).standard_normal((LENGTHS.sum(), D_MODEL))
    x = Tensor(values.astype(np.float32))

    def step() -> None:
        with Tape() as tape:
            loss = model.encoder(x, SENTENCES, DropoutStream(seed=0, step=0)).sum()
        tape.backward(loss)

    step()  # imports, caches and compiled loops
    tracemalloc.start()
    try:
        step()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def _no_garbage_collector() -> Iterator[None]:
    """Switch off the garbage collector, so that only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_references_hold_each_needed_activation_once(dropout: float) -> None:
    size = Bytes()
    mask = size.matrix if dropout else 0
    # Attention: Q, K and V, the weights, and the input of the output projection.
    attention = 4 * size.matrix + size.weights(LENGTHS)
    # Around each sub-layer: LayerNorm's result before and after the gain, and the mask.
    around = 2 * size.matrix + mask
    # No gradient needs the result of the last layer.
    held = LAYERS * (attention + around + size.hidden + around) - size.matrix
    # The peak adds the gradient of the last hidden activations, ReLU's mask, and the gradient of
    # the residual connection. By then the last LayerNorm's activations are freed.
    worked_on = size.hidden + size.hidden // 4 + size.matrix - (size.matrix + mask)
    with references():
        assert peak_of_an_encoder(dropout, 0.0) == pytest.approx(held + worked_on, rel=0.02)


@pytest.mark.usefixtures("_no_garbage_collector")
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_compiled_loops_hold_no_mask_and_no_normalised_rows(rate: float) -> None:
    pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
    from autograd.cpu import pool
    from autograd.cpu.products import DEPTH, WIDTH

    size = Bytes()
    padded = (LENGTHS + 15) // 16 * 16
    attention = 4 * size.matrix + size.weights(padded)
    # Around each sub-layer: its result, LayerNorm's result, which is the input of the next one, and
    # the mean and the scale of each row.
    around = 2 * size.matrix + 2 * size.matrix // D_MODEL
    held = LAYERS * (attention + around + size.hidden + around) - size.matrix
    # The peak adds the gradients of the last hidden activations, of their input, and of the
    # residual connection. By then the last LayerNorm and its input are freed.
    worked_on = size.hidden + 2 * size.matrix - size.matrix
    # A product packs blocks of DEPTH terms on each thread, and sums a gradient in parts.
    panels = 4 * DEPTH * (D_FF + 2 * WIDTH) * pool.threads()
    parts = 4 * D_MODEL * D_FF * int(LENGTHS.sum()) // DEPTH
    peak = peak_of_an_encoder(rate, rate)
    assert 0.98 * (held + worked_on) < peak < 1.01 * (held + worked_on + panels + parts)
