"""What the trained rows show: which differ from base by more than the spread, and in which way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from npformer.errors import UserError
from train.experiments.table3.comparison import Comparison, Difference, kendall
from train.experiments.table3.rows import BASE, ROWS, Row

# Perplexities of the paper that differ by less are taken as the same: two models of one row, of
# which the paper trained one, may differ as much.
_SAME = 0.035


class Outcome(Enum):
    """How a row's difference from base compares with the paper's."""

    FAILED = "failed"
    UNSEPARATED = "not separated"
    AGREES = "as in the paper"
    CONTRADICTS = "the other way"
    NEW = "no difference in the paper"


class Findings:
    """The results of all rows.

    results: of each row, one a seed, as `train_row` returns them

    Attributes:
        rows: those of which at least one model was trained, in the paper's order
        failed: why models were not trained to their end, by row
        perplexities: logarithms of the perplexity
        bleu: by tokenizer
    """

    def __init__(self, rows: Sequence[Row], results: Mapping[str, Sequence[Any]]) -> None:
        self.asked = rows
        self.results = {
            row.name: [r for r in results[row.name] if "failed" not in r] for row in rows
        }
        self.failed = {
            row.name: [r["failed"] for r in results[row.name] if "failed" in r] for row in rows
        }
        if not self.results[BASE]:
            raise UserError(
                f"base has failed, with which all others are compared: {self.failed[BASE][0]}; "
                "give another --out and a smaller --rate"
            )
        self.rows = [row for row in rows if self.results[row.name]]
        self.perplexities = Comparison(
            {
                row.name: [math.log(r["perplexity"]) for r in self.results[row.name]]
                for row in self.rows
            }
        )
        self.bleu = {
            tokenizer: Comparison(
                {
                    row.name: [r["bleu"][tokenizer] for r in self.results[row.name]]
                    for row in self.rows
                }
            )
            for tokenizer in self.results[BASE][0]["bleu"]
        }

    @property
    def variations(self) -> list[Row]:
        """All rows but base, also those that have failed."""
        return [row for row in self.asked if row.name != BASE]

    def change(self, row: Row) -> Difference:
        """Of the logarithm of the perplexity, from base."""
        return self.perplexities.difference(row.name, BASE)

    def outcome(self, row: Row) -> Outcome:
        """How a row differs from base in perplexity, compared with the paper."""
        if not self.results[row.name]:
            return Outcome.FAILED
        sign, wanted = self.change(row).sign, paper_sign(row)
        if sign == 0:
            return Outcome.UNSEPARATED
        if wanted == 0:
            return Outcome.NEW
        return Outcome.AGREES if sign == wanted else Outcome.CONTRADICTS

    def with_outcome(self, outcome: Outcome) -> list[Row]:
        """The rows with this outcome."""
        return [row for row in self.variations if self.outcome(row) is outcome]

    def last_quarter(self) -> float | None:
        """What the logarithm of base's perplexity changed by in the last quarter of the steps."""
        curves = [r["curve"] for r in self.results[BASE] if len(r["curve"]) > 1]
        if not curves:
            return None
        return statistics.fmean(math.log(curve[-1] / curve[-2]) for curve in curves)

    def order(self) -> float | None:
        """Kendall's τ of the rows' perplexities here and in the paper."""
        here = [self.perplexities.mean(row.name) for row in self.rows]
        return kendall(here, [row.perplexity for row in self.rows])


def paper_sign(row: Row) -> int:
    """1 if the row's perplexity in the paper is higher than base's, -1 if lower, 0 if the same."""
    more = row.perplexity - ROWS[BASE].perplexity
    return 0 if abs(more) < _SAME else (1 if more > 0 else -1)
