"""Lines that are translated or scored, shared out over ranks.

A process alone sorts lines into batches of similar length. Ranks compute the same batches, whole,
so that the result of each line is the same to the last bit: what a matrix product gives for a row
may depend on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any

from npformer.batch import batches_of_similar_length
from npformer.translator import Translator, UntranslatableError, source_tokens
from train.ranks.ranks import Ranks

_STEP_IN_SENTENCES = 16
"""What a step of decoding takes beside its sentences, in terms of what it takes for one of them.

Measured with a small model on a CPU: 18. On a GPU it is more, which matters little, since batches
hold about the same number of tokens.
"""


def translated(
    translator: Translator,
    lines: Sequence[str],
    ranks: Ranks,
    *,
    beam: int = 4,
    batch_tokens: int = 4096,
    progress: Callable[[int], None] | None = None,
    before: int = 0,
    **settings: Any,
) -> list[str]:
    """The text of each line's translation, on all ranks, as `Translator.translate` gives it.

    All ranks call it with the same lines. before: how many lines have come before them, for
    messages. Raises UserError on all ranks.
    """
    tokens = source_tokens(batch_tokens, beam)
    if ranks.size == 1:
        shares = [list(range(len(lines)))]
    else:
        shares = shared_sentences(
            translator.tokenizers.source.encode_lines(list(lines)), tokens, ranks.size
        )
    own = shares[ranks.rank]
    with ranks.together():
        try:
            found = translator.translate(
                [lines[i] for i in own],
                beam=beam,
                batch_tokens=batch_tokens,
                progress=progress and _as_of_all(progress, len(own), len(lines)),
                **settings,
            )
        except UntranslatableError as error:
            raise UntranslatableError(before + own[error.line]) from error
    return in_order(shares, ranks.all([translation.text for translation in found]), len(lines), "")


def shared_sentences(sentences: Sequence[Sized], tokens: int, size: int) -> list[list[int]]:
    """The indices of the sentences that each rank translates, ascending, without empty ones.

    `batches_of_similar_length` makes of each rank's sentences its batches again: where a batch ends
    depends on its first sentence and its number of sentences alone.
    """
    return [
        sorted(index for batch in share for index in batch)
        for share in shared_batches(sentences, tokens, size)
    ]


def shared_batches(sentences: Sequence[Sized], tokens: int, size: int) -> list[list[list[int]]]:
    """The batches of indices of sentences that each of `size` ranks computes, without empty ones.

    tokens: as for `batches_of_similar_length`. Each batch goes to the rank that has least to do.
    """
    shares: list[list[list[int]]] = [[] for _ in range(size)]
    work = [0] * size
    for batch in batches_of_similar_length(sentences, tokens):
        rank = work.index(min(work))
        shares[rank].append(batch)
        work[rank] += (len(sentences[batch[0]]) + 1) * (len(batch) + _STEP_IN_SENTENCES)
    return shares


def in_order(
    shares: Sequence[Sequence[int]], found: Sequence[Sequence[str]], size: int, other: str
) -> list[str]:
    """[size]: what the ranks have found for the indices of their shares; `other` for the rest."""
    result = [other] * size
    for indices, texts in zip(shares, found, strict=True):
        for i, text in zip(indices, texts, strict=True):
            result[i] = text
    return result


def _as_of_all(progress: Callable[[int], None], own: int, total: int) -> Callable[[int], None]:
    """Count a rank's lines as if the others had come as far with theirs."""
    done = shown = 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        now = done * total // max(own, 1)
        progress(now - shown)
        shown = now

    return advance
