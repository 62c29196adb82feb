"""Figures 3 to 5: what heads attend to, drawn as in the paper, counted, and taken away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from npformer.batch import Batch
from npformer.errors import UserError
from npformer.transformer import Transformer
from npformer.translator import Translator
from train.corpora.text import read_both
from train.evaluation import bleu, likelihood
from train.experiments.experiment import Experiment
from train.experiments.grammar_model import batches_of, grammar_model
from train.experiments.head_examples import (
    Example,
    different_heads,
    far_example,
    reference_example,
)
from train.experiments.head_pictures import lines_between_words
from train.experiments.heads import KINDS, STATISTICS, Head, Kind, statistics, without
from train.experiments.measurements import Measurements
from train.experiments.page import Page, Picture, Section, Table
from train.figures import new_figure
from train.grammar import Pair, Splits
from train.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 6  # numbers of heads that are left, at which the model translates


@dataclass(frozen=True)
class Settings:
    """What the heads of a model do: of a model of the user's, or of one trained here."""

    model: Annotated[Path | None, "directory of a model; without it one of the grammar is trained"]
    source: Annotated[Path | None, "with --model: sentences to look at, one a line"]
    target: Annotated[Path | None, "with --model: their translations, for the cost of pruning"]
    sentences: Annotated[int, "how many sentences are looked at"]
    longest: Annotated[int, "tokens of a sentence that is drawn, at most"]
    pairs: Annotated[int, "of the generated grammar, to train on"]
    steps: Annotated[int, "of training"]
    seed: Annotated[int, "of training"]


@dataclass(frozen=True)
class Subject:
    """The model that is looked at, with sentences and their translations."""

    name: str
    translator: Translator
    sources: list[str]
    targets: list[str]
    splits: Splits | None  # of the grammar, whose sentences have known relations

    @property
    def model(self) -> Transformer:
        assert isinstance(self.translator.model, Transformer)
        return self.translator.model

    def batches(self) -> list[Batch]:
        """The sentences with their translations, in batches."""
        pairs = [Pair(*both) for both in zip(self.sources, self.targets, strict=True)]
        return batches_of(self.translator.tokenizers, pairs)


def measure(settings: Settings, found: Measurements) -> Page:
    """Measure what the heads do, and what the model loses without them."""
    subject = _subject(settings, found)
    translations = subject.translator.translate(subject.sources, attention=True, beam=1)
    habits = found.of(
        "statistics", lambda: {k: v.tolist() for k, v in statistics(translations).items()}
    )
    heads = [
        Head(kind, layer, index)
        for kind in KINDS
        for layer, index in np.ndindex(*np.shape(habits[kind])[:2])
    ]
    costs = found.of("each head pruned", lambda: _costs(subject, heads))
    pruned = found.of("heads pruned one by one", lambda: _pruned(subject, heads, costs["without"]))
    drawn = (translations, subject.sources, subject.splits, settings.longest)
    return _page(
        subject,
        {kind: np.array(habits[kind]) for kind in KINDS},
        costs,
        pruned,
        far_example(*drawn),
        reference_example(*drawn),
    )


def _subject(settings: Settings, found: Measurements) -> Subject:
    if settings.model is None:
        if settings.source or settings.target:
            raise UserError("--source and --target belong to a --model of yours; give it too")
        made = grammar_model(found, settings.pairs, settings.steps, settings.seed)
        test = made.splits.test[: settings.sentences]
        name = (
            f"a model of {made.score['parameters']:,} parameters of the generated grammar, English "
            "to German"
        )
        sources, targets = [pair.source for pair in test], [pair.target for pair in test]
        return Subject(name, made.translator, sources, targets, made.splits)
    if settings.source is None or settings.target is None:
        raise UserError("--model needs --source and --target, sentences and their translations")
    both = read_both(settings.source, settings.target)
    pairs = [pair for pair in zip(*both, strict=True) if all(map(str.strip, pair))]
    pairs = pairs[: settings.sentences]
    if not pairs:
        raise UserError(f"{settings.source} has no sentence with a translation")
    translator = Translator.load(settings.model)
    sources, targets = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Subject(f"`{settings.model}`", translator, sources, targets, None)


def _costs(subject: Subject, heads: Sequence[Head]) -> dict[str, Any]:
    """Perplexity a token of the references, with all heads and without each of them."""
    batches, model = subject.batches(), subject.model
    costs = {}
    for head in heads:
        with without(model, [head]):
            costs[str(head)] = likelihood(model, batches).perplexity
    return {"all": likelihood(model, batches).perplexity, "without": costs}


def _pruned(
    subject: Subject, heads: Sequence[Head], costs: Mapping[str, float]
) -> list[dict[str, float]]:
    """What the model can do with fewer and fewer heads: those that cost least go first."""
    batches, model = subject.batches(), subject.model
    order = sorted(heads, key=lambda head: costs[str(head)])
    translated = {round(share * len(heads)) for share in np.linspace(0, 1, _POINTS)}
    found = []
    for gone in range(len(heads) + 1):
        with without(model, order[:gone]):
            point: dict[str, float] = {
                "heads": len(heads) - gone,
                "perplexity": likelihood(model, batches).perplexity,
            }
            if gone in translated:
                texts = [t.text for t in subject.translator.translate(subject.sources)]
                point["bleu"] = bleu(texts, subject.targets).value
        found.append(point)
    return found


