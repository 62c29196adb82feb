"""Hypotheses as their reader gets them: text, pieces, alternatives, attention and alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from npformer.alignment import AlignmentLayer, align, layer_weights
from npformer.attention_maps import attention_maps
from npformer.batch import Batch
from npformer.ensemble import Ensemble
from npformer.hypotheses import Hypothesis
from npformer.search_settings import SearchSettings
from npformer.tokenizer import Tokenizer, TokenizerPair
from npformer.transformer import Transformer
from npformer.translation import Translation, distinct


def described(hypothesis: Hypothesis, tokenizer: Tokenizer) -> Translation:
    """A hypothesis, with its text; tokenizer: of the target."""
    has_ended = len(hypothesis.log_p) > len(hypothesis.ids)
    return Translation(
        tokenizer.decode(hypothesis.ids),
        hypothesis.score,
        tokens=tuple(tokenizer.pieces([*hypothesis.ids, *[tokenizer.end_id] * has_ended])),
        token_log_p=tuple(hypothesis.log_p),
    )


def ranked(
    hypotheses: Sequence[Hypothesis], tokenizer: Tokenizer, settings: SearchSettings
) -> list[tuple[Translation, list[int]]]:
    """As many translations as are asked for, of different texts, and their token ids."""
    pairs = [(described(h, tokenizer), h.ids) for h in hypotheses]
    if not settings.sampling:
        pairs = distinct(pairs, lambda pair: pair[0].text)
    return pairs[: settings.alternatives]


def looked_at(
    model: Transformer | Ensemble,
    tokenizers: TokenizerPair,
    translation: Translation,
    source: list[int],
    target: list[int],
    *,
    attention: bool,
    alignment: AlignmentLayer | None,
) -> Translation:
    """The translation with its attention weights, its alignment, or as it is.

    source and target: its token ids, without begin and end.
    """
    if not attention and alignment is None:
        return translation
    batch = Batch.of([source], [target], **tokenizers.control_ids)
    maps = attention_maps(model, batch)[0]
    source_pieces = tuple(tokenizers.source.pieces(batch.source.tokens))
    predicted = tuple(tokenizers.target.pieces(batch.target_output.tokens))
    if alignment is not None:
        weights = layer_weights(maps, alignment)
        translation = replace(
            translation, alignment=align(weights, source_pieces[:-1], predicted[:-1])
        )
    return replace(
        translation,
        attention=maps if attention else None,
        source_pieces=source_pieces,
        target_pieces=tuple(tokenizers.target.pieces(batch.target_input.tokens)),
        predicted_pieces=predicted,
    )
