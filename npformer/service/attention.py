"""The attention of every layer and head, as JSON."""

from __future__ import annotations

import json

import numpy as np

from npformer.service.errors import RefusedError
from npformer.service.requests import Attend
from npformer.translator import Translator

_DIGITS = 4


def attention_json(translator: Translator, asked: Attend, most: int) -> bytes:
    """The attention over a text and its translation, or over the one that the model finds.

    most: numbers in the answer. Raises RefusedError if there would be more.
    """
    tokenizers, config = translator.tokenizers, translator.model.config
    source = tokenizers.source.encode(asked.text)
    if not source:
        raise RefusedError(422, "text has no tokens, and there is no attention over nothing")
    _check_length("text", len(source), translator.longest_source)
    if asked.translation is None:
        _check_size(_numbers(translator, len(source), 0), most)
        [found] = translator.translate([asked.text], long_lines="refuse", attention=True)
    else:
        target = tokenizers.target.encode(asked.translation)
        if config.positions == "learned":
            _check_length("translation", len(target), config.max_length - 1)
        _check_size(_numbers(translator, len(source), len(target)), most)
        [found] = translator.score([asked.text], [asked.translation], attention=True)
    assert found.attention is not None
    maps = {name: getattr(found.attention, name) for name in ("encoder", "decoder", "cross")}
    _check_size(sum(array.size for array in maps.values()), most)
    told = {
        "text": found.text,
        "source": found.source_pieces,
        "target": found.target_pieces,
        "predicted": found.predicted_pieces,
        **{name: np.round(array.astype(float), _DIGITS).tolist() for name, array in maps.items()},
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _numbers(translator: Translator, source: int, target: int) -> int:
    """The attention weights of all layers and heads over so many tokens, without begin and end."""
    config, n, m = translator.model.config, source + 1, target + 1
    return config.heads * (config.layers * n * n + config.decoder_depth * m * (m + n))


def _check_size(numbers: int, most: int) -> None:
    if numbers > most:
        raise RefusedError(
            413,
            f"there are {numbers:,} attention weights, and at most {most:,} are told at once; give "
            "a shorter sentence",
        )


def _check_length(name: str, tokens: int, longest: int) -> None:
    if tokens > longest:
        raise RefusedError(
            413,
            f"{name} has {tokens:,} tokens, more than the {longest:,} that the model takes at "
            "once; give a shorter sentence",
        )
