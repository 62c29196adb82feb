"""Trying ways to compute a product: how long each takes, and whether its masks and sums are right.

NVIDIA does not say in which order the bits of cuBLASLt's masks lie, or whether its sums have the
same bits each time. So a way counts only if they are where ours are, and if they do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from autograd.backend import Array
from autograd.cuda.product import Product

_ROUNDING = 0.01  # of a mask's bytes may differ, where a result is nearly 0; and of sums
_KEPT = 4  # the last masks or sums, which are compared


class Bench(Protocol):
    """Where ways to compute a product are tried."""

    def aside(self) -> AbstractContextManager[None]:
        """Within the block, no pool keeps the memory of what is gone."""

    def like(self, x: Array) -> Array:
        """A matrix with the layout of x, for a result that is discarded."""

    def seconds(self, run: Callable[[], None], most: float = math.inf) -> float:
        """How long the device takes for the work that `run` queues; roughly, beyond `most`."""


class Trial:
    """A product that is computed in several ways, the first of which is right.

    Attributes:
        product: what each way is to compute, with a result that is discarded if it is added to
    """

    def __init__(self, product: Product, bench: Bench) -> None:
        self._bench = bench
        self._taken: deque[Array] = deque(maxlen=_KEPT)
        self._expected: Array | None = None
        taken = self._taken.append
        self.product = product._replace(
            out=bench.like(product.out) if product.add else product.out,
            positive=product.positive and taken,
            sums=product.sums and taken,
        )

    def seconds(self, compute: Callable[[Product], None], most: float = math.inf) -> float | None:
        """The seconds of a way, as for `Bench.seconds`; None if it is not right."""
        taken = self._bench.seconds(lambda: compute(self.product), most)
        return taken if self._is_right() else None

    def is_right(self, compute: Callable[[Product], None]) -> bool:
        """Whether a way gives the right masks and sums, and the same ones twice."""
        for _ in range(2):
            compute(self.product)
        return self._is_right()

    def _is_right(self) -> bool:
        """Whether what the last way has given is what the first one had."""
        found = self._found()
        if found is None:
            return True
        same = all(bool((x == self._taken[0]).all()) for x in self._taken)
        self._taken.clear()
        if self._expected is None:
            self._expected = found
            return True
        if not self.product.sums:
            return float((found != self._expected).mean()) < _ROUNDING
        error, size = abs(found - self._expected).max(), abs(self._expected).max()
        return same and float(error) <= _ROUNDING * float(size)

    def _found(self) -> Array | None:
        """The mask or the sums, without what is beyond the columns; None without any."""
        product = self.product
        if product.positive:
            return self._taken[-1][:, : product.out.shape[1] // 8]
        if product.sums:
            return self._taken[-1].sum(axis=0)
        return None if product.where is None else product.out == 0
