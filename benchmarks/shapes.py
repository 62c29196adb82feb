"""Few shapes for many batches: what is compiled for fixed sizes gets batches that are filled up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from npformer import Batch

T = TypeVar("T")

MOST = 8


def by_tokens(batches: Sequence[Batch], most: int) -> list[list[int]]:
    """The indices of batches that are filled up to the same numbers of tokens, in `most` groups.

    Their fillers are as few as possible. Batches with the same budget differ in how many tokens one
    side has fewer than the other.
    """
    sizes = [(len(b.source.tokens), b.target_tokens) for b in batches]
    order = sorted(range(len(batches)), key=lambda k: sizes[k][0] - sizes[k][1])

    def cost(group: Sequence[tuple[int, int]]) -> float:
        return len(group) * sum(map(max, zip(*group, strict=True)))

    runs = alike([sizes[k] for k in order], cost, most)
    return [[order[i] for i in run] for run in runs]


def alike(items: Sequence[T], cost: Callable[[Sequence[T]], float], most: int) -> list[list[int]]:
    """Divide items, in an order in which neighbours are alike, into at most `most` runs.

    cost: of items that share a shape. The runs, of indices, have the least total cost possible.
    """
    n = len(items)
    least = [0.0] + [float("inf")] * n  # of the first items, in as many runs as were added
    cuts: list[list[int]] = []
    costs = {(i, j): cost(items[i:j]) for j in range(1, n + 1) for i in range(j)}
    for _ in range(min(most, n)):
        before = [min(range(j), key=lambda i, j=j: least[i] + costs[i, j]) for j in range(1, n + 1)]
        least = [0.0] + [least[i] + costs[i, j] for j, i in enumerate(before, start=1)]
        cuts.append(before)
    runs, end = [], n
    for before in reversed(cuts):
        if end:
            begin = before[end - 1]
            runs.append([*range(begin, end)])
            end = begin
    return runs[::-1]
