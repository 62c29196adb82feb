"""Scale: quality against length, from sentences to documents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from train.evaluation import bleu, likelihood
from train.experiments.grammar_model import GrammarModel, batches_of, documents
from train.experiments.page import Picture, Table
from train.experiments.why.finding import Finding, Verdict
from train.figures import new_figure

_MOST, _HALF = 0.9, 0.5  # of the BLEU of single sentences: it lasts, and it lasts in part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def quality_by_length(made: GrammarModel, sizes: Sequence[int], most: int) -> list[dict[str, Any]]:
    """BLEU and perplexity on the test part, `sizes` sentences at a time, and the mean length.

    most: how many sentences are translated in all, for each size
    """
    found = []
    for size in sizes:
        pairs = documents(made.splits.test[:most], size)
        batches = batches_of(made.translator.tokenizers, pairs)
        translations = made.translator.translate(
            [pair.source for pair in pairs],
            beam=1,
            longest=max(batch.source.sentences.longest for batch in batches),  # in one part
        )
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
    farther = (
        "; longer documents were not translated"
        if beyond is None
        else f", and {kept(beyond):.0%} at {beyond['sentences']}, which it has not seen"
    )
    others = "".join(
        f"; a model that was trained on {name} has BLEU {p['bleu']:.1f} at {p['sentences']}, where "
        f"this one has {seen['bleu']:.1f}"
        for name, of_other in curves.items()
        for p in of_other
        if name != longest and p["sentences"] == seen["sentences"]
    )
    measured = (
        f"trained on up to {trained[longest]} sentences together it keeps {kept(seen):.0%} of its "
        f"BLEU at {seen['sentences']}{farther}{others}"
    )
    verdict: Verdict
    if not curve[0]["bleu"]:
        measured = "the model of documents has a BLEU of 0 on single sentences"
        verdict = "not measured"
    elif kept(seen) > _MOST and beyond is not None and kept(beyond) > _MOST:
        verdict = "yes"
    else:
        verdict = "in part" if kept(seen) > _HALF else "no"
    return Finding(
        "Scale",
        "the same architecture serves from sentences to documents.",
        measured,
        verdict,
        [
            "All models were trained for as many steps on as many tokens at a time: that of "
            f"documents on {', '.join(map(str, range(1, trained[longest])))} and "
            f"{trained[longest]} sentences together, as many sentences each way, so that it has "
            "seen each length less often. Whether more training would make up for that was not "
            f"measured. It holds if it keeps {_MOST:.0%} of its BLEU at lengths of training and "
            f"beyond, and in part if it keeps {_HALF:.0%} at the longest of training.",
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
