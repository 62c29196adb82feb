"""How translations are written: as text, as tab-separated columns, or as JSON."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

from npformer.alignment import pharaoh
from npformer.translation import Translation

Format = Literal["text", "tsv", "json"]

_TAB = re.compile("[\t\r\n]")


def written(
    translation: Translation, number: int, form: Format, n_best: int, aligned: bool = False
) -> str:
    """What is written for line `number`, with its line feeds.

    text: a line for each of the n best; empty lines where there are fewer. tsv: a line for each
    that there is: line, rank, score, log P, log P of each token, the tokens, and the text; tokens
    are separated by spaces. json: one object. With `aligned`, there is the alignment too, in the
    Pharaoh format, as the last column of text and tsv. What has no probability has -inf in tsv, and
    null in json.
    """
    if form == "json":
        best, *others = (_as_json(ranked, aligned) for ranked in translation.ranked)
        return json.dumps({"line": number, **best, "alternatives": others}, ensure_ascii=False) + (
            "\n"
        )
    if form == "tsv":
        return "".join(
            "\t".join([str(number), str(rank), *_columns(ranked, aligned)]) + "\n"
            for rank, ranked in enumerate(translation.ranked, start=1)
        )
    texts = [
        f"{ranked.text}\t{pharaoh(ranked.alignment)}" if aligned else ranked.text
        for ranked in translation.ranked
    ]
    return "".join(f"{text}\n" for text in texts + ["\t" * aligned] * (n_best - len(texts)))


def _as_json(translation: Translation, aligned: bool) -> dict[str, Any]:
    alignment = {"alignment": pharaoh(translation.alignment)} if aligned else {}
    return {
        "text": translation.text,
        "score": _number(translation.score),
        "log_p": _number(translation.log_p),
        "tokens": list(translation.tokens),
        "token_log_p": [_number(log_p) for log_p in translation.token_log_p],
        **alignment,
    }


def _number(value: float) -> float | None:
    """A number as JSON may have it. The logarithm of 0, of a token never chosen, is null."""
    return value if math.isfinite(value) else None


def _columns(translation: Translation, aligned: bool) -> list[str]:
    return [
        f"{translation.score:.4f}",
        f"{translation.log_p:.4f}",
        " ".join(f"{log_p:.4f}" for log_p in translation.token_log_p),
        _TAB.sub(" ", " ".join(translation.tokens)),
        _TAB.sub(" ", translation.text),
        *([pharaoh(translation.alignment)] if aligned else []),
    ]
