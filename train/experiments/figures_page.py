"""The page of Figures 3 to 5: pictures of heads, what each does, and the cost of losing it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from train.experiments.head_examples import Example, different_heads
from train.experiments.head_pictures import lines_between_words
from train.experiments.heads import STATISTICS, Head, Kind
from train.experiments.page import Page, Picture, Section, Table
from train.figures import new_figure
from train.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(
    name: str,
    sentences: int,
    habits: Mapping[Kind, np.ndarray],
    costs: Mapping[str, Any],
    pruned: Sequence[Mapping[str, float]],
    far: Example | None,
    reference: Example | None,
    scaled: Table | None,
) -> Page:
    """What the heads of a model do.

    name, sentences: of the model, and how many were looked at. habits: what `statistics` returns.
    costs: the perplexity with "all" heads, and "without" each. pruned: perplexity and BLEU with
    fewer and fewer "heads". far, reference: the examples of Figures 3 and 4, if there are any.
    scaled: what is smaller than in the paper.
    """
    sections, seen = [], []
    if far is not None:
        sections.append(_figure_3(far))
        seen.append(_who_sees("Figure 3", far))
    if reference is not None:
        sections.append(_figure_4(reference))
        seen.append(_who_sees("Figure 4", reference))
        if len(reference.weights) > 1:
            first, second, apart = different_heads(reference.weights)
            sections.append(_figure_5(reference, first, second))
            seen.append(
                f"heads {first + 1} and {second + 1} of Figure 5 give {apart:.0%} of their weight "
                "to different words"
            )
    by_kind = [of[..., STATISTICS.index("words")].ravel() for of in habits.values()]
    effective = np.concatenate(by_kind)
    most = max(costs["without"].values()) / costs["all"]
    cheap = sum(value < 1.01 * costs["all"] for value in costs["without"].values())
    return Page(
        title="Figures 3 to 5: what attention heads attend to",
        claim="many heads follow the structure of the sentence: they find the distant words that a "
        "verb needs (Figure 3) and what a pronoun stands for (Figure 4), and different heads have "
        "learned to do different things (Figure 5; section 4).",
        measured=f"{name}, {counted(sentences, 'sentence')}. "
        + (f"{'; '.join(seen)}. " if seen else "")
        + f"Of {len(effective)} heads the one with the narrowest view attends to "
        f"{effective.min():.1f} words on average, the one with the widest to "
        f"{effective.max():.1f}. Without one head perplexity is at most {most:.2f} times as high, "
        f"and {cheap} can be taken away one at a time for less than 1 % each.",
        verdict=_verdict(far, reference, max(of.max() / of.min() for of in by_kind)),
        scaled=scaled,
        sections=[*sections, _what_heads_do(habits, costs), _pruning(pruned)],
    )


def _who_sees(figure: str, example: Example) -> str:
    count = len(example.heads_that_see())
    word, other = (_shown(example)[place] for place in (example.word, example.other))
    return (
        f"{figure}: {count} of the {counted(len(example.weights), 'head')} of layer "
        f"{example.layer + 1} {'attends' if count == 1 else 'attend'} from “{word}” to “{other}” "
        "more than to any other word apart from itself"
    )


def _verdict(far: Example | None, reference: Example | None, ratio: float) -> str:
    """Whether heads see what they should in the figures, and whether they differ.

    ratio: of the widest view to the narrowest, of heads of the same kind
    """
    examples = {"Figure 3": far, "Figure 4": reference}
    if any(e is not None and not e.relation for e in examples.values()):
        return (
            "Not decided: what belongs together in these sentences is not known. The figures show "
            "the distant words that heads give the most weight."
        )
    missing = [name for name, e in examples.items() if e is None]
    blind = [name for name, e in examples.items() if e is not None and not e.heads_that_see()]
    differ = ratio > 2
    if not missing and not blind and differ:
        return (
            "Yes, in these examples, which are chosen as the clearest; how often heads are right, "
            "`npformer experiment why` counts."
        )
    failed = [f"no sentence has what {' and '.join(missing)} shows"] if missing else []
    failed += [f"no head sees what it should in {' and '.join(blind)}"] if blind else []
    failed += [] if differ else ["all heads of a kind see about as many words"]
    return f"Not here: {'; '.join(failed)}."


def _shown(example: Example) -> list[str]:
    return [piece.replace("\u2581", "") for piece in example.translation.source_pieces]


def _figure_3(example: Example) -> Section:
    heads = dict(enumerate(example.weights))
    title = f"encoder, layer {example.layer + 1}: all heads, from “{_shown(example)[example.word]}”"
    return Section(
        "Figure 3: a word and a distant one" + (" that it needs" if example.relation else ""),
        [
            Picture(
                "figures-3",
                title,
                lambda: lines_between_words(
                    {title: heads}, _shown(example), _names(heads), of=example.word
                ),
                _KINDS_OF_FILES,
            ),
            _about_lines(example),
        ],
    )


def _figure_4(example: Example) -> Section:
    best = np.argsort(-example.weights[:, example.word, example.other], kind="stable")[:2]
    heads = {int(head): example.weights[head] for head in best}
    layer, word = example.layer + 1, _shown(example)[example.word]

    def panel(of: int | None) -> Figure:
        titles = {f"encoder, layer {layer}, head {head + 1}": {head: heads[head]} for head in heads}
        alone = {f"encoder, layer {layer}, from “{word}” alone": heads}
        return lines_between_words(
            titles if of is None else alone, _shown(example), _names(heads), of=of
        )

    return Section(
        "Figure 4: "
        + ("what a word stands for" if example.relation else "a word, and all of them"),
        [
            Picture(
                "figures-4-all",
                f"two heads of layer {layer}, from all words",
                lambda: panel(None),
                _KINDS_OF_FILES,
            ),
            Picture(
                "figures-4",
                f"the same heads, from “{word}” alone",
                lambda: panel(example.word),
                _KINDS_OF_FILES,
            ),
            _about_lines(example),
        ],
    )


def _figure_5(example: Example, first: int, second: int) -> Section:
    layer = example.layer + 1
    panels = {
        f"encoder, layer {layer}, head {head + 1}": {head: example.weights[head]}
        for head in (first, second)
    }
    return Section(
        "Figure 5: two heads that do different things",
        [
            Picture(
                "figures-5",
                f"the two heads of layer {layer} that differ most",
                lambda: lines_between_words(panels, _shown(example), _names([first, second])),
                _KINDS_OF_FILES,
            )
        ],
    )


_KINDS_OF_FILES = ("svg", "png")


def _names(heads: Iterable[int]) -> dict[int, str]:
    return {head: f"head {head + 1}" for head in heads}


def _about_lines(example: Example) -> str:
    chosen = _RELATIONS.get(example.relation, "a word and the distant one that it attends to most")
    return (
        "Above are the words that attend, below those that are attended to; the stronger a line, "
        "the larger the weight. Of all sentences that are short enough to be drawn, this one shows "
        f"{chosen} best: “"
        f"{' '.join(_shown(example)[:-1])}”."
    )


_RELATIONS = {
    "verb": "a verb and its distant part",
    "antecedent": "a pronoun and what it stands for",
}


def _what_heads_do(habits: Mapping[Kind, np.ndarray], costs: Mapping[str, Any]) -> Section:
    rows = []
    for kind, of_kind in habits.items():
        for layer, index in np.ndindex(*of_kind.shape[:2]):
            head = Head(kind, layer, index)
            found = dict(zip(STATISTICS, of_kind[layer, index], strict=True))
            ratio = costs["without"][str(head)] / costs["all"]
            rows.append(
                [
                    str(head),
                    f"{found['entropy']:.2f}",
                    f"{found['words']:.1f}",
                    f"{found['distance']:.1f}",
                    *(f"{found[name]:.0%}" for name in ("itself", "previous", "next")),
                    f"{found['separators']:.0%}",
                    f"{ratio:.3f}",
                ]
            )
    columns = ["head", "entropy", "words", "distance", "same place", "previous", "next"]
    return Section(
        "What each head does",
        [
            "Means over all tokens that attend: the entropy of the weights in nats, and its "
            "exponential, the number of words that are attended to in effect; the distance in "
            "tokens; the weight of the token at the same place, of those beside it, and of "
            "punctuation, begin and end, some of which lie there too. The last column is the "
            f"perplexity without this head, divided by that with all, {costs['all']:.3f}.",
            Table([*columns, "separators", "perplexity without, ratio"], rows),
        ],
    )


def _pruning(pruned: Sequence[Mapping[str, float]]) -> Section:
    full = pruned[0]

    def draw() -> Figure:
        figure = new_figure((6, 3.4))
        left = figure.add_subplot()
        heads = [point["heads"] for point in pruned]
        left.plot(heads, [point["perplexity"] for point in pruned], color="C0")
        left.set_yscale("log")
        left.set_xlabel("heads that are left")
        left.set_ylabel("perplexity", color="C0")
        left.invert_xaxis()
        right = left.twinx()
        scored = [point for point in pruned if "bleu" in point]
        right.plot(*zip(*((p["heads"], p["bleu"]) for p in scored), strict=True), "o--", color="C1")
        right.set_ylabel("BLEU", color="C1")
        right.set_ylim(0, 100)
        return figure

    needed = min((p for p in pruned if p["perplexity"] < 1.05 * full["perplexity"]), key=_heads)
    rows = [
        [f"{p['heads']:.0f}", f"{p['perplexity']:.3f}", f"{p['bleu']:.1f}"]
        for p in pruned
        if "bleu" in p
    ]
    return Section(
        "Without heads",
        [
            "Heads are taken away one after the other, by a mask: those whose own loss costs least "
            f"go first. {needed['heads']:.0f} of {full['heads']:.0f} heads have a perplexity "
            "within 5 % of the whole model's. The table has some of the steps.",
            Table(["heads", "perplexity", "BLEU"], rows),
            Picture("figures-pruning", "perplexity and BLEU with fewer and fewer heads", draw),
        ],
    )


def _heads(point: Mapping[str, float]) -> float:
    return point["heads"]
