"""The vocabulary of linearised trees: a token for each symbol."""

from __future__ import annotations

import io
from collections.abc import Iterable

import sentencepiece

from npformer.tokenizer import Tokenizer


def symbol_tokenizer(symbols: Iterable[str]) -> Tokenizer:
    """A tokenizer of lines of symbols with spaces between them, each of which becomes one token.

    symbols: all that there are; another becomes the unknown token.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sorted(set(symbols))),
        model_writer=model,
        model_type="word",
        vocab_size=1 << 16,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        pad_id=-1,
        minloglevel=2,
    )
    return Tokenizer(model.getvalue())
