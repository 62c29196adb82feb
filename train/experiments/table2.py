"""Table 2: the cost of training, counted, beside the paper's estimate and published systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from npformer.config import TransformerConfig
from npformer.errors import UserError
from train.assembly import configuration, training_batches
from train.corpora.corpus import Corpus
from train.experiments.cost import ATTENTION, batch_of_lengths, cost_of, six_times_parameters
from train.experiments.experiment import Experiment
from train.experiments.measurements import Measurements
from train.experiments.page import Page, Section, Table
from train.runs.metrics import read_metrics
from train.runs.run import Run

_P100 = 9.5e12  # FLOP/s in single precision, the paper's footnote 5
_GPUS = 8
_DAY = 86_400


@dataclass(frozen=True)
class Settings:
    """Which configurations are counted, on sentences of which length, and whose run."""

    presets: Annotated[tuple[str, ...], "configurations, such as base, big or table3/A/heads=1"]
    vocab_size: Annotated[int, "of the shared vocabulary"]
    length: Annotated[int, "tokens of a sentence on either side, with its end"]
    lengths: Annotated[tuple[int, ...], "of sentences, whose cost a token is compared"]
    run: Annotated[Path | None, "a run whose cost is counted too; it needs --data"]
    data: Annotated[Path | None, "the corpus of --run"]
    gpus: Annotated[int, "devices of --run, for the paper's formula"]
    sustained: Annotated[float, "FLOP/s of each of them, for the paper's formula"]


@dataclass(frozen=True)
class _Paper:
    """What the paper says of the training of a model."""

    steps: int
    tokens: int  # of a step, on either side
    days: float

    @property
    def flops(self) -> float:
        """Time, times GPUs, times what a GPU sustains."""
        return self.days * _DAY * _GPUS * _P100


_PAPER = {"base": _Paper(100_000, 25_000, 0.5), "big": _Paper(300_000, 25_000, 3.5)}

_SYSTEMS = (
    # model, BLEU en-de and en-fr, FLOPs of en-de and en-fr
    ("ByteNet", "23.75", "", "", ""),
    ("Deep-Att + PosUnk", "", "39.2", "", "1.0e20"),
    ("GNMT + RL", "24.6", "39.92", "2.3e19", "1.4e20"),
    ("ConvS2S", "25.16", "40.46", "9.6e18", "1.5e20"),
    ("MoE", "26.03", "40.56", "2.0e19", "1.2e20"),
    ("Deep-Att + PosUnk, ensemble", "", "40.4", "", "8.0e20"),
    ("GNMT + RL, ensemble", "26.30", "41.16", "1.8e20", "1.1e21"),
    ("ConvS2S, ensemble", "26.36", "41.29", "7.7e19", "1.2e21"),
    ("Transformer, base", "27.3", "38.1", "3.3e18", "3.3e18"),
    ("Transformer, big", "28.4", "41.8", "2.3e19", "2.3e19"),
)


def measure(settings: Settings, found: Measurements) -> Page:
    """Count the operations of a step of each configuration, and of a run if there is one."""
    _check(settings)
    costs = found.all_of(
        {name: partial(_counted, name, settings, settings.length) for name in settings.presets}
    )
    first = settings.presets[0]
    at_lengths = found.all_of(
        {f"{first}, n = {n}": partial(_counted, first, settings, n) for n in settings.lengths}
    )
    by_length = {n: at_lengths[f"{first}, n = {n}"] for n in settings.lengths}
    of_run = None
    if settings.run is not None and settings.data is not None:
        of_run = found.of("run", partial(_of_run, settings.run, settings.data))
    return _page(settings, costs, by_length, of_run)


def _check(settings: Settings) -> None:
    if (settings.run is None) != (settings.data is None):
        raise UserError("--run and --data go together: the run, and the corpus it was trained on")
    if min(settings.length, *settings.lengths) < 1:
        raise UserError("--length and --lengths must be 1 or more: a sentence has its end")
    if settings.gpus < 1 or settings.sustained <= 0:
        raise UserError("--gpus and --sustained must be positive, for the paper's formula")


def _counted(preset: str, settings: Settings, length: int) -> dict[str, Any]:
    config = TransformerConfig.preset(preset, vocab_size=settings.vocab_size)
    return cost_of(config, batch_of_lengths(config, [(length, length)]))


def _of_run(directory: Path, data: Path) -> dict[str, Any]:
    """The cost of a run: of a step on batches of its corpus, times its steps."""
    corpus, run = Corpus.open(data), Run(directory)
    settings = run.saved_settings()
    entries = [entry for entry in read_metrics(directory) if "seconds" in entry]
    if not entries:
        raise UserError(f"{directory} has no metrics: it has not been trained")
    config = configuration(settings, corpus)
    batches = training_batches(settings, corpus)
    epoch = batches.epoch(0)
    pairs = [
        pair
        for batch in epoch
        for pair in zip(
            batch.source.lengths.tolist(), batch.target_input.lengths.tolist(), strict=True
        )
    ]
    some = pairs[:: max(1, len(pairs) // _SAMPLE)][:_SAMPLE]
    cost = cost_of(config, batch_of_lengths(config, some))
    tokens = sum(target for _, target in pairs) / len(epoch) * settings.accumulate
    last = max(entries, key=lambda entry: entry["step"])
    return {
        **cost,
        "directory": directory.name,
        "steps": last["step"],
        "tokens_a_step": tokens,
        "seconds": last["seconds"],
    }


_SAMPLE = 64  # pairs of a run's corpus that are counted


def _a_token(cost: Mapping[str, Any]) -> float:
    return float(cost["total"] / cost["target_tokens"])


def _whole(cost: Mapping[str, Any], paper: _Paper) -> float:
    """The operations of the paper's training."""
    return _a_token(cost) * paper.tokens * paper.steps


