"""Which tag is of which word, for a model may have left one out, or written one twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def aligned(
    tags: Sequence[str], words: Sequence[str], fits: Callable[[str, str], bool]
) -> list[int | None]:
    """For each tag the index of its word; None if it has none. Both are in order.

    Of all ways the first with the fewest faults is taken: a tag without a word, a word without a
    tag, and a word with a tag that does not fit are one fault each. fits: whether a tag fits a word
    """
    # faults[i][j]: the fewest of the tags from i and the words from j.
    faults = [[*range(len(words), -1, -1)]]
    cost = [[0 if fits(tag, word) else 1 for word in words] for tag in tags]
    for of in reversed(cost):
        below, row = faults[-1], [len(faults)]
        for j in range(len(words) - 1, -1, -1):
            row.append(min(below[j + 1] + of[j], below[j] + 1, row[-1] + 1))
        row.reverse()
        faults.append(row)
    faults.reverse()
    found: list[int | None] = []
    j = 0
    for i, of in enumerate(cost):
        while j < len(words) and faults[i][j] not in (
            faults[i + 1][j + 1] + of[j],
            faults[i + 1][j] + 1,
        ):
            j += 1
        if j < len(words) and faults[i][j] == faults[i + 1][j + 1] + of[j]:
            found.append(j)
            j += 1
        else:
            found.append(None)
    return found
