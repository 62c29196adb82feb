"""A prepared corpus: parallel text as token ids on disk, memory-mapped and never loaded whole.

corpus/
  tokenizer.spm               or, if each language has its own, source.spm and target.spm, and
                              *.vocab.json with those of an imported model
  train.source.tokens.npy     [tokens], uint16 or uint32: all sentences, packed
  train.source.offsets.npy    [pairs + 1], int64: where each begins
  ...                         the same for train.target, valid.source and valid.target
  valid.source.txt            all lines of the text, for BLEU
  valid.target.txt
  train.source.txt            on request, the text of the pairs, for other segmentations of it,
  train.source.lines.npy      [pairs + 1], int64: where each line begins, in bytes
  ...                         the same for train.target
  manifest.json               written last: what is here, and what it was made from

The manifest holds the SHA-256 of every other file, and of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from autograd import Sentences
from npformer.errors import UserError
from npformer.packed import Packed
from npformer.reading import open_plain
from npformer.tokenizer import TokenizerPair
from train.corpora import kept_text
from train.corpora.arrays import OFFSETS, check_offsets, ids_dtype, open_array, read_array
from train.corpora.kept_text import KeptText
from train.corpora.manifest import (
    CONTENTS,
    check_contents,
    damaged,
    read_manifest,
    signature,
    told_as_damage,
)
from train.corpora.sentences import ParallelTokens
from train.corpora.text import PathLike


@dataclass(frozen=True, eq=False)
class Corpus:
    """A prepared corpus, open for reading."""

    directory: Path
    train: ParallelTokens
    valid: ParallelTokens
    tokenizers: TokenizerPair
    manifest: dict[str, Any]

    @classmethod
    def open(cls, directory: PathLike) -> Corpus:
        """Open a directory that `prepare` wrote.

        Raises UserError if it is missing, foreign or of a later version, or if files are truncated
        or do not belong together.
        """
        directory = Path(directory)
        manifest = read_manifest(directory)
        with told_as_damage(directory):
            tokenizers = TokenizerPair.load(directory, manifest["tokenizers"])
        check_contents(directory, manifest)
        vocabularies = {
            "source": tokenizers.source.vocab_size,
            "target": tokenizers.target.vocab_size,
        }

        def split(name: str) -> ParallelTokens:
            facts = manifest["splits"][name]
            source, target = (
                _open_sentences(
                    directory,
                    f"{name}.{side}",
                    facts[f"{side}_tokens"],
                    facts["pairs"],
                    vocabularies[side],
                )
                for side in ("source", "target")
            )
            return ParallelTokens(source, target)

        return cls(directory, split("train"), split("valid"), tokenizers, manifest)

    @property
    def longest_source(self) -> int:
        """The most tokens of a source sentence that is trained on, without the end."""
        return self.train.longest["source"][0]

    def train_text(self) -> tuple[KeptText, KeptText]:
        """The text of the training pairs, source and target.

        Raises UserError if the corpus does not hold it.
        """
        if not set(kept_text.FILES) <= set(self.manifest["contents"]):
            raise UserError(
                f"the corpus {self.directory} holds no text to sample segmentations of: prepare it "
                "with --keep-text, or train without sampling"
            )
        with told_as_damage(self.directory):
            source = KeptText.open(self.directory, "source", len(self.train))
            target = KeptText.open(self.directory, "target", len(self.train))
        return source, target

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 of all that training depends on: token ids, validation text and tokenizers.

        Where its text has come from does not count, nor what else the manifest says.
        """
        contents = {name: self.manifest["contents"][name] for name in CONTENTS}
        return signature({"contents": contents, "tokenizers": self.manifest["tokenizers"]})

    def has_fingerprint(self, known: str) -> bool:
        """Whether this is the corpus with a fingerprint; older runs have that of its manifest."""
        return known in (self.fingerprint, signature(self.manifest))

    def valid_text(self) -> tuple[list[str], list[str]]:
        """The validation text, source and target, with the pairs that `valid` has dropped.

        It is read once: another corpus may come to the same directory while a run goes on.
        """
        return self._valid_text

    @cached_property
    def _valid_text(self) -> tuple[list[str], list[str]]:
        return self._valid_lines("source"), self._valid_lines("target")

    def _valid_lines(self, side: str) -> list[str]:
        """All lines, as `prepare` has written them: without marks of other systems to leave out."""
        name = f"valid.{side}.txt"
        try:
            with open_plain(self.directory / name) as file:
                return file.read().decode().split("\n")[:-1]
        except OSError as error:
            raise damaged(self.directory, f"{name} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise damaged(self.directory, f"{name} has been altered") from error


def _open_sentences(directory: Path, name: str, tokens: int, pairs: int, vocab_size: int) -> Packed:
    """Memory-map sentences, and check them against the manifest."""
    ids_path, offsets_path = (directory / f"{name}.{a}.npy" for a in ("tokens", "offsets"))
    kind = ids_dtype(vocab_size)
    with told_as_damage(directory):
        ids = open_array(ids_path, kind, tokens)
        offsets = open_array(offsets_path, OFFSETS, pairs + 1)
        check_offsets(offsets_path, pairs + 1, tokens)
        if any(part.max() >= vocab_size for part in read_array(ids_path, kind, tokens)):
            raise UserError(f"{ids_path.name} has token ids beyond its vocabulary")
    return Packed(ids, Sentences.between(offsets))
