"""Another segmentation of the training text in each epoch: subword regularisation, BPE-dropout."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import numpy as np

from autograd import Sentences
from npformer.errors import UserError
from npformer.packed import Packed
from npformer.segmentation import segmentation
from npformer.tokenizer import TokenizerPair
from train.corpora.arrays import let_go
from train.corpora.batches import BLOCK, Indices
from train.corpora.kept_text import KeptText
from train.corpora.sentences import ParallelTokens
from train.corpora.workers import workers


class Sampler:
    """Segments the text of a corpus's pairs at random.

    The token ids of a line depend on the seed, the epoch and the line alone: not on what was
    sampled before, nor on the number of processes. A sentence that would be longer than the longest
    of the corpus keeps its usual token ids, so that whatever has room for the corpus has room for
    what is sampled.

    parallel: the corpus. texts: of both sides. strength: of BPE-dropout, the probability that a
    merge is left out; of a unigram vocabulary, the exponent of the segmentations' probabilities.
    jobs: processes that segment; with more than one they start when they are needed, and end with
    this object. Raises UserError for a vocabulary of another kind.
    """

    def __init__(
        self,
        parallel: ParallelTokens,
        texts: tuple[KeptText, KeptText],
        tokenizers: TokenizerPair,
        strength: float,
        seed: int,
        jobs: int = 1,
    ) -> None:
        if jobs < 1:
            raise UserError(f"jobs must be at least 1, not {jobs}")
        self._parallel, self._texts = parallel, texts
        self._jobs = min(jobs, -(-len(parallel) // BLOCK))
        for tokenizer in tokenizers.files.values():
            segmentation(tokenizer.model, strength)  # refused here, and not in another process
        longest = [length for length, _ in parallel.longest.values()]
        self._arguments = tokenizers.contents, strength, seed, longest

    def sample(self, epoch: int, pairs: Indices) -> Iterator[ParallelTokens]:
        """Pairs of an epoch, sampled: whole blocks of the corpus, in any order, one at a time.

        What is left of a call that was not finished is dropped by the next one.
        """
        yield from self._segmented(self._blocks(epoch, pairs))
        for text in self._texts:
            let_go(text.text, text.offsets)

    @cached_property
    def _segmented(self) -> Callable[[Iterable[_Block]], Iterator[ParallelTokens]]:
        stack = ExitStack()
        weakref.finalize(self, stack.close)
        return stack.enter_context(workers(_Segmenter, self._arguments, self._jobs))

    def _blocks(self, epoch: int, pairs: Indices) -> Iterator[_Block]:
        source, target = self._texts
        for first in pairs[pairs % BLOCK == 0].tolist():
            end = min(first + BLOCK, len(self._parallel))
            block = np.arange(first, end)
            usual = self._parallel.sources.take(block), self._parallel.targets.take(block)
            yield _Block(epoch, first, (source.lines(first, end), target.lines(first, end)), usual)


class _Block(NamedTuple):
    """Consecutive pairs: the index of the first, and of each side the lines and their usual ids."""

    epoch: int
    first: int
    lines: tuple[list[str], list[str]]
    usual: tuple[Packed, Packed]


class _Segmenter:
    """What a process does with a block.

    tokenizers: the contents of their files
    longest: of each side, the most tokens that a sentence may have.
    """

    def __init__(
        self, tokenizers: Mapping[str, bytes], strength: float, seed: int, longest: Sequence[int]
    ) -> None:
        pair = TokenizerPair.of_contents(tokenizers)
        found = {t: segmentation(t.model, strength) for t in (pair.source, pair.target)}
        self._sides = [(t, found[t]) for t in (pair.source, pair.target)]
        self._seed = seed
        self._longest = longest

    def __call__(self, block: _Block) -> ParallelTokens:
        return ParallelTokens(*(self._side(block, side) for side in (0, 1)))

    def _side(self, block: _Block, side: int) -> Packed:
        tokenizer, segments = self._sides[side]
        # The order of batches has the streams of [seed, epoch] with a spawn key of one number.
        seeds = np.random.SeedSequence([self._seed, block.epoch], spawn_key=(0, side))
        key = seeds.generate_state(2, np.uint64)
        sentences: list[Sequence[int]] = []
        tagged = [tokenizer.split_tag(line) for line in block.lines[side]]
        normalized = tokenizer.normalized([line for _, line in tagged])
        for pair, ((tag, _), line, usual) in enumerate(
            zip(tagged, normalized, block.usual[side], strict=True), start=block.first
        ):
            # Streams of one key, as far from each other as lines of 2 ** 194 numbers.
            random = np.random.Philox(key=key, counter=[0, 0, 0, pair])
            ids = [*tag, *tokenizer.own_ids(segments.sample(line, random))]
            sentences.append(ids if 0 < len(ids) <= self._longest[side] else usual.tolist())
        lengths = Sentences([len(ids) for ids in sentences])
        return Packed(np.fromiter(chain.from_iterable(sentences), np.int32, lengths.rows), lengths)
