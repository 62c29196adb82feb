"""Scale: quality against length, from sentences to documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from train.evaluation import bleu, likelihood
from train.experiments.grammar_model import GrammarModel, batches_of, documents
from train.experiments.page import Picture, Table
from train.experiments.why.finding import Finding
from train.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


def finding(
    curves: Mapping[str, Sequence[Mapping[str, Any]]], trained: Mapping[str, int]
) -> Finding:
    """Whether quality lasts from sentences to documents.

    curves: what `quality_by_length` returns of each model, by rising sizes from 1 on. trained: the
    most sentences that it has seen together.
    """

    def draw() -> Figure:
        figure = new_figure((6, 3.4))
        axes = figure.add_subplot()
        for number, (name, curve) in enumerate(curves.items()):
            axes.plot(
                [point["tokens"] for point in curve],
                [point["bleu"] for point in curve],
                "o-",
                color=f"C{number}",
                label=f"trained on {name}",
            )
            longest = max(p["tokens"] for p in curve if p["sentences"] <= trained[name])
            axes.axvline(longest, color=f"C{number}", linestyle=":")
        axes.set_xscale("log")
        axes.set_xlabel("source tokens, mean (dotted: the longest in training)")
        axes.set_ylabel("BLEU")
        axes.set_ylim(0, 100)
        axes.legend()
        return figure

    longest = max(trained, key=lambda name: trained[name])
    curve = curves[longest]

    def kept(point: Mapping[str, Any]) -> float:
        """BLEU by that of a sentence."""
        return float(point["bleu"] / (curve[0]["bleu"] or math.nan))

    seen = [p for p in curve if p["sentences"] <= trained[longest]][-1]
    beyond = curve[-1] if curve[-1]["sentences"] > trained[longest] else None
    within = kept(seen)
    farther = (
        "; longer documents were not translated"
        if beyond is None
        else f", and {kept(beyond):.0%} at {beyond['sentences']}, which it has not seen"
    )
    return Finding(
        "Scale",
        "the same architecture serves from sentences to documents.",
        f"trained on up to {trained[longest]} sentences together it keeps {within:.0%} of its BLEU "
        f"at {seen['sentences']}{farther}",
        "no" if not within > 0.9 else "yes" if beyond and kept(beyond) > 0.9 else "in part",
        [
            Picture("why-scale", "BLEU by the number of tokens that are translated together", draw),
            Table(
                ["trained on", "sentences", "tokens", "BLEU", "perplexity"],
                [
                    [
                        name + (" (not seen so long)" if p["sentences"] > trained[name] else ""),
                        str(p["sentences"]),
                        f"{p['tokens']:.0f}",
                        f"{p['bleu']:.1f}",
                        f"{p['perplexity']:.2f}",
                    ]
                    for name, curve in curves.items()
                    for p in curve
                ],
            ),
        ],
    )
