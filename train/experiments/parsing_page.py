"""The page of Table 4: F1 of parsers, the paper's beside ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from train.experiments.page import Page, Picture, Section, Table
from train.experiments.parsing_scores import Interval, Scores
from train.figures import new_figure
from train.wording import counted, duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BANDS = (10, 20, 30, 40, 50)  # words of a sentence, at most

_PAPER = [
    ("Vinyals and Kaiser et al. (2014)", "WSJ only", 88.3),
    ("Petrov et al. (2006)", "WSJ only", 90.4),
    ("Zhu et al. (2013)", "WSJ only", 90.4),
    ("Dyer et al. (2016)", "WSJ only", 91.7),
    ("**Transformer (4 layers)**", "WSJ only", 91.3),
    ("Zhu et al. (2013)", "semi-supervised", 91.3),
    ("Huang and Harper (2009)", "semi-supervised", 91.3),
    ("McClosky et al. (2006)", "semi-supervised", 92.1),
    ("Vinyals and Kaiser et al. (2014)", "semi-supervised", 92.1),
    ("**Transformer (4 layers)**", "semi-supervised", 92.7),
    ("Luong et al. (2015)", "multi-task", 93.0),
    ("Dyer et al. (2016)", "generative", 93.3),
]
"""Table 4 of the paper: F1 on section 23 of the WSJ."""


@dataclass(frozen=True)
class Results:
    """What was measured.

    Attributes:
        treebank: its name
        trees: how many there are to learn from
        lengths: [sentences], the words of those that are scored
        seen: [sentences], whether they are also among those to learn from
        training: of the model
        scores, seconds: of each parser: the grammar, right-branching, and others, translation with
            some beams; the first of those counts
    """

    treebank: str
    trees: int
    lengths: NDArray[np.int64]
    seen: NDArray[np.bool_]
    training: Mapping[str, Any]
    scores: Mapping[str, Scores]
    seconds: Mapping[str, float]

    @property
    def beams(self) -> list[str]:
        """The names of translation with each of the beams."""
        return [name for name in self.scores if name not in ("grammar", "right-branching")]

    @property
    def names(self) -> dict[str, str]:
        """What the page calls each parser, in its order."""
        beams = {name: name.replace("translation", "Transformer") for name in self.beams}
        return {**beams, "grammar": "PCFG", "right-branching": "right-branching"}

    @property
    def translation(self) -> Scores:
        """The model's scores."""
        return self.scores[self.beams[0]]

    def better_than(self, other: str) -> Interval:
        """By how many points of F1 the model is better than another parser."""
        return self.translation.better_than(self.scores[other])


def parsing_page(results: Results, settings: Mapping[str, Any]) -> Page:
    """The page. settings: of the experiment"""
    total = {name: of.total for name, of in results.scores.items()}
    grammar = results.better_than("grammar")
    return Page(
        title="Table 4: English constituency parsing",
        claim="the Transformer generalises to parsing: with trees as lines of brackets, and hardly "
        "any tuning, 4 layers with d_model 1024 reach a labelled F1 of 91.3 on section 23 of the "
        "Wall Street Journal when they learn from its 40 thousand sentences alone: better than the "
        "grammar of Petrov et al. (90.4), and than an earlier model that translates (88.3; section "
        "6.3).",
        measured=f"{counted(results.trees, 'tree')} of {results.treebank} to learn from, "
        f"{counted(len(results.lengths), 'sentence')} to be scored on, all of which count. The "
        f"Transformer ({results.training['parameters']:,} parameters, "
        f"{duration(results.training['seconds'])} of training) has a labelled F1 of "
        f"{results.translation.total.f1:.2f}; a PCFG read off the same trees has "
        f"{total['grammar'].f1:.2f}, and right-branching trees have "
        f"{total['right-branching'].f1:.2f}. The Transformer's is {_said(grammar)}.",
        verdict=_verdict(results, grammar),
        scaled=_scaled(results, settings),
        sections=[
            _table(results),
            _by_length(results),
            _repairs(results),
            _how(results, settings),
            _paper(),
        ],
    )


