"""The tokens in which the paper's BLEU is counted (section 6.1).

As in tensor2tensor's `get_ende_bleu.sh` of June 2017: mosesdecoder's `tokenizer.perl -l de`, then
words that are joined by a hyphen, as many German compounds are, become three tokens. The score is
that of mosesdecoder's `multi-bleu.perl`: of the whole corpus, without smoothing. So it cannot be
compared with sacreBLEU's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import version

_HYPHEN = re.compile(r"(\S)-(\S)")
_SPLIT = r"\1 ##AT##-##AT## \2"


def paper_tokenizer() -> Callable[[str], str]:
    """A function that turns a line of German into its tokens, with spaces between them.

    Needs sacremoses, whose rules for German are those of tokenizer.perl in 2017: later ones split
    the period from an abbreviation at the end of a line.
    """
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer("de")

    def tokens(line: str) -> str:
        return split_compounds(moses.tokenize(line, return_str=True))

    return tokens


def split_compounds(tokens: str) -> str:
    """Hyphens between words as tokens of their own: a rich ##AT##-##AT## text format.

    From left to right, each character counting once: a-b-c becomes a ##AT##-##AT## b-c.
    """
    return _HYPHEN.sub(_SPLIT, tokens)


def tokenizer_signature() -> str:
    """What a score's signature says of these tokens."""
    return f"paper-de-sacremoses.{version('sacremoses')}"
