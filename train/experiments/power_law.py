"""How a cost grows: the exponent of a power law, and where two costs cross."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Exponent(NamedTuple):
    """The slope of log cost over log size, and its standard error."""

    slope: float
    error: float

    def __str__(self) -> str:
        return f"{round(self.slope, 2) + 0.0:.2f} ± {self.error:.2f}"  # no -0.00


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> Exponent:
    """Fit cost = a · size^slope by least squares to the logarithms of three points or more."""
    x, y = np.log(sizes), np.log(costs)
    deviations = x - x.mean()
    spread = float(deviations @ deviations)
    slope = float(deviations @ y) / spread
    rest = y - y.mean() - slope * deviations
    return Exponent(slope, math.sqrt(float(rest @ rest) / (len(x) - 2) / spread))


def crossing(sizes: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The size from which on a ratio is 1 or more, by the straight line between logarithms.

    sizes: rising. None if the ratio is below 1 at the last size, or at none.
    """
    x, y = np.log(sizes), np.log(ratios)
    below = np.flatnonzero(y < 0)
    if not len(below) or below[-1] == len(y) - 1:
        return None
    i = below[-1]
    return math.exp(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))
