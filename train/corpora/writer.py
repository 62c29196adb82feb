"""Writes the parts of a corpus directory: token ids, the validation text, the manifest."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from npformer.directories import check_not_a_file
from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.tokenizer import TokenizerPair
from train.corpora.arrays import SentencesWriter
from train.corpora.blocks import SHARED, Block, shared_hashes
from train.corpora.encoding import Dropped, Encoded
from train.corpora.filters import Filters
from train.corpora.kept_text import KeptTextWriter
from train.corpora.manifest import (
    CONTENTS,
    OURS,
    OtherVersionError,
    checksums,
    read_manifest,
    signature,
)

logger = logging.getLogger("npformer")


def write_split(
    directory: Path,
    split: str,
    encoded: Iterable[Encoded],
    filters: Filters,
    tokenizers: TokenizerPair,
    report: Callable[[int], None],
    keep_text: bool = False,
) -> tuple[dict[str, Any], set[bytes]]:
    """Write the token ids of a split, which come encoded, block by block.

    report: called with the number of pairs that are done. keep_text: whether to write the text of
    the pairs too. Returns the split's entry in the manifest, and what was found of what the encoder
    looked for.
    """
    dropped = {reason: Dropped() for reason in filters.reasons}
    found: set[bytes] = set()
    done = kept = 0
    with (
        SentencesWriter(directory, f"{split}.source", tokenizers.source.vocab_size) as source_out,
        SentencesWriter(directory, f"{split}.target", tokenizers.target.vocab_size) as target_out,
        ExitStack() as stack,
    ):
        texts_out = [
            stack.enter_context(KeptTextWriter(directory, side))
            for side in ("source", "target")
            if keep_text
        ]
        for block in encoded:
            source_out.append(*block.source)
            target_out.append(*block.target)
            for text_out, lines in zip(texts_out, block.text or (), strict=False):
                text_out.append(lines)
            for reason, more in block.dropped.items():
                dropped[reason].add(more)
            found |= block.found
            kept += len(block.source.lengths)
            done += block.lines
            report(done)
    _tell(split, done, kept, dropped, filters)
    entry = {
        "pairs": kept,
        "source_tokens": source_out.tokens,
        "target_tokens": target_out.tokens,
        "dropped": {reason: pairs.count for reason, pairs in dropped.items()},
        "examples": {reason: pairs.examples for reason, pairs in dropped.items() if pairs.examples},
    }
    return entry, found


def _tell(split: str, pairs: int, kept: int, dropped: dict[str, Dropped], filters: Filters) -> None:
    """Say how many pairs were dropped, a line for each reason. Raises UserError if all were."""
    said = {r: f"{dropped[r].count:,} {words}" for r, words in filters.reasons.items()}
    if kept == 0:
        told = ", ".join(said.values())
        raise UserError(f"no pair of the {split} text is left: of {pairs:,}, {told}")
    for reason, words in said.items():
        if dropped[reason].count:
            logger.warning("%s: of %s pairs, dropped %s", split, f"{pairs:,}", words)


def write_text(directory: Path, split: str, blocks: Iterable[Block]) -> dict[str, Counter[bytes]]:
    """Write the text of a split, with uniform line ends. Returns its `shared_hashes`, counted."""
    hashes: dict[str, Counter[bytes]] = {what: Counter() for what in SHARED}
    with (
        atomic_write(directory / f"{split}.source.txt") as source_file,
        atomic_write(directory / f"{split}.target.txt") as target_file,
    ):
        for block in blocks:
            for source, target in zip(*block.pairs(), strict=True):
                source_file.write(source.encode() + b"\n")
                target_file.write(target.encode() + b"\n")
                for what, digest in zip(SHARED, shared_hashes(source, target), strict=True):
                    hashes[what][digest] += 1
    return hashes


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the checksums of all other files and of itself."""
    manifest = manifest | {"contents": checksums(directory)}
    manifest["sha256"] = signature(manifest)
    with atomic_write(directory / "manifest.json") as file:
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        # A path that is not UTF-8 contains surrogates, which JSON writes as \udcff.
        file.write(text.encode(errors="backslashreplace"))


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Raise UserError unless `out` is free, or a prepared corpus and nothing else."""
    check_not_a_file(out, "the corpus")
    if not out.is_dir():
        return
    names = {path.name for path in out.iterdir()}
    if not names:
        return
    try:
        read_manifest(out)
    except OtherVersionError:
        pass
    except UserError as error:
        # The error of a damaged manifest tells the user to prepare the corpus again. That may
        # replace the directory if its other files are those of a corpus.
        if not {"manifest.json", *CONTENTS} <= names <= OURS:
            raise UserError(
                f"{out} is not empty and not a prepared corpus; choose another"
            ) from error
    if not overwrite:
        raise UserError(
            f"{out} already holds a prepared corpus; choose another, or give --overwrite"
        )
    if foreign := sorted(names - OURS):
        raise UserError(
            f"{out} also holds {foreign[0]!r}, which is not part of the corpus; move it away"
        )
    for path in out.iterdir():
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is not a file of a corpus; move it away")
