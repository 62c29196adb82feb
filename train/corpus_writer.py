"""Writes the parts of a corpus directory: token ids, the validation text, the manifest."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npformer.errors import UserError
from npformer.files import atomic_write
from npformer.tokenizer import TokenizerPair
from train.arrays import SentencesWriter
from train.manifest import CONTENTS, OURS, OtherVersionError, checksums, read_manifest, signature
from train.text import PathLike, TextFile, read_parallel

logger = logging.getLogger("npformer")

# Lines to encode at a time: enough to keep SentencePiece's threads busy.
_CHUNK = 10_000

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total), in lines; stages are "vocabulary", "train", "valid"."""


def write_split(
    directory: Path,
    split: str,
    sources: list[TextFile],
    targets: list[TextFile],
    tokenizers: TokenizerPair,
    max_length: int,
    report: Progress,
) -> dict[str, Any]:
    """Write the token ids of a split. Returns its entry in the manifest."""
    total = sum(file.lines for file in sources)
    pairs = read_parallel([file.path for file in sources], [file.path for file in targets])
    empty = too_long = done = 0
    with (
        SentencesWriter(directory, f"{split}.source", tokenizers.source.vocab_size) as source_out,
        SentencesWriter(directory, f"{split}.target", tokenizers.target.vocab_size) as target_out,
    ):
        while chunk := list(itertools.islice(pairs, _CHUNK)):
            report(split, done, total)
            encoded = zip(
                tokenizers.source.encode_lines([source for source, _ in chunk]),
                tokenizers.target.encode_lines([target for _, target in chunk]),
                strict=True,
            )
            kept = []
            for pair in encoded:
                shorter, longer = sorted(map(len, pair))
                if shorter == 0:
                    empty += 1
                elif longer > max_length:
                    too_long += 1
                else:
                    kept.append(pair)
            source_out.append([source for source, _ in kept])
            target_out.append([target for _, target in kept])
            done += len(chunk)
    report(split, done, total)
    dropped = f"{empty} empty on a side, {too_long} longer than {max_length} tokens"
    if empty + too_long == total:
        raise UserError(f"no pair of the {split} text is left: of {total}, {dropped}")
    if empty + too_long:
        logger.warning("%s: %d of %d pairs dropped: %s", split, empty + too_long, total, dropped)
    return {
        "pairs": total - empty - too_long,
        "source_tokens": source_out.tokens,
        "target_tokens": target_out.tokens,
        "dropped": {"empty": empty, "too_long": too_long},
    }


def write_text(directory: Path, sources: list[PathLike], targets: list[PathLike]) -> None:
    """Write the validation text, with uniform line ends."""
    with (
        atomic_write(directory / "valid.source.txt") as source_file,
        atomic_write(directory / "valid.target.txt") as target_file,
    ):
        for source, target in read_parallel(sources, targets):
            source_file.write(source.encode() + b"\n")
            target_file.write(target.encode() + b"\n")


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
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file; choose a directory for the corpus")
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
        raise UserError(f"{out} already holds a prepared corpus; choose another, or overwrite it")
    if foreign := sorted(names - OURS):
        raise UserError(
            f"{out} also holds {foreign[0]!r}, which is not part of the corpus; move it away"
        )
    for path in out.iterdir():
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is not a file of a corpus; move it away")
