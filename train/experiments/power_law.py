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
        return f"{self.slope:.2f} ± {self.error:.2f}"


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> Exponent:
    """Fit cost = a · size^slope by least squares to the logarithms of three points or more."""
    x, y = np.log(sizes), np.log(costs)
    deviations = x - x.mean()
    spread = float(deviations @ deviations)
    slope = float(deviations @ y) / spread
    rest = y - y.mean() - slope * deviations
    return Exponent(slope, math.sqrt(float(rest @ rest) / (len(x) - 2) / spread))


def crossing(sizes: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The size at which a growing ratio reaches 1, by the straight line between logarithms.

    None if it stays below, or is above from the first size on.
    """
    x, y = np.log(sizes), np.log(ratios)
    for i in range(1, len(x)):
        if y[i - 1] < 0 <= y[i]:
            return math.exp(x[i - 1] - y[i - 1] * (x[i] - x[i - 1]) / (y[i] - y[i - 1]))
    return None
