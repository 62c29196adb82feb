"""What several seeds say about how rows differ: means, spread, and what can be separated."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

ERRORS = 3
"""Standard errors by which two means must differ. Of 20 rows that are the same, 2 standard errors
would separate one by chance."""


_ROWS = 8  # are needed to tell what a seed adds to all


class Difference(NamedTuple):
    """Of two means, with its standard error, which is None if the spread is not known."""

    value: float
    error: float | None

    @property
    def sign(self) -> int:
        """1 for more, -1 for less, or 0 if it is not larger than the spread."""
        if self.error is None or abs(self.value) <= ERRORS * self.error:
            return 0
        return 1 if self.value > 0 else -1


class Comparison:
    """A figure of several rows, each measured with several seeds.

    values: of each row, one a seed, at least one

    Two or three runs may agree by chance. So the variance of a row counts as no less than what is
    usual among the rows, and that is taken for a row with a single value. It comes from their
    median, which one wild row does not change. If most rows do not vary at all, as BLEU that is 0
    without smoothing, no spread is known. A row whose deviation is 3 times the usual is separated
    by chance in some 6 of 100 cases with two seeds, and in 2 with five.

    Models with the same seed see the same batches, and are better or worse together. This is no
    difference of rows: what a seed adds to all of them is taken out before they are compared.
    """

    def __init__(self, values: Mapping[str, Sequence[float]]) -> None:
        self._values = values
        self._own, inflation = _without_seeds(values)
        self._variances = {
            name: inflation * statistics.variance(own)
            for name, own in self._own.items()
            if len(own) > 1
        }
        known = [
            variance / _median_of_variances(len(values[name]) - 1)
            for name, variance in self._variances.items()
        ]
        self._usual = statistics.median(known) if known else None

    def mean(self, name: str) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self._values[name])

    def deviation(self, name: str) -> float | None:
        """The standard deviation over the seeds; None of a single one."""
        values = self._values[name]
        return statistics.stdev(values) if len(values) > 1 else None

    def difference(self, name: str, base: str) -> Difference:
        """What the mean of a row has more than that of another."""
        value = self.mean(name) - self.mean(base)
        if not self._usual:
            return Difference(value, None)
        squares = [self._squared_error(one, self._usual) for one in (name, base)]
        return Difference(value, math.sqrt(sum(squares)))

    def _squared_error(self, name: str, usual: float) -> float:
        return max(self._variances.get(name, 0.0), usual) / len(self._own[name])


def _without_seeds(
    values: Mapping[str, Sequence[float]],
) -> tuple[Mapping[str, Sequence[float]], float]:
    """The values without what a seed adds to all rows, and what that makes of their variance.

    The first is a median over rows, of which it takes a little of the spread; the second gives it
    back, and a little more. Of few rows, the values are left as they are.
    """
    seeds = max(map(len, values.values()))
    whole = {name: of for name, of in values.items() if len(of) == seeds}
    if len(whole) < _ROWS:
        return values, 1.0
    means = {name: statistics.fmean(of) for name, of in whole.items()}
    added = [statistics.median(of[i] - means[n] for n, of in whole.items()) for i in range(seeds)]
    own = {name: [x - a for x, a in zip(of, added, strict=True)] for name, of in whole.items()}
    return {**values, **own}, len(whole) / (len(whole) - 2)


def _median_of_variances(freedom: int) -> float:
    """Of many variances of a few normal values each, whose true variance is 1.

    That of a chi-squared variable divided by its degrees of freedom, after Wilson and Hilferty: of
    two values, half of the variances are below 0.47 (exactly, 0.455).
    """
    return (1 - 2 / (9 * freedom)) ** 3


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's τ-b of two orders: 1 for the same, -1 for the reverse; None if one is all ties."""
    pairs = list(combinations(zip(one, other, strict=True), 2))
    signs = [(_sign(a[0] - b[0]), _sign(a[1] - b[1])) for a, b in pairs]
    untied = [sum(abs(s) for s in column) for column in zip(*signs, strict=True)]
    if not untied or not all(untied):
        return None
    return sum(a * b for a, b in signs) / math.sqrt(math.prod(untied))


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