def _page(
    settings: Settings,
    costs: Mapping[str, Any],
    by_length: Mapping[int, Any],
    of_run: Mapping[str, Any] | None,
) -> Page:
    known = {name: _PAPER[name] for name in costs if name in _PAPER}
    shares = {name: _whole(costs[name], paper) / paper.flops for name, paper in known.items()}
    said = [
        f"{name} {_power(_whole(costs[name], paper))} for {paper.steps:,} steps of "
        f"{paper.tokens:,} tokens a side, {shares[name]:.0%} of the paper's {_power(paper.flops)}"
        for name, paper in known.items()
    ]
    sections = [_costs(settings, costs), _lengths(settings.presets[0], by_length)]
    if of_run is not None:
        sections.append(_run(of_run, settings))
    return Page(
        title="Table 2: the cost of training",
        claim="the Transformer translates better than all before it at a fraction of their cost of "
        "training, which is estimated as the time of training times the number of GPUs times what "
        "a GPU sustains: base 3.3e18 floating-point operations, big 2.3e19.",
        measured=f"operations of the code that runs, forward and backward: {'; '.join(said)}."
        if said
        else "operations of the code that runs, forward and backward.",
        verdict=_verdict(shares),
        scaled=None,
        sections=[*sections, _systems(), _recipes()],
    )


def _verdict(shares: Mapping[str, float]) -> str:
    if not shares:
        return "Neither base nor big was counted."
    within = all(share <= 1 for share in shares.values())
    return (
        f"The cost: {'yes, as an upper bound' if within else 'no'}; what was computed is "
        f"{'less' if within else 'more'} than what the GPUs could have computed in that time, "
        f"{' and '.join(f'{share:.0%}' for share in shares.values())} of it. The BLEU on WMT 2014 "
        "was not measured here: it takes a GPU for days, and the recipes are below."
    )


