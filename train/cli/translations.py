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
    Pharaoh format, as the last column of text and tsv.
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
        "score": _finite(translation.score),
        "log_p": _finite(translation.log_p),
        "tokens": list(translation.tokens),
        "token_log_p": [_finite(log_p) for log_p in translation.token_log_p],
        **alignment,
    }


def _finite(number: float) -> float | None:
    """None, null in JSON, for -infinity: the log-probability of a token that is never chosen."""
    return number if math.isfinite(number) else None


def _columns(translation: Translation, aligned: bool) -> list[str]:
    return [
        f"{translation.score:.4f}",
        f"{translation.log_p:.4f}",
        " ".join(f"{log_p:.4f}" for log_p in translation.token_log_p),
        _TAB.sub(" ", " ".join(translation.tokens)),
        _TAB.sub(" ", translation.text),
        *([pharaoh(translation.alignment)] if aligned else []),
    ]
