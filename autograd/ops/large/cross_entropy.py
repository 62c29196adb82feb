"""The projection to the vocabulary, its softmax and the label-smoothed cross-entropy."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.checks import are_rows, is_matrix
from autograd.operation import Vjp, op


def smoothed_target(smoothing: float, vocabulary: int, smoothing_over: str) -> tuple[float, float]:
    """The smoothed target distribution, as (a, b): a + b for the target, b for every other token.

    `smoothing_over` says which tokens share the probability ε = `smoothing`: the whole
    "vocabulary" (Szegedy et al., 2016, cited in section 5.4), or the "others" without the target,
    which keeps exactly 1 - ε (tensor2tensor).
    """
    if vocabulary < (2 if smoothing_over == "others" else 1):
        raise ValueError(
            f"a vocabulary of {vocabulary} has no {smoothing_over} to spread the smoothing over"
        )
    if smoothing_over == "vocabulary":
        return 1 - smoothing, smoothing / vocabulary
    if smoothing_over == "others":
        share = smoothing / (vocabulary - 1)
        return 1 - smoothing - share, share
    raise ValueError(f"smoothing_over must be 'vocabulary' or 'others', got {smoothing_over!r}")


@op(auxiliary=1)
def projected_cross_entropy(
    x: Array,
    weight: Array,
    *,
    targets: Array,
    smoothing: float = 0.0,
    smoothing_over: str = "vocabulary",
) -> tuple[tuple[Array, Array], Vjp]:
    """Cross-entropy of softmax(x Wᵀ) with smoothed targets (section 5.4), *summed* over tokens.

    x: [tokens, d]; weight: [vocabulary, d]; targets: [tokens], integers; `smoothing` is in [0, 1).
    A target below 0 stands for none: its token has no loss and no gradient. Returns two sums in
    nats: the loss, and without a gradient the negative log-likelihood, that is the loss without
    smoothing; exp of its mean is the perplexity. Projection and loss are one operation because the
    logits are the largest array of a training step.
    """
    xp = array_module(x)
    a, b = smoothed_target(smoothing, weight.shape[0], smoothing_over)
    counts, ids = targets >= 0, xp.maximum(targets, 0)
    logits = x @ weight.T  # [tokens, vocabulary]
    logits -= logits.max(axis=-1, keepdims=True)
    p = xp.exp(logits)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    log_sum_exp = xp.log(total[:, 0])
    tokens = xp.arange(len(targets))
    target_logits = logits[tokens, ids]
    nll = log_sum_exp - target_logits
    # -Σ q log p for q = b + a·[target], since a + b·vocabulary = 1.
    loss = log_sum_exp - a * target_logits - b * logits.sum(axis=-1)

    def vjp(dloss: Array) -> tuple[Array, Array]:
        dlogits = p  # p is not needed again; it becomes p - q
        dlogits -= b
        dlogits[tokens, ids] -= a
        dlogits *= xp.where(counts, dloss, 0).astype(dlogits.dtype)[:, None]
        return dlogits @ weight, dlogits.T @ x

    return (xp.where(counts, loss, 0).sum(), xp.where(counts, nll, 0).sum()), vjp


@projected_cross_entropy.checked
def _check(x: Array, weight: Array, *, targets: Array, smoothing: float = 0.0, **_: Any) -> None:
    is_matrix("projected_cross_entropy: x", x, "[tokens, d]")
    is_matrix("projected_cross_entropy: weight", weight, "[vocabulary, d]")
    if x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"projected_cross_entropy: x {x.shape} and weight {weight.shape} differ in their "
            "columns, [tokens, d] and [vocabulary, d]"
        )
    if not 0 <= smoothing < 1:
        raise ValueError(f"projected_cross_entropy: smoothing must be in [0, 1), got {smoothing}")
    where = "projected_cross_entropy: targets"
    are_rows(where, targets, (x.shape[0],), "[tokens]", weight.shape[0], or_negative=True)
