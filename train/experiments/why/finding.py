"""What was found about one claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from train.experiments.page import Picture, Table

Verdict = Literal["yes", "in part", "no", "not measured"]


@dataclass(frozen=True)
class Finding:
    """A claim, what decides it in a sentence, whether it holds, and the section's content."""

    heading: str
    claim: str
    measured: str
    verdict: Verdict
    content: Sequence[str | Table | Picture]
