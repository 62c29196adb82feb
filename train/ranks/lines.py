"""Lines that are translated or scored, shared out over ranks.

A process alone sorts lines into batches of similar length. Ranks compute the same batches, whole,
so that the result of each line is the same to the last bit: what a matrix product gives for a row
may depend on how many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from itertools import chain

from npformer.alignment import AlignmentLayer
from npformer.batch import batches_of_similar_length
from npformer.long_lines import LongLines
from npformer.search_settings import SearchSettings
from npformer.sentence_translator import source_tokens
from npformer.translation import Translation
from npformer.translator import Translator
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
    settings: SearchSettings,
    shortlist: bool = False,
    batch_tokens: int = 4096,
    long_lines: LongLines = "split",
    longest: int | None = None,
    alignment: AlignmentLayer | None = None,
    prefixes: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
    before: int = 0,
) -> Iterator[list[Translation]]:
    """The translations of lines, in order, as many at a time as are complete, on all ranks.

    All ranks call it with the same lines, and take all that it yields. Of several, it yields
    everything at once. before: how many lines have come before them, for messages. Raises UserError
    on all ranks, after the translations of all lines before one that is refused.
    """
    numbers = range(before + 1, before + 1 + len(lines))
    divided = translator.divide(lines, numbers, long_lines, prefixes, longest)
    find = partial(
        translator.found,
        divided,
        settings,
        shortlist=shortlist,
        batch_tokens=batch_tokens,
        alignment=alignment,
    )
    if ranks.size == 1:
        yield from divided.translations(find(), progress)
    else:
        tokens = source_tokens(batch_tokens, settings.rows)
        own = shared_sentences(divided.sentences, tokens, ranks.size)[ranks.rank]
        advance = progress and _as_of_all(progress, len(own), len(lines))
        mine = []
        with ranks.together():
            for found in find(chosen=own):
                mine.append(found)
                if advance:
                    advance(1)
        everything = chain.from_iterable(ranks.all(mine))
        yield list(chain.from_iterable(divided.translations(everything)))
    if divided.refusal:
        with ranks.together():
            raise divided.refusal


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