def _said(difference: Interval) -> str:
    low, value, high = difference
    way = "above" if value >= 0 else "below"
    return (
        f"{abs(value):.2f} {way} the PCFG's (95 % interval {low:+.2f} to {high:+.2f}, with the "
        "sentences drawn again; of one model, so that the spread of seeds is not in it)"
    )


def _verdict(results: Results, grammar: Interval) -> str:
    straight = results.better_than("right-branching")
    if straight.low <= 0:
        return (
            "Not here: the Transformer cannot be told from right-branching trees, which look at no "
            f"word, or is worse (difference {straight.low:+.2f} to {straight.high:+.2f})."
        )
    learned = (
        f"it learns to parse, for it is {straight.value:.2f} points of F1 above right-branching "
        "trees"
    )
    if grammar.low > 0:
        return f"Yes, at this size: {learned}, and it is better than this grammar."
    if grammar.high >= 0:
        return (
            f"In part: {learned}; from the grammar it cannot be told by these sentences. "
            f"{_why(results)}"
        )
    return (
        f"In part: {learned}, but at this size the grammar is better by {-grammar.value:.2f} "
        f"points. {_why(results)}"
    )


def _why(results: Results) -> str:
    """Which sentences keep the model from being better than the grammar."""
    whole = results.translation.whole
    words = results.lengths
    short = words <= np.median(words)
    both = (results.translation, results.scores["grammar"])
    written = (
        f"What it writes is a tree over the sentence in {whole.mean():.1%} of the sentences, and "
        "has to be repaired in the others."
    )
    if short.all():
        return written
    own, other = ([of.among(some).f1 for of in both] for some in (short, ~short))
    return (
        f"{written} In the shorter half of the sentences its F1 is "
        f"{own[0]:.2f} against the grammar's {own[1]:.2f}, in the longer half {other[0]:.2f} "
        f"against {other[1]:.2f}."
    )


def _table(results: Results) -> Section:
    rows = []
    for name, title in results.names.items():
        scores, total = results.scores[name], results.scores[name].total
        rows.append(
            [
                title,
                *(f"{value:.2f}" for value in (total.f1, total.precision, total.recall)),
                f"{total.exact / total.sentences:.1%}",
                f"{total.errors}",
                f"{scores.with_tags.f1:.2f}",
                duration(results.seconds[name]),
            ]
        )
    columns = ["parser", "F1", "precision", "recall", "exact", "errors", "F1, treebank's tags"]
    return Section(
        f"Parsers on {results.treebank}",
        [
            Table([*columns, "time"], rows),
            "Labelled brackets by the rules of EVALB with COLLINS.prm, in percent. Every sentence "
            "counts. Tags are not scored, but those of punctuation say which words are left out "
            "before spans are counted; where a parser's differ in this from the treebank's, or it "
            "has no parse, which is an error, none of its brackets count, and all of the "
            "treebank's do. The last F1 is with the treebank's tags in place of the parser's, as "
            f"if it had been given them. {_unseen(results)}",
        ],
    )


def _unseen(results: Results) -> str:
    """The F1 of sentences that were not there to learn from."""
    seen = results.seen
    if seen.all() or not seen.any():
        return ""
    own, other = (of.among(~seen).f1 for of in (results.translation, results.scores["grammar"]))
    return (
        f"Of the {len(seen):,} sentences, {seen.sum():,} are also among those to learn from; "
        f"without them the Transformer has {own:.2f}, and the PCFG {other:.2f}."
    )


def _by_length(results: Results) -> Section:
    bands = np.searchsorted(_BANDS, results.lengths)
    present = [band for band in range(len(_BANDS) + 1) if (bands == band).any()]
    edges = [1, *(edge + 1 for edge in _BANDS)]
    names = [
        f"{edges[band]} to {_BANDS[band]}" if band < len(_BANDS) else f"{edges[band]} or more"
        for band in present
    ]
    shown = {n: of for n, of in results.names.items() if n not in results.beams[1:]}
    f1 = {
        name: [results.scores[name].among(bands == band).f1 for band in present] for name in shown
    }

    def draw() -> Figure:
        figure = new_figure((6, 3.4))
        axes = figure.add_subplot()
        for name, title in shown.items():
            axes.plot(names, f1[name], "o-", label=title)
        axes.set_xlabel("words of the sentence")
        axes.set_ylabel("labelled F1")
        axes.set_ylim(bottom=0)
        axes.legend()
        return figure

    rows = [
        [name, f"{(bands == band).sum():,}", *(f"{f1[parser][i]:.2f}" for parser in shown)]
        for i, (band, name) in enumerate(zip(present, names, strict=True))
    ]
    return Section(
        "By the length of sentences",
        [
            Picture("table4-length", "labelled F1 by the length of sentences", draw),
            Table(["words", "sentences", *shown.values()], rows),
        ],
    )


