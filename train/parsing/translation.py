"""A parser that translates: sentences into linearised trees (section 6.3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from npformer.files import atomic_write
from npformer.tokenizer import TokenizerPair
from npformer.translator import Translator
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare
from train.parsing.linearised import Known, linearised, repaired
from train.parsing.source_words import SourceWords
from train.parsing.symbols import symbol_tokenizer
from train.parsing.trees import Node, words


class Parse(NamedTuple):
    """A tree over a sentence, made of what the model has written.

    symbols: as written
    whole: whether they were such a tree already: closed in order, with a tag for each word
    """

    tree: Node
    symbols: list[str]
    whole: bool


def parsing_corpus(
    train: Sequence[Node], valid: Sequence[Node], source: SourceWords, longest: int, out: Path
) -> Corpus:
    """A corpus of sentences and their linearised trees, in `out`; one that is there is opened.

    longest: pairs with more symbols are left out.
    """
    if out.is_dir():
        return Corpus.open(out)
    text = out.with_name(f"{out.name}-text")
    if text.is_dir():  # of a process that was killed
        shutil.rmtree(text)
    text.mkdir()
    for name, trees in (("train", train), ("valid", valid)):
        _write(text / f"{name}.words", (source(words(tree)) for tree in trees))
        _write(text / f"{name}.symbols", (linearised(tree) for tree in trees))
    TokenizerPair(
        symbol_tokenizer(word for tree in train for word in source(words(tree))),
        symbol_tokenizer(symbol for tree in train for symbol in linearised(tree)),
    ).save(text)
    return prepare(
        text / "train.words",
        text / "train.symbols",
        text / "valid.words",
        text / "valid.symbols",
        out,
        tokenizer=text,
        max_length=longest,
    )


def _write(path: Path, lines: Iterable[list[str]]) -> None:
    with atomic_write(path) as file:
        file.writelines(f"{' '.join(line)}\n".encode() for line in lines)


@dataclass(frozen=True)
class TranslationParser:
    """Parses with a model that was trained on a corpus of `parsing_corpus`.

    source, known: of the trees that it was trained on
    search: settings of the search: the fields of SearchSettings
    """

    translator: Translator
    source: SourceWords
    known: Known
    search: dict[str, Any]

    def parse(
        self,
        sentences: Sequence[Sequence[str]],
        batch_tokens: int,
        progress: Callable[[int], None] | None = None,
    ) -> list[Parse]:
        """The tree of each sentence, given as its words; at least one."""
        translations = self.translator.translate(
            [" ".join(self.source(sentence)) for sentence in sentences],
            batch_tokens=batch_tokens,
            long_lines="cut",
            progress=progress,
            **self.search,
        )
        return [
            self._parse(sentence, [t.text.split() for t in (best, *best.alternatives)])
            for sentence, best in zip(sentences, translations, strict=True)
        ]

    def _parse(self, sentence: Sequence[str], written: list[list[str]]) -> Parse:
        """The parse that the best of these hypotheses means, of those that are trees if any is."""
        trees = (symbols for symbols in written if is_whole(symbols, len(sentence)))
        symbols = next(trees, written[0])
        tree = repaired(sentence, symbols, self.known)
        return Parse(tree, symbols, is_whole(symbols, len(sentence)))


def is_whole(symbols: Iterable[str], length: int) -> bool:
    """Whether symbols are a tree over as many words as they are: nothing needs repair."""
    opened: list[str] = []
    is_empty = False  # the constituent that was opened last
    for symbol in symbols:
        if symbol.startswith("("):
            opened.append(symbol[1:])
            is_empty = True
        elif symbol.startswith(")"):
            if is_empty or not opened or opened.pop() != symbol[1:]:
                return False
        else:
            length -= 1
            is_empty = False
    return length == 0 and not opened
