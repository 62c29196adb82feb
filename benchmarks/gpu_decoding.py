"""Translation on a GPU against PyTorch with cached keys and values, in the same run.

    python -m benchmarks.gpu_decoding --beam 4

3,003 sentences of newstest's lengths, base, bfloat16, the same weights on both sides. Weights are
random, so translations rarely end by themselves; they are cut 10 tokens beyond the source's length.
Sides take turns, each in its own process and with its best batch size.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contest import Contest, Makers, Turn, hold, hold_again, last_lines, ratio
from benchmarks.gpu_batches import BEGIN, END, newstest_sources
from benchmarks.report import gpu, keep, positive, publish, result_file, summary
from npformer import Packed, SearchSettings, Transformer, TransformerConfig, search
from npformer.batch import batches_of_similar_length

VOCABULARY, EXTRA = 37_000, 10
BATCH_TOKENS = (8_192, 32_768)  # source tokens, including padding


def model_of(name: str) -> Transformer:
    return Transformer(TransformerConfig.preset(name, vocab_size=VOCABULARY), seed=0)


def our_side(imported: Callable[[], None], name: str, beam: int, batch_tokens: int) -> Turn:
    imported()
    model = model_of(name).to("cupy", "bf16")
    settings = SearchSettings(beam, extra_length=EXTRA)
    sources = newstest_sources()

    def turn() -> None:
        for batch in batches_of_similar_length(sources, batch_tokens):
            source = Packed.of([[*sources[i], END] for i in batch])
            search(model, source, settings, BEGIN, END)

    return turn


def torch_side(imported: Callable[[], None], name: str, beam: int, batch_tokens: int) -> Turn:
    import torch

    from benchmarks.torch_decoding import translate
    from benchmarks.torch_transformer import TorchTransformer, copy_parameters

    imported()
    ours = model_of(name)
    model = TorchTransformer(ours.config)
    copy_parameters(ours, model)
    model = model.to("cuda", torch.bfloat16).eval()
    settings = SearchSettings(beam, extra_length=EXTRA)
    sources = newstest_sources()

    def turn() -> None:
        translate(model, sources, settings, BEGIN, END, batch_tokens)

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], default="base")
    parser.add_argument("--beam", type=positive, default=4)
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each side")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    gpu()

    makers: dict[str, tuple[Any, ...]] = {}
    for tokens in BATCH_TOKENS:
        makers[f"ours-{tokens}"] = (our_side, options.config, options.beam, tokens)
        makers[f"torch-{tokens}"] = (torch_side, options.config, options.beam, tokens)
    about = {
        "benchmark": "gpu_decoding",
        "config": options.config,
        "beam": options.beam,
        "backend": "cupy",
    }
    publish(contested(makers, options.rounds, about, options.out), options.out)


def contested(
    makers: Makers, rounds: int, about: dict[str, Any], out: Path | None = None
) -> dict[str, Any]:
    """The result of all sides together, and then of each that failed, with ours alone.

    The contest in which the peer does best counts. The result so far is kept in `out`.
    """

    def result(contest: Contest) -> dict[str, Any]:
        return {**about, "failed": last_lines(contest.failed), **compared(contest.seconds)}

    contest = hold(makers, rounds, after_round=lambda contest: keep(result(contest), out))
    failed = contest.failed
    results = [result(contest)]
    keep(results[0], out)
    results += map(result, hold_again(makers, failed, rounds).values())
    for error in failed.values():
        print(error, file=sys.stderr)

    def of_peer(found: dict[str, Any]) -> float:
        return float(found["peers"].get("torch", {}).get("ms", math.inf) / found["ours"]["ms"])

    best = min(results, key=of_peer)
    sides = {name: side for found in reversed(results) for name, side in found["all"].items()}
    return {**best, "all": sides, "failed": last_lines(failed)}


def compared(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """All sides, and the best of ours compared with the best of theirs."""
    # Tokens if all translations reach their limit; both sides generate about as many.
    tokens = sum(len(source) + EXTRA for source in newstest_sources())
    results = {name: summary(s, [tokens] * len(s)) for name, s in seconds.items()}

    def best(who: str) -> str | None:
        of_one = (n for n in results if n.startswith(who))
        return min(of_one, key=lambda n: results[n]["ms"], default=None)

    ours, theirs = best("ours"), best("torch")
    assert ours is not None
    found: dict[str, Any] = {"ours": results[ours], "peers": {}, "all": results}
    if theirs is None:
        return found
    found["peers"]["torch"] = results[theirs]
    if len(seconds[ours]) > 1:
        speedup = ratio(seconds[ours], seconds[theirs])
        found["speedup"] = {"torch": speedup["median"]}
        found["speedup_quartiles"] = {"torch": [speedup["low"], speedup["high"]]}
    return found


if __name__ == "__main__":
    main()
