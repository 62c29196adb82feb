"""The largest numbers of a long row, by lanes of a vector."""

from __future__ import annotations

from autograd.cpu.loops import of_rows
from autograd.cpu.registers import LANES, larger, load


@of_rows
def largest_of_lanes(logits, i, whole):
    """The largest number of each lane in the first `whole` columns of row i, whole vectors."""
    tops = load(logits, i, 0)
    tops1, tops2, tops3 = tops, tops, tops  # four chains, as each step of one waits for the last
    for j in range(0, whole, 4 * LANES):
        tops = larger(load(logits, i, j), tops)
        tops1 = larger(load(logits, i, min(j + LANES, whole - LANES)), tops1)
        tops2 = larger(load(logits, i, min(j + 2 * LANES, whole - LANES)), tops2)
        tops3 = larger(load(logits, i, min(j + 3 * LANES, whole - LANES)), tops3)
    return larger(larger(tops, tops1), larger(tops2, tops3))
