"""Scale: quality against length, from sentences to documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train.evaluation import bleu, likelihood
from train.experiments.grammar_model import GrammarModel, batches_of, documents


def quality_by_length(made: GrammarModel, sizes: Sequence[int], most: int) -> list[dict[str, Any]]:
    """BLEU and perplexity on the test part, `sizes` sentences at a time, and the mean length.

    most: how many sentences are translated in all, for each size
    """
    found = []
    for size in sizes:
        pairs = documents(made.splits.test[:most], size)
        translations = made.translator.translate([pair.source for pair in pairs], beam=1)
        batches = batches_of(made.translator.tokenizers, pairs)
        found.append(
            {
                "sentences": size,
                "tokens": sum(batch.source.sentences.rows for batch in batches) / len(pairs),
                "bleu": bleu([t.text for t in translations], [p.target for p in pairs]).value,
                "perplexity": likelihood(made.model, batches).perplexity,
            }
        )
    return found
