"""Random cases of the recurrent and convolutional layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from autograd import Sentences, ops
from tests.autograd.drawing import Case, normal, seeds

lengths = st.lists(st.integers(0, 6), max_size=4)
widths = st.integers(1, 4)


@st.composite
def recurrent_steps(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d = draw(st.integers(0, 4)), draw(widths)
    rows = n + draw(st.integers(0, 2))
    return Case(
        ops.recurrent_step, (normal(rng, rows, d), normal(rng, n, d), normal(rng, d, d)), {}
    )


@st.composite
def convolutions(draw: Any) -> Case:
    rng, sentences = np.random.default_rng(draw(seeds)), Sentences(draw(lengths))
    k, d_in, d_out = draw(st.integers(1, 5)), draw(widths), draw(widths)
    arrays = normal(rng, sentences.rows, d_in), normal(rng, k, d_in, d_out), normal(rng, d_out)
    return Case(ops.convolution, arrays, _settings(draw, sentences))


@st.composite
def depthwise_convolutions(draw: Any) -> Case:
    rng, sentences = np.random.default_rng(draw(seeds)), Sentences(draw(lengths))
    k, d = draw(st.integers(1, 5)), draw(widths)
    arrays = normal(rng, sentences.rows, d), normal(rng, k, d)
    return Case(ops.depthwise_convolution, arrays, _settings(draw, sentences))


def _settings(draw: Any, sentences: Sentences) -> dict[str, Any]:
    return {"sentences": sentences, "dilation": draw(st.integers(1, 3))}
