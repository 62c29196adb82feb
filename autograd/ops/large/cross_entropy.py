"""The projection to the vocabulary with the label-smoothed cross-entropy of its softmax."""

from __future__ import annotations

from typing import Any

from autograd.backend import Array, array_module
from autograd.checks import are_rows, is_matrix
from autograd.operation import Vjp, op_with_auxiliary


def smoothed_target(smoothing: float, vocabulary: int, spread: str) -> tuple[float, float]:
    """The smoothed distribution, as (a, b): it is b everywhere, and a + b on the target.

    `spread` says where the probability ε = `smoothing` goes: over the whole "vocabulary" (Szegedy
    et al., 2016, whom section 5.4 cites), or over the "others" than the target, which leaves that
    exactly 1 - ε (tensor2tensor).
    """
    if vocabulary < (2 if spread == "others" else 1):
        raise ValueError(
            f"a vocabulary of {vocabulary} leaves no {spread} to spread smoothing over"
        )
    if spread == "vocabulary":
        return 1 - smoothing, smoothing / vocabulary
    if spread == "others":
        share = smoothing / (vocabulary - 1)
        return 1 - smoothing - share, share
    raise ValueError(f"spread is 'vocabulary' or 'others', not {spread!r}")


@op_with_auxiliary(1)
def projected_cross_entropy(
    x: Array, weight: Array, *, targets: Array, smoothing: float = 0.0, spread: str = "vocabulary"
) -> tuple[tuple[Array, Array], Vjp]:
    """Cross-entropy of softmax(x Wᵀ) with smoothed targets (section 5.4), a *sum* over tokens.

    x: [tokens, d], weight: [vocabulary, d], targets: [tokens], integers; `smoothing` lies in
    [0, 1). Returns the loss, in nats, and beside it, with no gradient, the sum without smoothing:
    the negative log-likelihood, of which exp(mean) is the perplexity. This operation alone owns
    the logits, which are the largest array of a step.
    """
    xp = array_module(x)
    a, b = smoothed_target(smoothing, weight.shape[0], spread)
    logits = x @ weight.T  # [tokens, vocabulary]
    logits -= logits.max(axis=-1, keepdims=True)
    p = xp.exp(logits)
    total = p.sum(axis=-1, keepdims=True)
    p /= total
    log_sum_exp = xp.log(total[:, 0])
    tokens = xp.arange(len(targets))
    target_logits = logits[tokens, targets]
    nll = log_sum_exp - target_logits
    # -Σ q log p with q = b + a·[target], since a + b·vocabulary is 1.
    loss = log_sum_exp - a * target_logits - b * logits.sum(axis=-1)

    def vjp(dloss: Array) -> tuple[Array, Array]:
        dlogits = p  # which is not needed again, and becomes p - q
        dlogits -= b
        dlogits[tokens, targets] -= a
        dlogits *= dloss
        return dlogits @ weight, dlogits.T @ x

    return (loss.sum(), nll.sum()), vjp


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
        raise ValueError(
            f"projected_cross_entropy: smoothing lies in [0, 1), and this is {smoothing}"
        )
    where = "projected_cross_entropy: targets"
    are_rows(where, targets, (x.shape[0],), "[tokens]", weight.shape[0])
