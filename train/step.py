"""One training step (section 5): forward pass, backward pass and update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autograd import DropoutStream, array_module, to_host
from autograd.backend import Array
from npformer.batch import Batch
from npformer.transformer import Transformer
from train.optimizer import Optimizer
from train.ranks.ranks import Exchange
from train.ranks.shares import Part
from train.recordings import Recordings


@dataclass(frozen=True)
class StepResult:
    """The losses of a step, summed over `target_tokens`, in nats, and the gradient's norm.

    The three are `numbers`, [3], on the model's backend. To read them on a GPU waits for the step
    to end.
    """

    numbers: Array
    target_tokens: int

    @property
    def loss_sum(self) -> Array:
        return self.numbers[0]

    @property
    def nll_sum(self) -> Array:
        return self.numbers[1]

    @property
    def gradient_norm(self) -> Array:
        return self.numbers[2]


class Interrupted(Exception):  # noqa: N818, not an error
    """A step was given up between two of its batches; parameters and optimizer are unchanged."""


def train_step(
    model: Transformer,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    rate: float,
    dropout: DropoutStream | None = None,
    clip_norm: float = 0.0,
    give_up: Callable[[], bool] = lambda: False,
    part: Part | None = None,
    exchange: Exchange | None = None,
    recordings: Recordings | None = None,
) -> StepResult:
    """One step on the mean loss per target token over all of `batches` together.

    part, exchange: if other ranks compute the rest of the step, where `batches` stand in it, and
    what sums gradients and losses over the ranks. recordings: of the steps of this model and this
    optimizer, where batches are `sized`; a GPU then needs little of the host.

    With `clip_norm`, a gradient of a larger norm is scaled down to it. If the loss or the gradient
    is not finite, the parameters stay as they are. Nothing here waits for the device. Raises
    Interrupted if `give_up` says so before a batch that is not the first.
    """
    part = part or Part.whole(batches)
    # Those of one step are of no use to another: nothing is recorded.
    parts = recordings or Recordings(model, optimizer)
    for i, (batch, rows) in enumerate(zip(batches, part.rows, strict=True)):
        if i > 0 and give_up():
            raise Interrupted
        parts.add_gradients(
            batch,
            1 / part.target_tokens,
            dropout,
            rows,
            first=i == 0,
            exchange=exchange if i == len(batches) - 1 else None,
        )
    if exchange:
        if not batches:  # the other ranks have all sentences of the step
            parts.sums[...] = 0
            model.buffer.allocate_gradients()[...] = 0
            exchange.begin(parts.sums)
        exchange.finish()
    return StepResult(parts.update(rate, clip_norm), part.target_tokens)


def read_steps(results: Sequence[StepResult]) -> np.ndarray:
    """[steps, 3]: loss, negative log-likelihood and gradient norm of each step.

    If one of the three is not finite, the step has changed nothing. This waits for the device.
    """
    xp = array_module(results[0].numbers)
    return to_host(xp.stack([r.numbers for r in results])).astype(np.float64)
