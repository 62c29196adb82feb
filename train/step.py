"""One training step (section 5): forward pass, backward pass and update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autograd import DropoutStream, Tape, array_module, to_host
from autograd.backend import Array
from npformer.batch import Batch
from npformer.errors import UserError
from npformer.transformer import Transformer
from train.optimizer import Optimizer


@dataclass(frozen=True)
class StepResult:
    """The losses of a step, summed over `target_tokens`, in nats, and the gradient's norm.

    The arrays are scalars on the model's backend. To read one on a GPU waits for the step to end.
    """

    loss_sum: Array
    nll_sum: Array
    gradient_norm: Array
    source_tokens: int
    target_tokens: int


def train_step(
    model: Transformer,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    rate: float,
    dropout: DropoutStream | None = None,
    clip_norm: float = 0.0,
) -> StepResult:
    """One step on the mean loss per target token over all of `batches` together.

    With `clip_norm`, a gradient of a larger norm is scaled down to it. If the gradient is not
    finite, the parameters stay as they are. Nothing here waits for the device.
    """
    xp = optimizer.owner.xp
    target_tokens = sum(b.target_tokens for b in batches)
    losses, nlls, rows = [], [], (0, 0)
    for i, batch in enumerate(batches):
        with Tape() as tape:
            loss, nll = model.losses(batch, dropout, rows)
        tape.backward(loss, xp.full((), 1 / target_tokens, loss.dtype), accumulate=i > 0)
        losses.append(loss.value)
        nlls.append(nll)
        rows = (rows[0] + batch.source.sentences.rows, rows[1] + batch.target_tokens)
    norm = optimizer.gradient_norm()
    scale = clip_norm / xp.maximum(norm, clip_norm) if clip_norm else xp.ones_like(norm)
    # With the scale NaN the optimizer changes nothing, and `read_steps` reports the divergence.
    optimizer.step(rate, xp.where(xp.isfinite(norm), scale, math.nan))
    return StepResult(sum(losses), sum(nlls), norm, rows[0], target_tokens)


def read_steps(results: Sequence[StepResult], last_step: int) -> np.ndarray:
    """[steps, 3]: loss, negative log-likelihood and gradient norm of steps up to `last_step`.

    This waits for the device. Raises UserError if any of these numbers is not finite.
    """
    xp = array_module(results[0].loss_sum)
    rows = [xp.stack([r.loss_sum, r.nll_sum, r.gradient_norm]) for r in results]
    numbers = to_host(xp.stack(rows)).astype(np.float64)
    diverged = np.flatnonzero(~np.isfinite(numbers).all(axis=1))
    if diverged.size:
        first = diverged[0]
        loss, nll, norm = numbers[first]
        tokens = results[first].target_tokens
        raise UserError(
            f"training diverged: at step {last_step - len(results) + 1 + first} the loss is "
            f"{loss / tokens:.4g} a token ({nll / tokens:.4g} without smoothing) and the "
            f"gradient's norm {norm:.4g}; lower the learning rate, warm up for longer, or set "
            "clip_norm"
        )
    return numbers
