"""Long-range dependence: how much of an output's gradient comes from how far away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autograd import Tape, Tensor
from npformer.batch import Batch
from npformer.transformer import Transformer
from train.experiments.page import Picture, Table
from train.experiments.why.finding import Finding
from train.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_by_distance(
    model: Transformer, batches: Sequence[Batch], longest: int, draws: int, seed: int = 0
) -> list[float]:
    """How large the encoder's gradient is at each distance, from 0 to `longest` tokens.

    The norm of ∂(r·yᵢ)/∂xⱼ for random directions r, where y are the outputs and x the embedded
    tokens, is averaged over all pairs at the distance |i - j|, and divided by that at distance 0.
    It ends before the first distance that no pair has, as where all sentences are shorter.
    draws: how often an output token is drawn of each sentence.
    """
    rng = np.random.default_rng(seed)
    sums, counts = np.zeros(longest + 1), np.zeros(longest + 1)
    for batch in batches:
        sentences = batch.source.sentences
        x = Tensor(model.source_embedding(batch.source.tokens, sentences).value)
        for _ in range(draws):
            # One output of every sentence: none has a gradient in another.
            chosen = sentences.offsets[:-1] + (
                rng.random(len(sentences)) * sentences.lengths
            ).astype(int)
            direction = np.zeros_like(x.value)
            direction[chosen] = rng.standard_normal((len(chosen), x.shape[1]))
            with Tape() as tape:
                y = model.encoder(x, sentences)
            [gradient] = tape.backward(y, wanted=[x], gradient=direction)
            distance = abs(np.arange(len(gradient)) - np.repeat(chosen, sentences.lengths))
            near = distance <= longest
            norms = np.linalg.norm(gradient, axis=1)
            np.add.at(sums, distance[near], norms[near])
            np.add.at(counts, distance[near], 1)
    ends = int(np.append(counts, 0).argmin())  # a distance without a pair, or past the last
    means = sums[:ends] / counts[:ends]
    return (means / means[0]).tolist()


NEAR, FAR = 3, 5  # words
_ENOUGH = 10  # pairs at a distance, for it to be drawn
_FARTHER = 1.1  # times as large a gradient, at least


def finding(models: Mapping[str, Mapping[str, Any]]) -> Finding:
    """Whether self-attention carries gradients and agreement farther than a recurrence.

    models: of each its "gradient" by distance, its "agreement" as (distance, pairs, accuracy), and
    its "perplexity" on the test sentences
    """

    def draw() -> Figure:
        figure = new_figure((8, 3.2))
        left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
        for name, of_model in models.items():
            left.plot(of_model["gradient"], "o-", label=name, markersize=3)
            # A handful of pairs says nothing about a distance.
            enough = [(n, share) for n, pairs, share in of_model["agreement"] if pairs >= _ENOUGH]
            right.plot([n for n, _ in enough], [share for _, share in enough], "o-", markersize=3)
        left.set_yscale("log")
        left.set_xlabel("distance of output and input, tokens")
        left.set_ylabel("gradient, by that at 0")
        right.set_xlabel("distance of verb and subject, words")
        right.set_ylabel("agreement is right")
        right.set_ylim(min(0.5, *right.get_ylim()), 1.02)  # half of them would be right by chance
        right.locator_params(axis="x", integer=True)
        left.legend()
        return figure

    attention = models["self-attention"]
    last = {name: of["gradient"][-1] for name, of in models.items()}
    far = {name: accuracy_between(of["agreement"], FAR, None) for name, of in models.items()}
    near = _share(attention["agreement"], 0, NEAR)
    distance = len(attention["gradient"]) - 1
    pairs = pairs_between(attention["agreement"], FAR, None)
    farther = last["self-attention"] > _FARTHER * last["recurrence"]
    lead = far["self-attention"] - far["recurrence"]
    separated = abs(lead) > 2 * math.sqrt(sum(a * (1 - a) for a in far.values()) / max(pairs, 1))
    return Finding(
        "Long-range dependence",
        "a short path between any two positions makes it easier to learn what depends on what is "
        "far away.",
        f"at a distance of {distance} tokens the gradient has {last['self-attention']:.1%} of its "
        f"size at distance 0 with self-attention, and {last['recurrence']:.1%} with a recurrence "
        "in its place; "
        + (
            f"verbs agree with subjects that are at least {FAR} words away in "
            f"{far['self-attention']:.1%} and {far['recurrence']:.1%} of {pairs} pairs, which "
            f"{'differ by more' if separated else 'do not differ by more'} than two standard errors"
            if pairs
            else f"no verb is {FAR} words or more away from its subject in these sentences"
        ),
        "yes"
        if farther and separated and lead > 0
        else "in part"
        if farther or (separated and lead > 0)
        else "no",
        [
            "Two models of the same sizes, one with self-attention and one with a recurrence in "
            "its place, in both directions in the encoder; both have cross-attention. It is a "
            "plain recurrence, h = tanh(xW + h'U + b), without the gates that would let it carry "
            "farther. Both were trained alike: perplexity on the test sentences is "
            + " and ".join(f"{of['perplexity']:.3f} with {name}" for name, of in models.items())
            + ".",
            "On the left the gradient of the encoder's outputs by the embedded tokens, mean norm "
            "by distance. On the right how often a German verb in the right number is likelier "
            "than the same in the wrong one, in the reference translation, by its distance from "
            f"the subject, where there are {_ENOUGH} pairs or more.",
            Picture("why-dependence", "gradient and agreement by distance", draw),
            Table(
                ["distance in words", "pairs", *models],
                [
                    [
                        label,
                        str(pairs_between(attention["agreement"], low, high)),
                        *(_share(of["agreement"], low, high) for of in models.values()),
                    ]
                    for label, low, high in (
                        ("1 or 2", 1, 2),
                        ("3 or 4", 3, 4),
                        (f"{FAR} or more", FAR, None),
                    )
                ],
            ),
            f"Up to {NEAR} words away, self-attention is right in {near}.",
        ],
    )


Agreement = Sequence[tuple[int, int, float]]


def pairs_between(agreement: Agreement, low: int, high: int | None) -> int:
    """How many pairs have a distance in this range; high: None for no end."""
    return sum(pairs for d, pairs, _ in agreement if low <= d and (high is None or d <= high))


def accuracy_between(agreement: Agreement, low: int, high: int | None) -> float:
    """The accuracy of the pairs with a distance in this range; NaN if there are none."""
    chosen = [(n, a) for d, n, a in agreement if low <= d and (high is None or d <= high)]
    pairs = sum(n for n, _ in chosen)
    return sum(n * a for n, a in chosen) / pairs if pairs else math.nan


def _share(agreement: Agreement, low: int, high: int | None) -> str:
    """The same as text; – if there are no pairs."""
    found = accuracy_between(agreement, low, high)
    return "–" if math.isnan(found) else f"{found:.1%}"
