"""The likeliest next symbols, for decoding."""

from __future__ import annotations

from autograd.backend import Array, array_module
from autograd.op import kernel


@kernel
def likeliest_symbols(x: Array, weight: Array, *, count: int) -> tuple[Array, Array]:
    """The `count` symbols of highest probability in softmax(x Wᵀ), and their log-probabilities.

    x [rows, d], weight [vocabulary, d]. Returns log P and symbols, each [rows, count], best first;
    count is at most the vocabulary.
    """
    module = array_module(x)
    logits = x @ weight.T  # [rows, vocabulary]
    most = logits.max(axis=-1, keepdims=True)
    log_total = most + module.log(module.exp(logits - most).sum(axis=-1, keepdims=True))
    symbols = module.argpartition(logits, logits.shape[1] - count, axis=-1)[:, -count:]
    log_p = module.take_along_axis(logits, symbols, axis=-1) - log_total
    order = module.argsort(-log_p, axis=-1)
    return (
        module.take_along_axis(log_p, order, axis=-1),
        module.take_along_axis(symbols, order, axis=-1),
    )
