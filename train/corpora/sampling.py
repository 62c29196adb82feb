"""Another segmentation of the training text in each epoch: subword regularisation, BPE-dropout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autograd import Sentences
from npformer.packed import Packed
from npformer.segmentation import segmentation
from npformer.tokenizer import TokenizerPair
from train.corpora.arrays import let_go
from train.corpora.batches import BLOCK, Indices
from train.corpora.kept_text import KeptText
from train.corpora.sentences import ParallelTokens


class Sampler:
    """Segments the text of a corpus's pairs at random.

    The token ids of a line depend on the seed, the epoch and the line alone, and not on what was
    sampled before. A sentence that would be longer than the longest of the corpus keeps its usual
    token ids, so that whatever has room for the corpus has room for what is sampled.

    parallel: the corpus. texts: of both sides. strength: of BPE-dropout, the probability that a
    merge is left out; of a unigram vocabulary, the exponent of the segmentations' probabilities.
    """

    def __init__(
        self,
        parallel: ParallelTokens,
        texts: tuple[KeptText, KeptText],
        tokenizers: TokenizerPair,
        strength: float,
        seed: int,
    ) -> None:
        found = [segmentation(t.model, strength) for t in tokenizers.files.values()]
        self._sides = [
            (tokenizer, segments, text, packed, longest)
            for tokenizer, segments, text, packed, (longest, _) in zip(
                (tokenizers.source, tokenizers.target),
                (found[0], found[-1]),
                texts,
                (parallel.sources, parallel.targets),
                parallel.longest.values(),
                strict=True,
            )
        ]
        self._seed = seed

    def sample(self, epoch: int, pairs: Indices) -> ParallelTokens:
        """Pairs of an epoch, sampled. They are whole blocks of the corpus, in any order."""
        sampled = ParallelTokens(*(self._side(epoch, pairs, side) for side in (0, 1)))
        for _, _, text, _, _ in self._sides:
            let_go(text.text, text.offsets)
        return sampled

    def _side(self, epoch: int, pairs: Indices, side: int) -> Packed:
        tokenizer, segments, text, packed, longest = self._sides[side]
        # The order of batches has the streams of [seed, epoch] with a spawn key of one number.
        seeds = np.random.SeedSequence([self._seed, epoch], spawn_key=(0, side))
        key = seeds.generate_state(2, np.uint64)
        tokens: list[NDArray[np.int32]] = []
        lengths: list[int] = []
        for begin in pairs[pairs % BLOCK == 0].tolist():
            end = min(begin + BLOCK, len(packed))
            for pair, line in enumerate(tokenizer.normalized(text.lines(begin, end)), start=begin):
                # Streams of one key, as far from each other as lines of 2 ** 194 numbers.
                random = np.random.Philox(key=key, counter=[0, 0, 0, pair])
                ids = segments.sample(line, random)
                usual = not 0 < len(ids) <= longest
                tokens.append(packed[pair] if usual else np.asarray(ids, np.int32))
                lengths.append(len(tokens[-1]))
        return Packed(np.concatenate(tokens), Sentences(lengths))