# The page


def _page(
    subject: Subject,
    habits: Mapping[Kind, np.ndarray],
    costs: Mapping[str, Any],
    pruned: Sequence[Mapping[str, float]],
    far: Example | None,
    reference: Example | None,
) -> Page:
    sections, seen = [], []
    if far is not None:
        sections.append(_figure_3(far))
        seen.append(_who_sees("Figure 3", far))
    if reference is not None:
        first, second, apart = different_heads(reference.weights)
        sections += [_figure_4(reference), _figure_5(reference, first, second)]
        seen.append(_who_sees("Figure 4", reference))
        seen.append(
            f"heads {first + 1} and {second + 1} of Figure 5 give {apart:.0%} of their weight to "
            "different words"
        )
    words = np.concatenate([of.reshape(-1, len(STATISTICS)) for of in habits.values()])
    effective = words[:, STATISTICS.index("words")]
    most = max(costs["without"].values()) / costs["all"]
    cheap = sum(value < 1.01 * costs["all"] for value in costs["without"].values())
    return Page(
        title="Figures 3 to 5: what attention heads attend to",
        claim="many heads follow the structure of the sentence: they find the distant words that a "
        "verb needs (Figure 3) and what a pronoun stands for (Figure 4), and different heads have "
        "learned to do different things (Figure 5; section 4).",
        measured=f"{subject.name}, {counted(len(subject.sources), 'sentence')}. {'; '.join(seen)}. "
        f"Of {len(effective)} heads the one with the narrowest view attends to "
        f"{effective.min():.1f} words on average, the one with the widest to "
        f"{effective.max():.1f}. Without one head perplexity is at most {most:.2f} times as high, "
        f"and {cheap} can be taken away one at a time for less than 1 % each.",
        verdict=_verdict(far, reference, effective),
        scaled=None,
        sections=[*sections, _what_heads_do(habits, costs), _pruning(pruned)],
    )


def _who_sees(figure: str, example: Example) -> str:
    count = len(example.heads_that_see())
    word, other = (_shown(example)[place] for place in (example.word, example.other))
    return (
        f"{figure}: {count} of the {counted(len(example.weights), 'head')} of layer "
        f"{example.layer + 1} {'attends' if count == 1 else 'attend'} from “{word}” to “{other}” "
        "more than to any other word"
    )


def _verdict(far: Example | None, reference: Example | None, effective: np.ndarray) -> str:
    """Whether heads see what they should in the figures, and whether they differ."""
    examples = {"Figure 3": far, "Figure 4": reference}
    blind = [name for name, e in examples.items() if e is None or not e.heads_that_see()]
    differ = effective.max() > 2 * effective.min()
    if not blind and differ:
        return (
            "Yes, in these examples, which are chosen as the clearest; how often heads are right, "
            "`npformer experiment why` counts."
        )
    failed = [f"no head sees what it should in {' and '.join(blind)}"] if blind else []
    failed += [] if differ else ["all heads look about equally far"]
    return f"Not here: {'; '.join(failed)}."


def _shown(example: Example) -> list[str]:
    return [piece.replace("\u2581", "") for piece in example.translation.source_pieces]


def _figure_3(example: Example) -> Section:
    heads = dict(enumerate(example.weights))
    title = f"encoder, layer {example.layer + 1}: all heads, from “{_shown(example)[example.word]}”"
    return Section(
        "Figure 3: a word and a distant one that it needs",
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
        "Figure 4: what a word stands for",
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
    known = {
        "verb": "a verb and its distant part",
        "antecedent": "a pronoun and what it stands for",
    }
    chosen = known.get(example.relation, "a word and the distant one that it attends to most")
    return (
        "Above are the words that attend, below those that are attended to; the stronger a line, "
        f"the larger the weight. Of all sentences, this one shows {chosen} best: “"
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
            "punctuation, begin and end. The last column is the perplexity without this head, "
            f"against {costs['all']:.3f} with all.",
            Table([*columns, "separators", "perplexity without"], rows),
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
            f"go first. With {needed['heads']:.0f} of {full['heads']:.0f} heads, perplexity is "
            "within 5 % of the whole model's.",
            Table(["heads", "perplexity", "BLEU"], rows),
            Picture("figures-pruning", "perplexity and BLEU with fewer and fewer heads", draw),
        ],
    )


def _heads(point: Mapping[str, float]) -> float:
    return point["heads"]


EXPERIMENT = Experiment(
    "figures",
    {
        "toy": Settings(None, None, None, 10, 30, 400, 20, 1),
        "small": Settings(None, None, None, 500, 18, 40_000, 3600, 1),
    },
    measure,
)
