"""Real text for the tests that need it. It is not part of the project's tree.

NPFORMER_DATA names a folder that holds Multi30k's tokenised files in multi30k/tok; without it, a
folder shared/data beside the checkout is looked for. Where there is neither, these tests are
skipped, and say so.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
_MULTI30K = Path(os.environ.get("NPFORMER_DATA", _BESIDE)) / "multi30k" / "tok"

real_text_is_here = _MULTI30K.is_dir()
needs_real_text = pytest.mark.skipif(
    not real_text_is_here, reason="no real text here: set NPFORMER_DATA to a folder that has it"
)


def multi30k(split: str, language: str, first: int, count: int) -> list[str]:
    """Lines first to first + count of a part of Multi30k: split "train", "val" or
    "test_2016_flickr", language "en", "de" or "fr"."""
    text = (_MULTI30K / f"{split}.lc.norm.tok.{language}").read_text(encoding="utf-8")
    return text.split("\n")[first : first + count]
