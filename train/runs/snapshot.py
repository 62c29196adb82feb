"""What a run saves, copied at one moment, so that training can go on while it is written."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property

import numpy as np

from npformer.transformer import Transformer
from train.moving_average import published_values
from train.optimizer import Optimizer
from train.runs.progress import Progress

Parameters = dict[str, np.ndarray]
"""Copies of parameters, by name."""


class Snapshot:
    """A model, its optimizer and its progress as they are now.

    Copying from a device only begins here. Whoever asks for the arrays first waits for them, on any
    thread.

    Attributes:
        model: for what training does not change: its configuration, parts and sizes
        progress: a copy
        backend: the name of the backend that the run is trained on
    """

    def __init__(self, model: Transformer, optimizer: Optimizer, progress: Progress) -> None:
        self.model, self.progress = model, copy.deepcopy(progress)
        self.backend = optimizer.owner.name
        state, values = optimizer.state(), model.buffer.values
        published = published_values(model.buffer, optimizer)
        self._optimizer = [f"{optimizer.name}.{key}" for key in state]
        flat = [values, *state.values()]
        # Usually one of these.
        self._published = next((i for i, x in enumerate(flat) if x is published), len(flat))
        self._copied = optimizer.owner.copied([*flat, *[published][: self._published == len(flat)]])

    @property
    def step(self) -> int:
        return self.progress.position.step

    @property
    def parameters(self) -> Parameters:
        return self._by_name(0)

    @property
    def published(self) -> Parameters:
        """The parameters that the run publishes: their moving average, if one is kept."""
        return self._by_name(self._published)

    @property
    def optimizer(self) -> dict[str, np.ndarray]:
        """The optimizer's arrays, by the names that they have in a state."""
        return dict(zip(self._optimizer, self._arrays[1:], strict=False))

    @cached_property
    def _arrays(self) -> list[np.ndarray]:
        return self._copied()

    def _by_name(self, index: int) -> Parameters:
        views = self.model.buffer.views(self._arrays[index])
        return {name: views[name] for name in self.model.parameters()}


def published_copy(model: Transformer, optimizer: Optimizer) -> Callable[[], Parameters]:
    """The parameters that a run would publish now; the result waits for the copies."""
    copied = optimizer.owner.copied([published_values(model.buffer, optimizer)])
    return lambda: model.buffer.views(copied()[0])
