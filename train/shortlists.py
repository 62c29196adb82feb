"""Learning a shortlist of the target vocabulary from parallel text."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autograd import Sentences
from npformer.checkpoint import load_tokenizers
from npformer.errors import UserError
from npformer.packed import Packed
from npformer.shortlist import Shortlist
from npformer.tokenizer import TokenizerPair
from train.corpora.corpus import Corpus
from train.corpora.sentences import ParallelTokens
from train.corpora.text import PathLike, TextFile, read_lines, survey_parallel
from train.ibm_model1 import Lexicon, learn_lexicon

ITERATIONS = 5
_LONGEST = 256  # tokens of a sentence that is learned from, as for `prepare`
_LINES = 10_000  # that are tokenised at a time
_LEAST = 1e-6  # a probability of the lexicon; those below it would be the last candidates
_LOOKED_AT = 1000  # pairs that the coverage is measured on
_SPACE = "\u2581"


class Coverage(NamedTuple):
    """What a shortlist comes to.

    Attributes:
        candidates: of a source sentence, on average
        share: of the target tokens, how many are candidates of their sources; of pairs that it was
            learned from nearly all are
    """

    candidates: float
    share: float


def learn_shortlist(
    pairs: ParallelTokens,
    tokenizers: TokenizerPair,
    *,
    best: int = 50,
    frequent: int = 500,
    progress: Callable[[float], object] = lambda log_p: None,
) -> Shortlist:
    """A shortlist from sentence pairs, as token ids without ends.

    The candidates for a source token are the `best` likeliest of its translations by IBM Model 1,
    and the tokens of the target with its text, with and without a space before it: names and
    numbers are copied. Those for every sentence are the `frequent` most frequent target tokens,
    the end, the unknown token, digits and punctuation marks.
    progress: as for `learn_lexicon`. Raises UserError if there is nothing to learn from.
    """
    for name, number in (("best", best), ("frequent", frequent)):
        if number < 0:
            raise UserError(f"--{name} must be at least 0; it is {number}")
    if not len(pairs):
        raise UserError("there are no sentence pairs to learn a shortlist from")
    source, target = tokenizers.source, tokenizers.target
    lexicon = learn_lexicon(
        pairs.sources,
        pairs.targets,
        source.vocab_size,
        target.vocab_size,
        iterations=ITERATIONS,
        least=_LEAST,
        progress=progress,
    )
    source_pieces, target_pieces = (t.pieces(range(t.vocab_size)) for t in (source, target))
    counts = np.bincount(pairs.targets.tokens, minlength=target.vocab_size)
    of_all = [target.end_id, target.unknown_id]
    of_all += np.argsort(-counts, kind="stable")[:frequent].tolist()
    of_all += [i for i, piece in enumerate(target_pieces) if _is_sign(piece)]
    always = np.unique(of_all).astype(np.int32)
    of_tokens = np.concatenate(
        [_likeliest(lexicon, best, source.vocab_size), _copies(source_pieces, target_pieces)]
    )
    others = np.unique(of_tokens[~np.isin(of_tokens[:, 1], always)], axis=0)
    lengths = np.bincount(others[:, 0], minlength=source.vocab_size)
    of_source = Packed(others[:, 1].astype(np.int32), Sentences(lengths))
    return Shortlist(always, of_source, target.vocab_size)


def _likeliest(lexicon: Lexicon, best: int, none: int) -> NDArray[np.int64]:
    """[n, 2]: a source token, and one of its likeliest translations."""
    targets, sources, probabilities = lexicon
    order = np.lexsort((targets, -probabilities, sources))
    sources, targets = sources[order], targets[order]
    rank = np.arange(len(sources)) - np.searchsorted(sources, sources)
    chosen = (rank < best) & (sources != none)
    return np.stack([sources[chosen], targets[chosen]], axis=1).astype(np.int64)


def _copies(sources: Sequence[str], targets: Sequence[str]) -> NDArray[np.int64]:
    """[n, 2]: a source token, and one of the target with the same text, but for its space."""
    ids = {piece: i for i, piece in enumerate(targets)}
    found = [
        (i, ids[same])
        for i, piece in enumerate(sources)
        for same in (piece.removeprefix(_SPACE), _SPACE + piece.removeprefix(_SPACE))
        if same in ids
    ]
    return np.array(found, np.int64).reshape(-1, 2)


def _is_sign(piece: str) -> bool:
    """Whether a piece is a digit or a punctuation mark."""
    character = piece.removeprefix(_SPACE)
    return len(character) == 1 and not character.isalpha()


def coverage(shortlist: Shortlist, pairs: ParallelTokens) -> Coverage:
    """What a shortlist comes to for some of the pairs, evenly chosen."""
    some = evenly(pairs, _LOOKED_AT)
    candidates = covered = 0
    for source, target in zip(some.sources, some.targets, strict=True):
        ids, allowed = shortlist.candidates(Packed.of([source]))
        candidates += int(allowed.sum())
        covered += int(np.isin(target, ids[allowed[0]]).sum())
    return Coverage(candidates / len(some), covered / max(1, len(some.targets.tokens)))


def evenly(pairs: ParallelTokens, most: int) -> ParallelTokens:
    """Every n-th of the pairs, so that there are at most as many, in memory."""
    chosen = np.arange(0, len(pairs), _every(len(pairs), most))
    return ParallelTokens(pairs.sources.take(chosen), pairs.targets.take(chosen))


def pairs_of_corpus(directory: PathLike, model: Path, most: int) -> ParallelTokens:
    """Pairs to learn the shortlist of a model from, of the corpus that it was trained on.

    Raises UserError if the corpus has another vocabulary.
    """
    corpus = Corpus.open(directory)
    if corpus.tokenizers.sha256 != load_tokenizers(model).sha256:
        raise UserError(
            f"the corpus {directory} has another vocabulary than {model}; give the one that it was "
            "trained on, or text"
        )
    return _not_long(evenly(corpus.train, most))


def pairs_of_text(
    sources: Sequence[PathLike],
    targets: Sequence[PathLike],
    tokenizers: TokenizerPair,
    most: int,
    progress: Callable[[int], object] = lambda lines: None,
) -> ParallelTokens:
    """Pairs to learn a shortlist from, of parallel text; at most as many, evenly chosen."""
    with tempfile.TemporaryDirectory() as spool:
        source_files, target_files = survey_parallel(sources, targets, Path(spool))
        every = _every(sum(file.lines for file in source_files), most)
        lines = zip(_lines(source_files), _lines(target_files), strict=True)
        chosen = islice(lines, 0, None, every)
        parts = []
        while some := list(islice(chosen, _LINES)):
            left, right = zip(*some, strict=True)
            parts.append(
                ParallelTokens.of(
                    tokenizers.source.encode_lines(left), tokenizers.target.encode_lines(right)
                )
            )
            progress(len(some) * every)
    return _not_long(ParallelTokens.joined(parts))


def _lines(files: Sequence[TextFile]) -> Iterator[str]:
    return chain.from_iterable(read_lines(file.readable, warn=False) for file in files)


def _every(total: int, most: int) -> int:
    if most < 1:
        raise UserError(f"--pairs must be at least 1; it is {most}")
    return -(-total // most) or 1


def _not_long(pairs: ParallelTokens) -> ParallelTokens:
    """The pairs without those of which a side is empty or very long."""
    shorter = np.minimum(pairs.source_lengths, pairs.target_lengths)
    longer = np.maximum(pairs.source_lengths, pairs.target_lengths)
    chosen = np.flatnonzero((shorter > 0) & (longer <= _LONGEST))
    return ParallelTokens(pairs.sources.take(chosen), pairs.targets.take(chosen))