def _costs(settings: Settings, costs: Mapping[str, Any]) -> Section:
    rows = []
    for name, cost in costs.items():
        forward, backward = (
            sum(cost[way].values()) / cost["target_tokens"] for way in ("forward", "backward")
        )
        paper = _PAPER.get(name)
        rows.append(
            [
                name,
                f"{cost['parameters'] / 1e6:.1f} M",
                f"{forward / 1e6:,.0f} M",
                f"{backward / 1e6:,.0f} M",
                f"{cost['total'] / six_times_parameters(cost):.2f}",
                _power(_whole(cost, paper)) if paper else "–",
                _power(paper.flops) if paper else "–",
            ]
        )
    return Section(
        "What a configuration costs",
        [
            f"For a target token and a source token, in sentences of {settings.length} tokens and "
            f"with {settings.vocab_size:,} subwords. The ratio compares with the usual estimate "
            "of 6 operations for each parameter and target token.",
            Table(
                ["model", "parameters", "forward", "backward", "by 6 N", "training", "the paper"],
                rows,
            ),
        ],
    )


def _lengths(name: str, by_length: Mapping[int, Any]) -> Section:
    rows = []
    for n, cost in by_length.items():
        attention = cost["forward"].get(ATTENTION, 0) + cost["backward"].get(ATTENTION, 0)
        rows.append(
            [f"{n:,}", f"{_a_token(cost) / 1e6:,.0f} M", f"{attention / cost['total']:.1%}"]
        )
    return Section(
        "And how that depends on the length",
        [
            f"{name}, for a target token and a source token. Attention's own products, without "
            "its projections, are what grows with the length of a sentence.",
            Table(["tokens of a sentence", "operations", "of which attention"], rows),
        ],
    )


def _run(cost: Mapping[str, Any], settings: Settings) -> Section:
    counted = _a_token(cost) * cost["tokens_a_step"] * cost["steps"]
    formula = cost["seconds"] * settings.gpus * settings.sustained
    return Section(
        f"The run {cost['directory']}",
        [
            f"{cost['steps']:,} steps of {cost['tokens_a_step']:,.0f} target tokens in "
            f"{cost['seconds'] / 3600:.2f} h: {_power(counted)} operations, counted on pairs of "
            f"its corpus. The paper's formula, with {settings.gpus} × "
            f"{_power(settings.sustained)} FLOP/s, gives {_power(formula)}: the run used "
            f"{counted / formula:.0%} of what its hardware is said to sustain."
        ],
    )


def _systems() -> Section:
    rows = [[cell or "–" for cell in system] for system in _SYSTEMS]
    return Section(
        "Published systems",
        [
            "As the paper's Table 2 has them: newstest2014, tokenised BLEU with compounds split "
            "(`npformer evaluate --tokenize paper`), and its estimates of training costs.",
            Table(["system", "BLEU en-de", "en-fr", "FLOPs en-de", "en-fr"], rows),
            "Ours has not been trained on WMT 2014. What has been trained, on a GPU and on other "
            "texts, stands in [the benchmarks](../benchmarks.md#translation-quality).",
        ],
    )


def _recipes() -> Section:
    names = [f"wmt14-en-{language}-{size}" for language in ("de", "fr") for size in ("base", "big")]
    links = ", ".join(f"[{name}](../../train/configs/{name}.yaml)" for name in names)
    return Section(
        "The recipes", [f"Each begins with its commands, from the download to the score: {links}."]
    )


def _power(number: float) -> str:
    """2.3e19, as in the paper."""
    return f"{number:.1e}".replace("e+", "e")


EXPERIMENT = Experiment(
    "table2",
    {
        "toy": Settings(("tiny",), 100, 5, (5, 10), None, None, 1, _P100),
        "small": Settings(
            (
                "base",
                "big",
                "table3/A/heads=1",
                "table3/B/d_k=16",
                "table3/C/layers=2",
                "table3/C/d_model=256",
                "table3/C/d_ff=4096",
                "small",
                "tiny",
            ),
            37_000,
            27,
            (10, 27, 100, 400, 1600),
            None,
            None,
            1,
            _P100,
        ),
    },
    measure,
)
