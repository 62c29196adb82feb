"""The parts of a training step, recorded where the backend can: gradients of a batch, and update.

A part reads all that changes from step to step in arrays, so that it is the same work each time.
For its first batch of a class (`sized`), it is run and recorded; for others, it is replayed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from autograd import DropoutStream, Parameter, Sentences, Tape, Tensor
from autograd.backend import Array
from autograd.sentences import SealedError
from npformer.batch import Batch
from npformer.transformer import Transformer
from train.optimizer import Optimizer, RecordableOptimizer
from train.ranks.ranks import Exchange

_CLASSES = 16  # of batches, on each side
_MULTIPLE = 64  # of tokens: products are fast
_MOST_KEPT = 48  # recordings; a step of base is some 500 launches
# Source and target tokens of a batch up to which a step of several ranks is recorded. Its gradients
# are then summed when all are there, and not while the others are being computed.
_MOST_WITH_EXCHANGE = 16_384
# What is derived from a batch's sentences and among `_inputs`.
_OVERWRITTEN = "position ids", "position order", "tiles"

logger = logging.getLogger("npformer")


def sized(batch: Batch, budget: int) -> Batch:
    """A batch filled up to one of few sizes, up to the budget of tokens of either side.

    A sentence that is longer than the budget has more.
    """
    most = _rounded_up(budget, _MULTIPLE)
    step = _rounded_up(budget, _CLASSES * _MULTIPLE) // _CLASSES

    def size(rows: int) -> int:
        found = max(step, _rounded_up(rows, step))
        return found if rows > most else min(found, most)

    return batch.filled(*(size(side.rows) for side in _sides(batch)))


def _rounded_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _sides(batch: Batch) -> tuple[Sentences, Sentences]:
    return batch.source.sentences, batch.target_input.sentences


class _Part(NamedTuple):
    """A part that may have been recorded.

    Attributes:
        batch: whose arrays it reads
        layouts: of its plans of attention
        kept: what else must stay
    """

    run: Callable[[], Array]
    batch: Batch | None = None
    layouts: Hashable = None
    kept: Any = None


class Recordings:
    """The parts of the steps of a model and its optimizer.

    longest: the most tokens of a sentence, if it is known. A longer table of positions than before
    would have all batches recorded anew.

    Attributes:
        sums: the loss and the negative log-likelihood of a step so far
    """

    def __init__(self, model: Transformer, optimizer: Optimizer, longest: int = 1) -> None:
        for embedding in (model.source_embedding, model.target_embedding):
            embedding.positions.table(longest, embedding.table)
        self._model, self._optimizer, self._owner = model, optimizer, optimizer.owner
        xp, dtype = self._owner.xp, model.buffer.values.dtype
        self.sums: Array = xp.zeros(2, dtype)
        # 1 / target tokens, and then in 32 bits the dropout's step and its two first rows.
        self._batch_numbers: Array = xp.zeros(3, np.float64)
        self._step_numbers: Array | None = None  # of the optimizer
        self._records = self._owner.records_gradients
        self._parts: dict[Hashable, _Part] = {}
        self._values: tuple[Any, ...] = ()

    def add_gradients(
        self,
        batch: Batch,
        share: float,
        dropout: DropoutStream | None,
        rows: tuple[int, int],
        *,
        first: bool,
        exchange: Exchange | None = None,
    ) -> None:
        """Add the gradients of `share` times the loss of a batch, and to `sums` its losses.

        first: whether they are the first of a step, which overwrite those of the step before. rows:
        as for `Transformer.losses`. exchange: begins with the step's gradients, of which these are
        the last.
        """
        numbers = np.zeros(3, np.float64)
        numbers[0] = share
        if dropout is not None:
            numbers.view(np.uint32)[2:5] = dropout.step, *rows
        self._batch_numbers[...] = self._owner.asarray(numbers)
        # What is the same in every step, of the stream's own class.
        stream = None if dropout is None else replace(dropout, step=0, row=0)
        # That of longer sentences may be another table.
        tables = self._model.position_tables(batch)
        key = self._key_of(batch, exchange)
        if key is None:
            self._compute(batch, stream, first, exchange)
            return
        layouts = tuple(plan.layout for plan in batch.attention_plans())
        part = self._part(
            ("gradients", stream, first, *map(id, tables), key),
            lambda: _Part(self._sealed(batch, stream, first), batch, layouts, tables),
            layouts,
        )
        if not self._replay(part, batch):
            self._parts.clear()
            self._records = False
            self._compute(batch, stream, first, exchange)
        elif exchange:
            exchange.begin(self.sums)

    def update(self, rate: float, clip_norm: float) -> Array:
        """Update the parameters; returns loss, negative log-likelihood and gradient norm: [3]."""
        optimizer = self._optimizer
        if not isinstance(optimizer, RecordableOptimizer) or not optimizer.is_recordable():
            numbers, scale = self._measure(clip_norm)
            optimizer.step(rate, scale)
            return numbers
        given = np.array(optimizer.count_step(rate), np.float64)
        if self._step_numbers is None:
            self._step_numbers = self._owner.xp.zeros(len(given), np.float64)
        self._step_numbers[...] = self._owner.asarray(given)
        part = self._part(
            ("update", clip_norm), lambda: _Part(lambda: self._update(optimizer, clip_norm))
        )
        return part.run().copy()  # the next one overwrites it

    def _update(self, optimizer: RecordableOptimizer, clip_norm: float) -> Array:
        numbers, scale = self._measure(clip_norm)
        optimizer.apply(self._step_numbers, scale)
        return numbers

    def _measure(self, clip_norm: float) -> tuple[Array, Array]:
        """Loss, negative log-likelihood and gradient norm: [3], and the scale of the gradient."""
        xp = self._owner.xp
        norm = self._optimizer.gradient_norm()
        scale = clip_norm / xp.maximum(norm, clip_norm) if clip_norm else xp.ones_like(norm)
        # With the scale NaN the optimizer changes nothing, and `read_steps` shows why.
        numbers = xp.empty(3, self.sums.dtype)
        numbers[:2], numbers[2] = self.sums, norm
        return numbers, xp.where(xp.isfinite(numbers).all(), scale, np.nan)

    def _compute(
        self,
        batch: Batch,
        stream: DropoutStream | None,
        first: bool,
        exchange: Exchange | None = None,
    ) -> None:
        """The work of `add_gradients`, which reads `_batch_numbers`."""
        share, counters = self._batch_numbers[0], self._batch_numbers.view(np.uint32)[2:5]
        dropout = None if stream is None else replace(stream, step=counters[0])
        with Tape() as tape:
            loss, nll = self._model.losses(batch, dropout, (counters[1], counters[2]))
        for i, x in enumerate((loss.value, nll)):
            self.sums[i : i + 1] = x if first else self.sums[i] + x
        if exchange:
            exchange.begin(self.sums)
        completed: Callable[[Parameter], None] | None = exchange.completed if exchange else None
        tape.backward(loss, share.astype(loss.dtype), accumulate=not first, completed=completed)

    def _sealed(
        self, batch: Batch, stream: DropoutStream | None, first: bool
    ) -> Callable[[], Array]:
        """The work of `add_gradients` for a batch whose arrays are overwritten by those of others.

        It raises SealedError where it asks for the lengths of this one.
        """

        def run() -> Array:
            with ExitStack() as stack:
                for sentences in _sides(batch):
                    stack.enter_context(sentences.sealed())
                self._compute(batch, stream, first)
            return self.sums

        return run

    def _replay(self, part: _Part, batch: Batch) -> bool:
        """Run a part for a batch; whether it depends on nothing but arrays."""
        assert part.batch is not None
        if part.batch is not batch:
            for x, new in zip(self._inputs(part.batch), self._inputs(batch), strict=True):
                x[...] = new
            plans = part.batch.attention_plans(), batch.attention_plans()
            for plan, new in zip(*plans, strict=True):
                plan.overwrite(new)
        try:
            part.run()
        except SealedError as error:
            logger.info("steps of this model are not recorded: %s", error)
            return False
        return all(s.has_only(*_OVERWRITTEN) for s in _sides(part.batch))

    def _key_of(self, batch: Batch, exchange: Exchange | None) -> Hashable | None:
        """What the batches of a recording have in common; None if this one is not recorded."""
        source, target = _sides(batch)
        if not (self._records and source.recurring and target.recurring):
            return None
        if exchange and max(source.rows, target.rows) > _MOST_WITH_EXCHANGE:
            return None
        return tuple((x.shape, x.dtype.name) for x in self._inputs(batch))

    def _inputs(self, batch: Batch) -> list[Array]:
        """All arrays that a model reads of a batch, without its plans of attention."""
        found: list[Array | None] = [batch.target_output.tokens]
        sides = batch.source, batch.target_input
        for packed, table in zip(sides, self._model.position_tables(batch), strict=True):
            found += [packed.tokens, packed.order, packed.position_ids]
            if isinstance(table, Tensor):  # it is learned, and has a gradient
                found.append(packed.sentences.position_order(self._owner))
        return [x for x in found if x is not None]

    def _part(self, key: Hashable, make: Callable[[], _Part], layouts: Hashable = None) -> _Part:
        """The part of this key, the least recently used of too many being dropped.

        One of other layouts is replaced: room in them only grows, so that they do not come again.
        """
        buffer = self._model.buffer
        values = buffer.values, buffer.rounded, buffer.grads
        if len(values) != len(self._values) or any(
            x is not y for x, y in zip(values, self._values, strict=True)
        ):  # the model has moved
            self._parts.clear()
            self._values = values
        part = self._parts.pop(key, None)
        if part is None or part.layouts != layouts:
            made = make()
            part = made._replace(run=self._owner.record(made.run))
            while len(self._parts) >= _MOST_KEPT:
                del self._parts[next(iter(self._parts))]
        self._parts[key] = part
        return part
