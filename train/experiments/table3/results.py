"""The page of Table 3: our perplexities and BLEU beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npformer.config import TransformerConfig
from train.corpora.corpus import Corpus
from train.experiments.page import Page, Picture, Section, Table
from train.experiments.table3.comparison import ERRORS, Difference
from train.experiments.table3.findings import Findings, Outcome, paper_sign
from train.experiments.table3.rows import BASE, ROWS, Row
from train.figures import new_figure
from train.settings import TrainSettings
from train.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLAIM = (
    "one head is worse than eight (A), and so are smaller keys (B); bigger models are better (C); "
    "dropout is very helpful against over-fitting (D); learned positions give nearly the same "
    "results as sinusoids (E)."
)

_CONVERGED = 0.01  # change of the logarithm of the perplexity in the last quarter of the steps

_OBSERVATIONS = {
    "a single head is worse": ("A/heads=1",),
    "so are too many": ("A/heads=32",),
    "smaller keys are worse": ("B/d_k=16", "B/d_k=32"),
    "bigger models are better": tuple(name for name in ROWS if name.startswith("C/")),
    "without dropout it is worse": ("D/dropout=0",),
    "label smoothing hurts perplexity": ("D/smoothing=0", "D/smoothing=0.2"),
    "learned positions give nearly the same": ("E",),
    "big is better": ("big",),
}


@dataclass(frozen=True)
class Setting:
    """How base was trained, on what, and with how many seeds each row was."""

    base: TrainSettings
    corpus: Corpus
    data: str
    seeds: int
    sentences: int


def page_of(found: Findings, setting: Setting) -> Page:
    """The page."""
    return Page(
        title="Table 3: variations of the model",
        claim=_CLAIM,
        measured=_measured(found, setting),
        verdict=_verdict(found, setting.seeds),
        scaled=_scaled(setting),
        sections=[
            Section("Every row", [_how_to_read(found, setting), _rows(found), _picture(found)]),
            Section("The paper's observations", [_observations(found)]),
            *([Section("What has failed", [_failures(found)])] if any(_failed(found)) else []),
        ],
    )


# Sentences


def _measured(found: Findings, setting: Setting) -> str:
    models = sum(map(len, found.results.values()))
    failed = sum(map(len, found.failed.values()))
    words = [
        f"{counted(len(found.asked), 'row')} with {counted(setting.seeds, 'seed')} each, "
        f"{models} models{f' and {failed} that failed' if failed else ''}, all trained for "
        f"{setting.base.max_steps:,} steps on {setting.data}. Base has a perplexity of "
        f"{_perplexity(found, ROWS[BASE])} and {_bleus(found, ROWS[BASE])} BLEU"
    ]
    changes = [(found.change(row).value, row) for row in found.rows if row.name != BASE]
    if changes:
        (least, best), (most, worst) = min(changes), max(changes)
        words.append(
            f"the others have perplexities from {_percent(least)} ({best.name}) to "
            f"{_percent(most)} ({worst.name})"
        )
    return "; ".join(words) + "." + _convergence(found)


def _convergence(found: Findings) -> str:
    change = found.last_quarter()
    if change is None:
        return ""
    words = f" In the last quarter of the steps base's perplexity changed by {_percent(change)}"
    if change < -_CONVERGED:
        return f"{words}: its training was not over, and rows that learn faster are ahead."
    if change > _CONVERGED:
        return f"{words}: it was over-fitted."
    return f"{words}: it had converged."


def _verdict(found: Findings, seeds: int) -> str:
    agree = found.with_outcome(Outcome.AGREES)
    others = found.with_outcome(Outcome.CONTRADICTS)
    new = found.with_outcome(Outcome.NEW)
    same = found.with_outcome(Outcome.UNSEPARATED)
    failed = found.with_outcome(Outcome.FAILED)
    order = found.order()
    if seeds == 1 or not (agree or others or new):
        begin = "It cannot be said"
    elif not agree:
        begin = "Not here"
    elif others or new:
        begin = "In part"
    else:
        begin = f"Yes for the {len(agree)} of {counted(len(found.variations), 'row')}"
        begin += " that can be separated from base"
    words = [f"{begin}."]
    if seeds == 1:
        words.append("With one seed no row can be separated from base.")
    else:
        words.append(
            f"Of {counted(len(found.variations), 'row')}, {len(agree + others + new)} differ from "
            f"base by more than the spread over seeds, {len(agree)} of them in the paper's "
            "direction."
        )
        if others:
            words.append(f"The other way: {_listed(found, others)}.")
        if new:
            words.append(f"Different here, but not in the paper: {_listed(found, new)}.")
        if same:
            words.append(f"Not separated from base: {', '.join(row.name for row in same)}.")
    if failed:
        words.append(f"Failed: {', '.join(row.name for row in failed)}.")
    if order is not None:
        words.append(
            f"The order of all rows by perplexity agrees with the paper's with Kendall's "
            f"τ = {order:.2f} (1 is the same order, 0 none, -1 the reverse)."
        )
    return " ".join(words)


def _how_to_read(found: Findings, setting: Setting) -> str:
    signatures = found.results[BASE][0]["signatures"]
    signed = "; ".join(f"{name}: `{signature}`" for name, signature in signatures.items())
    spread = (
        "means and standard deviations over the seeds, of perplexities by their logarithms"
        if setting.seeds > 1
        else "those of one model, so that no spread is known"
    )
    few = (
        " With so few seeds a row that spreads far more than usual may be separated by chance."
        if 1 < setting.seeds < 5
        else ""
    )
    return (
        f"{_names(setting)}The perplexity is that of the validation set, per subword and without "
        f"smoothing. BLEU is that of its first {counted(setting.sentences, 'sentence')} at most, "
        f"with a beam of 4 and α = 0.6 ({signed}); the paper's is of tokens with compounds split. "
        f"Figures are {spread}. The change of perplexity from base has its standard error; a row "
        f"is separated from base if the change is larger than {ERRORS} of them. An arrow beside a "
        "BLEU says that it is separated from base's in this way, and is higher (↑) or lower (↓). "
        "Where the seeds of a row agree better than is usual among the rows, the usual spread "
        f"counts.{few} Models with the same seed see the same batches: what that adds to all rows "
        "is taken out before they are compared. The spread is only that of seeds: another corpus "
        "may give another order. The paper has one model a row, and no spread."
    )


def _names(setting: Setting) -> str:
    config, paper = _config(setting), TransformerConfig(vocab_size=1)
    width, layers = config.d_model / paper.d_model, config.layers / paper.layers
    if width == layers == 1:
        return ""
    return (
        f"Rows have the names and sizes of the paper; here all widths are {width:g} of those, and "
        f"the layers {layers:g}. "
    )


def _config(setting: Setting) -> TransformerConfig:
    return setting.base.transformer_config(setting.corpus.tokenizers.target.vocab_size)


# Tables


def _rows(found: Findings) -> Table:
    tokenizers = list(found.bleu)
    columns = ["row", "differs", "parameters", "paper: perplexity", "here", "change in the paper"]
    columns += ["change here", "separated", "paper: BLEU", *(f"here, {t}" for t in tokenizers)]
    return Table(columns, [_row(found, row) for row in found.asked])


def _row(found: Findings, row: Row) -> list[str]:
    cells = [row.name, row.differs or "—"]
    paper = _percent(math.log(row.perplexity / ROWS[BASE].perplexity))
    is_base = row.name == BASE
    if not found.results[row.name]:
        nothing = [""] * len(found.bleu)
        change = [paper, "", Outcome.FAILED.value]
        return [*cells, "", f"{row.perplexity:.2f}", "", *change, f"{row.bleu}", *nothing]
    parameters = f"{found.results[row.name][0]['parameters'] / 1e6:.2f} M"
    change = (
        ["", "", ""] if is_base else [paper, _change(found.change(row)), _separated(found, row)]
    )
    scores = [_bleu(found, row, t) + _arrow(found, row, t) for t in found.bleu]
    return [
        *cells,
        parameters,
        f"{row.perplexity:.2f}",
        _perplexity(found, row),
        *change,
        f"{row.bleu}",
        *scores,
    ]


def _separated(found: Findings, row: Row) -> str:
    outcome = found.outcome(row)
    return "no" if outcome is Outcome.UNSEPARATED else f"yes, {outcome.value}"


def _observations(found: Findings) -> Table:
    rows = []
    for words, names in _OBSERVATIONS.items():
        some = [row for row in found.variations if row.name in names]
        if some:
            rows.append([words, ", ".join(row.name for row in some), _holds(found, some)])
    return Table(["the paper", "rows", "here"], rows)


def _holds(found: Findings, rows: Sequence[Row]) -> str:
    """Whether an observation holds, from the outcomes of its rows."""
    outcomes = {row: found.outcome(row) for row in rows}
    if all(paper_sign(row) == 0 for row in rows):  # it says that there is no difference
        [(row, outcome)] = outcomes.items()
        if outcome is Outcome.FAILED:
            return "failed"
        change = _change(found.change(row))
        return (
            f"no difference is seen ({change})"
            if outcome is Outcome.UNSEPARATED
            else f"no: {change}"
        )
    words = {
        Outcome.AGREES: "holds",
        Outcome.CONTRADICTS: "does not hold",
        Outcome.UNSEPARATED: "cannot be separated",
        Outcome.NEW: "differs",
        Outcome.FAILED: "failed",
    }
    if len(set(outcomes.values())) == 1:
        return words[next(iter(outcomes.values()))]
    return "; ".join(
        f"{text}: {', '.join(row.name for row, o in outcomes.items() if o is outcome)}"
        for outcome, text in words.items()
        if outcome in outcomes.values()
    )


def _failures(found: Findings) -> Table:
    rows = [
        [name, counted(len(reasons), "model"), reasons[0]]
        for name, reasons in found.failed.items()
        if reasons
    ]
    return Table(["row", "how many", "why"], rows)


def _failed(found: Findings) -> list[list[str]]:
    return list(found.failed.values())


def _scaled(setting: Setting) -> Table:
    base, corpus = setting.base, setting.corpus
    config = _config(setting)
    warmup, peak = base.warmup, base.learning_rate(config.d_model)(base.warmup)
    shared = "shared" if corpus.tokenizers.shared else "of the target, the source has its own"
    rows = [
        ["training data", "WMT 2014 en-de, 4.5 M pairs", f"{setting.data}, {_pairs(corpus)}"],
        ["vocabulary", "about 37,000, shared", f"{config.vocab_size:,}, {shared}"],
        [
            "validation data",
            "newstest2013, 3,000 sentences",
            f"{counted(len(corpus.valid), 'sentence')}",
        ],
        ["steps", "100,000 (big 300,000)", f"{base.max_steps:,} (all rows)"],
        ["tokens a step, of each language", "25,000", f"{base.batch_tokens:,} at most"],
        ["warm-up", "4,000 steps", counted(warmup, "step")],
        ["highest learning rate, of base", "0.0007", f"{peak:.2g}"],
        ["N, d_model, d_ff of base", "6, 512, 2048", _size(config)],
        ["models a row", "1", f"{setting.seeds}"],
        ["precision", "float32", base.precision],
    ]
    return Table(["what", "the paper", "here"], rows)


# Figures in words


def _size(config: TransformerConfig) -> str:
    return ", ".join(f"{getattr(config, name)}" for name in ("layers", "d_model", "d_ff"))


def _pairs(corpus: Corpus) -> str:
    return counted(len(corpus.train), "pair")


def _perplexity(found: Findings, row: Row) -> str:
    mean = math.exp(found.perplexities.mean(row.name))
    deviation = found.perplexities.deviation(row.name)
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {mean * deviation:.2f}")


def _bleu(found: Findings, row: Row, tokenizer: str) -> str:
    deviation = found.bleu[tokenizer].deviation(row.name)
    mean = f"{found.bleu[tokenizer].mean(row.name):.1f}"
    return mean if deviation is None else f"{mean} ± {deviation:.1f}"


def _arrow(found: Findings, row: Row, tokenizer: str) -> str:
    """Which way a row's BLEU differs from base's, if by more than the spread."""
    return {0: "", 1: " ↑", -1: " ↓"}[found.bleu[tokenizer].difference(row.name, BASE).sign]


def _bleus(found: Findings, row: Row) -> str:
    return ", ".join(f"{_bleu(found, row, tokenizer)} ({tokenizer})" for tokenizer in found.bleu)


def _change(change: Difference) -> str:
    error = "" if change.error is None else f" ± {100 * math.exp(change.value) * change.error:.1f}"
    return f"{_percent(change.value)}{error}"


def _percent(logarithm: float) -> str:
    return f"{100 * math.expm1(logarithm):+.1f} %"


def _listed(found: Findings, rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.name} ({_percent(found.change(row).value)})" for row in rows)


# The picture


def _picture(found: Findings) -> Picture:
    return Picture(
        "table3",
        "perplexity of each row, here with all seeds, and in the paper",
        lambda: _draw(found),
    )


def _draw(found: Findings) -> Figure:
    from matplotlib.ticker import MaxNLocator, NullLocator

    figure = new_figure((8.0, 0.8 + 0.27 * len(found.asked)))
    here, paper = figure.subplots(1, 2, sharey=True)
    names = [row.name for row in found.asked]
    for y, row in enumerate(found.asked):
        paper.plot(row.perplexity, y, "D", color="0.3", markersize=5)
        results = found.results[row.name]
        here.plot([r["perplexity"] for r in results], [y] * len(results), ".", color="0.6")
        if results:
            mean = found.perplexities.mean(row.name)
            spread = found.perplexities.deviation(row.name) or 0.0
            ends = [math.exp(mean - spread), math.exp(mean + spread)]
            here.plot(ends, [y, y], "-", color="C0", linewidth=2)
            here.plot(math.exp(mean), y, "o", color="C0", markersize=5)
        else:
            here.text(0.5, y, "failed", transform=here.get_yaxis_transform(), va="center")
    bases = (math.exp(found.perplexities.mean(BASE)), ROWS[BASE].perplexity)
    for axes, base, title in zip((here, paper), bases, ("here", "the paper"), strict=True):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.axvline(base, color="0.7", linewidth=1, zorder=0)
        axes.set_title(f"{title}: perplexity, base as a line", fontsize=10)
        axes.grid(axis="x", alpha=0.2)
    here.set_yticks(range(len(names)), names)
    here.invert_yaxis()
    return figure
