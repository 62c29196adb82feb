"""Which pairs of a text are left out of a corpus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from npformer.errors import UserError
from train.corpora.scripts import Scripts

EMPTY, TOO_LONG = "empty", "too_long"
COPY, DUPLICATE, SCRIPT, RATIO = "copy", "duplicate", "script", "ratio"


@dataclass(frozen=True)
class Filters:
    """What is dropped: pairs that are empty on a side or too long, and on request others.

    Attributes:
        max_length: the most tokens of a side, without the end
        max_ratio: how many times as many tokens as the other a side may have
        drop_copies: whether to drop pairs that are the same on both sides
        drop_duplicates: whether to drop repeated pairs
        source_script, target_script: the names of Unicode's scripts that the languages are written
            in; pairs are dropped if fewer than half the letters of a side are of these

    A pair with several reasons is counted for the first of empty, copy, duplicate, script, too
    long and ratio. Raises UserError for values that make no sense.
    """

    max_length: int
    max_ratio: float | None = None
    drop_copies: bool = False
    drop_duplicates: bool = False
    source_script: tuple[str, ...] = ()
    target_script: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise UserError(f"max_length must be at least 1, not {self.max_length}")
        if self.max_ratio is not None and not 1 <= self.max_ratio < math.inf:
            raise UserError(f"max_ratio must be at least 1, not {self.max_ratio}")
        _ = self._scripts  # checks the names

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons for which these filters drop pairs, and what they are in words."""
        scripts = [
            f"{side} not in {' or '.join(names)}"
            for side, names in (("source", self.source_script), ("target", self.target_script))
            if names
        ]
        found = {
            EMPTY: "empty on a side",
            TOO_LONG: f"longer than {self.max_length} tokens",
            COPY: "the same on both sides" if self.drop_copies else "",
            DUPLICATE: "the same as an earlier pair" if self.drop_duplicates else "",
            SCRIPT: ", ".join(scripts),
            RATIO: f"more than {self.max_ratio:g} to 1 in length" if self.max_ratio else "",
        }
        return {reason: words for reason, words in found.items() if words}

    def of_text(self, source: str, target: str, is_duplicate: bool) -> str | None:
        """The reason why the text of a pair is dropped; None if it is not."""
        if not source.strip() or not target.strip():
            return None  # it has no tokens
        if self.drop_copies and source == target:
            return COPY
        if is_duplicate:
            return DUPLICATE
        source_script, target_script = self._scripts
        if source_script is not None and not source_script.has(source):
            return SCRIPT
        if target_script is not None and not target_script.has(target):
            return SCRIPT
        return None

    def of_lengths(
        self, source: NDArray[np.int64], target: NDArray[np.int64]
    ) -> list[tuple[str, NDArray[np.bool_]]]:
        """For each reason, in order of precedence, which pairs it drops."""
        shorter, longer = np.minimum(source, target), np.maximum(source, target)
        found = [(EMPTY, shorter == 0), (TOO_LONG, longer > self.max_length)]
        if self.max_ratio is not None:
            found.append((RATIO, longer > self.max_ratio * shorter))
        return found

    @cached_property
    def _scripts(self) -> tuple[Scripts | None, Scripts | None]:
        source, target = (
            Scripts(names) if names else None for names in (self.source_script, self.target_script)
        )
        return source, target