def _repairs(results: Results) -> Section:
    whole, both = results.translation.whole, (results.translation, results.scores["grammar"])
    return Section(
        "What had to be repaired",
        [
            f"In {whole.sum():,} of {len(whole):,} sentences the Transformer has written a tree: "
            "brackets that are closed in order, and a tag for each word. (Of the beam's "
            "hypotheses the best such one is taken.) In the others a bracket without a partner "
            "is ignored, or closed at the end. In all, tags are aligned with the words so as to "
            "fit them best, for one may be missing and another too many.",
            Table(
                ["written", "sentences", "F1", "the PCFG's F1 there"],
                [
                    [what, f"{chosen.sum():,}", *(f"{s.among(chosen).f1:.2f}" for s in both)]
                    for what, chosen in (("a tree", whole), ("no tree", ~whole))
                    if chosen.any()
                ],
            ),
        ],
    )


def _how(results: Results, settings: Mapping[str, Any]) -> Section:
    of_beams = [results.scores[name].total.f1 for name in results.beams]
    is_best = len(of_beams) > 1 and of_beams[0] == max(of_beams)
    counts = f"The first beam counts{', the best of them on these trees' if is_best else ''}."
    return Section(
        "How",
        [
            "Trees: traces are left out with what has nothing else, and labels lose their "
            "functions; CRAFT's TITLE, HEADING, CAPTION and CIT just below the top are left out as "
            "the top is.",
            "Transformer: it reads words, and writes the tree's brackets with a tag in place of "
            f"each word: `(S (NP NNS )NP (VP VBP )VP )S`. Words that occur fewer than "
            f"{settings['rare']} times are read as classes by shape and ending. The mean of the "
            f"last {counted(settings['average'], 'checkpoint')} searches with α "
            f"{settings['length_penalty']:g} and at most {settings['extra_length']} symbols more "
            f"than there are words. {counts}",
            "PCFG: relative frequencies; symbols remember "
            f"{counted(settings['vertical'] - 1, 'label')} above and "
            f"{counted(settings['horizontal'], 'sibling')} before; chains of single children are "
            "one symbol; rare and unknown words have the tags of those with their shape and "
            "ending; the most probable tree, by CKY. It is not given the treebank's tags.",
            "Right-branching: each constituent is a word and all that follow it, with the labels "
            "that are most frequent there.",
        ],
    )


def _scaled(results: Results, settings: Mapping[str, Any]) -> Table:
    training = results.training
    rows = [
        ("treebank", "WSJ 02 to 21, scored on 23", results.treebank),
        ("trees learned from", "40,000", f"{training['learned']:,} of {results.trees:,}"),
        ("source vocabulary", "16,000", f"{training['source vocabulary']:,}"),
        ("layers", "4", f"{settings['layers']}"),
        ("d_model", "1024", f"{settings['d_model']}"),
        ("norm", "post", settings["norm"]),
        (
            "training",
            "not said",
            f"{settings['steps']:,} steps, the last in epoch {training['epochs'] + 1}",
        ),
        ("beam", "21", ", ".join(map(str, settings["beam"]))),
        ("α", "0.3", f"{settings['length_penalty']:g}"),
        ("most symbols", "words + 300", f"words + {settings['extra_length']}"),
    ]
    return Table(["what", "the paper", "here"], [[*row] for row in rows])


def _paper() -> Section:
    return Section(
        "The paper's Table 4",
        [
            "On section 23 of the Wall Street Journal; figures on another treebank cannot be "
            "compared with these.",
            Table(
                ["parser", "training", "F1"],
                [[parser, training, f"{f1:.1f}"] for parser, training, f1 in _PAPER],
            ),
        ],
    )
