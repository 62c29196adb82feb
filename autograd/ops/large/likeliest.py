"""The likeliest next symbols, for decoding."""

from __future__ import annotations

from autograd.backend import Array, array_module
from autograd.checks import is_matrix
from autograd.operation import kernel


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


@likeliest_symbols.checked
def _check(x: Array, weight: Array, *, count: int) -> None:
    is_matrix("likeliest_symbols: x", x, "[rows, d]")
    is_matrix("likeliest_symbols: weight", weight, "[vocabulary, d]")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"likeliest_symbols: x {x.shape} and weight {weight.shape} differ in their columns, "
            "[rows, d] and [vocabulary, d]"
        )
    if not 1 <= count <= weight.shape[0]:
        raise ValueError(f"likeliest_symbols: {count} symbols of a vocabulary of {weight.shape[0]}")
