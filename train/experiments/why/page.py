"""The experiment "why": five claims about self-attention, each with a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, get_args

from npformer.errors import UserError
from train.experiments.experiment import Experiment
from train.experiments.grammar_model import (
    GrammarModel,
    batches_of,
    grammar_model,
    scaled_down,
    size_of_test,
)
from train.experiments.heads import KINDS, STATISTICS, statistics
from train.experiments.measurements import Measurements
from train.experiments.page import Page, Section, Table
from train.experiments.why import agreement, dependence, parallel, scale, sparsity, tracking
from train.experiments.why.finding import Finding, Verdict
from train.experiments.why.recurrence import RECURRENT_PARTS


@dataclass(frozen=True)
class Settings:
    """The models that are trained, and what is measured on them."""

    pairs: Annotated[int, "of the generated grammar, to train on"]
    steps: Annotated[int, "of training, of each of three models"]
    seed: Annotated[int, "of training"]
    sentences: Annotated[int, "of the test set that are looked at"]
    distance: Annotated[int, "tokens between an output and an input, at most"]
    largest: Annotated[tuple[int, ...], "k: how many of the largest weights are used"]
    lengths: Annotated[tuple[int, ...], "n: tokens of a layer whose time is measured"]
    together: Annotated[int, "sentences of a training document, at most"]
    sizes: Annotated[tuple[int, ...], "sentences of a document that is translated"]


def measure(settings: Settings, found: Measurements) -> Page:
    """Train the models, and measure each claim."""
    _check(settings)
    made = grammar_model(found, settings.pairs, settings.steps, settings.seed)
    recurrent = grammar_model(
        found,
        settings.pairs,
        settings.steps,
        settings.seed,
        name="recurrent model",
        parts=RECURRENT_PARTS,
    )
    documents = grammar_model(
        found,
        settings.pairs,
        settings.steps,
        settings.seed,
        name="model of documents",
        together=settings.together,
    )
    findings = [
        _parallel(settings, found),
        _dependence(settings, found, {"self-attention": made, "recurrence": recurrent}),
        _tracking(settings, found, made),
        _sparsity(settings, found, made),
        _scale(settings, found, made, documents),
    ]
    return _page(findings, made, scaled_down(settings.pairs, settings.steps))


def _check(settings: Settings) -> None:
    """Refuse, before models are trained, what could not be measured of them."""
    for name in ("largest", "lengths", "sizes"):
        values = getattr(settings, name)
        if not values or min(values) < 1 or list(values) != sorted(set(values)):
            raise UserError(
                f"--{name} must be numbers that rise, 1 at least; it is "
                f"{' '.join(map(str, values))}"
            )
    if settings.sizes[0] != 1:
        raise UserError("--sizes must begin with 1, the sentence that documents are compared with")
    for name, least in (("sentences", 1), ("distance", 1), ("together", 2)):
        if (value := getattr(settings, name)) < least:
            raise UserError(f"--{name} must be at least {least}; it is {value}")
    if settings.sizes[-1] > settings.sentences:
        raise UserError(
            f"--sizes has documents of {settings.sizes[-1]} sentences, and --sentences is "
            f"{settings.sentences}: make one of them fit"
        )
    if settings.sizes[-1] > (there := size_of_test(settings.pairs)):
        raise UserError(
            f"--sizes has documents of {settings.sizes[-1]} sentences, and of --pairs "
            f"{settings.pairs} only {there} are for the test: make one of them fit"
        )
    if not any(1 < size <= settings.together for size in settings.sizes):
        raise UserError(
            f"--sizes must have documents of at most --together {settings.together} sentences, as "
            "the model was trained on, too"
        )


def _parallel(settings: Settings, found: Measurements) -> Finding:
    return parallel.finding(
        {
            n: found.of(f"parallel computation, n = {n}", partial(parallel.compared, n))
            for n in settings.lengths
        }
    )


def _dependence(
    settings: Settings, found: Measurements, models: dict[str, GrammarModel]
) -> Finding:
    def of_model(made: GrammarModel) -> dict[str, Any]:
        test = made.splits.test[: settings.sentences]
        batches = batches_of(made.translator.tokenizers, test)
        pairs = agreement.minimal_pairs([pair.source for pair in test], made.splits)
        return {
            "gradient": dependence.gradient_by_distance(
                made.model, batches, settings.distance, draws=4
            ),
            "agreement": agreement.accuracy_by_distance(made.translator, pairs),
        }

    return dependence.finding(
        {
            name: {
                **found.of(f"long-range dependence, {name}", partial(of_model, made)),
                "perplexity": made.score["perplexity"],
            }
            for name, made in models.items()
        }
    )


def _tracking(settings: Settings, found: Measurements, made: GrammarModel) -> Finding:
    def of_heads() -> list[dict[str, Any]]:
        sources = [pair.source for pair in made.splits.test[: settings.sentences]]
        translations = made.translator.translate(sources, attention=True, beam=1)
        asked = tracking.questions(sources, translations, made.splits)
        return [asdict(tracked) for tracked in tracking.tracked(asked, translations)]

    return tracking.finding(found.of("heads and relations", of_heads))


def _sparsity(settings: Settings, found: Measurements, made: GrammarModel) -> Finding:
    test = made.splits.test[: settings.sentences]

    def words() -> dict[str, Any]:
        sources = [pair.source for pair in test]
        translations = made.translator.translate(sources, attention=True, beam=1)
        column = STATISTICS.index("words")
        lengths = [len(t.source_pieces) for t in translations]
        targets = [len(t.target_pieces) for t in translations]
        queries = {"encoder": lengths, "decoder": targets, "cross": targets}
        alike = {
            kind: sparsity.alike(
                queries[kind], targets if kind == "decoder" else lengths, kind == "decoder"
            )
            for kind in KINDS
        }
        of_heads = {k: v[..., column].tolist() for k, v in statistics(translations).items()}
        return {"heads": of_heads, "alike": alike}

    batches = batches_of(made.translator.tokenizers, test)
    return sparsity.finding(
        found.of("effective words", words),
        found.of(
            "the largest weights", partial(sparsity.quality, made.run, batches, settings.largest)
        ),
        {
            n: found.of(
                f"the largest weights, n = {n}", partial(sparsity.cost, n, settings.largest)
            )
            for n in settings.lengths
        },
    )


def _scale(
    settings: Settings, found: Measurements, made: GrammarModel, documents: GrammarModel
) -> Finding:
    models = {"sentences": made, f"up to {settings.together} sentences": documents}
    curves = {
        name: found.of(
            f"length, trained on {name}",
            partial(scale.quality_by_length, model, settings.sizes, settings.sentences),
        )
        for name, model in models.items()
    }
    return scale.finding(curves, dict(zip(models, (1, settings.together), strict=True)))


def _page(findings: Sequence[Finding], made: GrammarModel, scaled: Table) -> Page:
    verdicts = {
        verdict: [f.heading.lower() for f in findings if f.verdict == verdict]
        for verdict in get_args(Verdict)
    }
    return Page(
        title="Why self-attention matters",
        claim="self-attention computes all positions at once, connects distant words by a short "
        "path, and can be looked into (section 4); and it is said to be sparse, and to serve from "
        "sentences to documents.",
        measured=f"five claims, on models of {made.score['parameters']:,} parameters that were "
        "trained on the generated grammar, whose right answers are known.",
        verdict=" ".join(
            f"{verdict.capitalize()}: {', '.join(of)}." for verdict, of in verdicts.items() if of
        ),
        scaled=scaled,
        sections=[
            Section(
                "In short",
                [
                    Table(
                        ["claim", "measured", "holds"],
                        [[f.claim, f.measured, f.verdict] for f in findings],
                    )
                ],
            ),
            *(Section(f.heading, f.content) for f in findings),
        ],
    )


EXPERIMENT = Experiment(
    "why",
    {
        "toy": Settings(400, 4, 1, 10, 8, (1, 2), (8, 16), 2, (1, 2)),
        "small": Settings(
            40_000,
            3600,
            1,
            500,
            16,
            (1, 2, 3, 4, 6, 8),
            (16, 64, 256, 1024),
            6,
            (1, 2, 4, 6, 8, 12),
        ),
    },
    measure,
)
