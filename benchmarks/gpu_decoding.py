"""Translation on a GPU against PyTorch with cached keys and values, in the same run.

    python -m benchmarks.gpu_decoding --beam 4
    python -m benchmarks.gpu_decoding --beam 1 --one-by-one

3,003 sentences of newstest's lengths, base, bfloat16, the same weights on all sides. Weights are
random, so translations rarely end by themselves; they are cut 10 tokens beyond the source's length.
Sides take turns, each in its own process and with its best batch size. CTranslate2 is a peer where
it is installed with CUDA; it cuts all sentences of a batch alike, 10 tokens beyond their mean
length.

With `--one-by-one` some of the sentences are translated greedily, each by itself, as a user waits
for them. PyTorch then has the best of eager, compiled and CUDA graphs.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import sys
import tempfile
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
ONE_BY_ONE = 40  # sentences
PEERS = ("torch", "ctranslate2")


def model_of(name: str) -> Transformer:
    return Transformer(TransformerConfig.preset(name, vocab_size=VOCABULARY), seed=0)


def sources_of(one_by_one: bool) -> list[list[int]]:
    """The sentences, or some of them at equal distances."""
    sources = newstest_sources()
    return sources[:: -(-len(sources) // ONE_BY_ONE)] if one_by_one else sources


def our_side(imported: Callable[[], None], name: str, beam: int, batch_tokens: int) -> Turn:
    """batch_tokens: 0 for one sentence at a time"""
    imported()
    model = model_of(name).to("cupy", "bf16")
    settings = SearchSettings(beam, extra_length=EXTRA)
    sources = sources_of(not batch_tokens)

    def turn() -> None:
        if batch_tokens:
            batches = batches_of_similar_length(sources, batch_tokens)
        else:
            batches = [[i] for i in range(len(sources))]
        for batch in batches:
            source = Packed.of([[*sources[i], END] for i in batch])
            search(model, source, settings, BEGIN, END)

    return turn


def torch_side(imported: Callable[[], None], name: str, beam: int, batch_tokens: int) -> Turn:
    from benchmarks.torch_decoding import translate

    imported()
    model = _torch_model(name)
    settings = SearchSettings(beam, extra_length=EXTRA)
    sources = newstest_sources()

    def turn() -> None:
        translate(model, sources, settings, BEGIN, END, batch_tokens)

    return turn


def torch_greedy_side(imported: Callable[[], None], name: str, how: Any) -> Turn:
    """One sentence at a time."""
    from benchmarks.torch_greedy import Greedy

    imported()
    greedy = Greedy(_torch_model(name), how, BEGIN, END)
    sources = sources_of(one_by_one=True)

    def turn() -> None:
        for source in sources:
            greedy([*source, END], len(source) + EXTRA)

    turn()  # compiles, or captures, for all sizes
    return turn


def _torch_model(name: str) -> Any:
    import torch

    from benchmarks.torch_transformer import TorchTransformer, copy_parameters

    ours = model_of(name)
    model = TorchTransformer(ours.config)
    copy_parameters(ours, model)
    return model.to("cuda", torch.bfloat16).eval()


def ctranslate2_side(
    imported: Callable[[], None], name: str, beam: int, batch_tokens: int, device: str = "cuda"
) -> Turn:
    """batch_tokens: 0 for one sentence at a time"""
    import ctranslate2

    from benchmarks.ctranslate2_model import save

    with tempfile.TemporaryDirectory() as directory:
        save(model_of(name), Path(directory))
        imported()
        translator = ctranslate2.Translator(
            directory, device=device, compute_type="bfloat16" if device == "cuda" else "float32"
        )
    sources = sources_of(not batch_tokens)
    tokens = [[str(i) for i in [*source, END]] for source in sources]
    if batch_tokens:
        batches = batches_of_similar_length(sources, batch_tokens)
    else:
        batches = [[i] for i in range(len(sources))]

    def turn() -> None:
        for batch in batches:
            mean = statistics.mean(len(sources[i]) for i in batch)
            translator.translate_batch(
                [tokens[i] for i in batch],
                beam_size=beam,
                length_penalty=0.6,
                max_decoding_length=math.ceil(mean) + EXTRA,
            )

    return turn


def makers_of(config: str, beam: int, one_by_one: bool) -> dict[str, tuple[Any, ...]]:
    """All sides: CTranslate2 where it is installed."""
    makers: dict[str, tuple[Any, ...]] = {}
    for tokens in (0,) if one_by_one else BATCH_TOKENS:
        size = tokens or "one"
        makers[f"ours-{size}"] = (our_side, config, beam, tokens)
        if tokens:
            makers[f"torch-{size}"] = (torch_side, config, beam, tokens)
        if importlib.util.find_spec("ctranslate2"):
            makers[f"ctranslate2-{size}"] = (ctranslate2_side, config, beam, tokens)
    if one_by_one:
        for how in ("eager", "compiled", "graph"):
            makers[f"torch-{how}"] = (torch_greedy_side, config, how)
    return makers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=["base", "big"], default="base")
    parser.add_argument("--beam", type=positive, default=4)
    parser.add_argument(
        "--one-by-one", action="store_true", help=f"{ONE_BY_ONE} sentences, each by itself"
    )
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each side")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()
    if options.one_by_one and options.beam > 1:
        parser.error("--one-by-one is greedy: give --beam 1")
    gpu()
    makers = makers_of(options.config, options.beam, options.one_by_one)
    about = {
        "benchmark": "gpu_decoding",
        "config": options.config,
        "beam": options.beam,
        "sentences": len(sources_of(options.one_by_one)),
        "one_by_one": options.one_by_one,
        "backend": "cupy",
    }
    publish(contested(makers, options.rounds, about, options.out), options.out)


def contested(
    makers: Makers, rounds: int, about: dict[str, Any], out: Path | None = None
) -> dict[str, Any]:
    """The result of all sides together, and then of each that failed, with ours alone.

    For each peer the contest counts in which it does best. The result so far is kept in `out`.
    """
    sources = sources_of(bool(about.get("one_by_one")))
    # Tokens if all translations reach their limit; all sides generate about as many.
    tokens = sum(len(source) + EXTRA for source in sources)

    def result(contest: Contest) -> dict[str, Any]:
        return {**about, "failed": last_lines(contest.failed), **compared(contest.seconds, tokens)}

    contest = hold(makers, rounds, after_round=lambda contest: keep(result(contest), out))
    failed = contest.failed
    results = [result(contest)]
    keep(results[0], out)
    results += map(result, hold_again(makers, failed, rounds).values())
    for error in failed.values():
        print(error, file=sys.stderr)

    def best_for(peer: str) -> dict[str, Any]:
        def ratio_of(found: dict[str, Any]) -> float:
            return float(found["peers"].get(peer, {}).get("ms", math.inf) / found["ours"]["ms"])

        return min(results, key=ratio_of)

    merged = dict(best_for(PEERS[0]))
    for peer in PEERS[1:]:
        found = best_for(peer)
        for key in ("peers", "speedup", "speedup_quartiles"):
            if peer in found.get(key, {}):
                merged[key] = {**merged.get(key, {}), peer: found[key][peer]}
    sides = {name: side for found in reversed(results) for name, side in found["all"].items()}
    return {**merged, "all": sides, "failed": last_lines(failed)}


def compared(seconds: dict[str, list[float]], tokens: int) -> dict[str, Any]:
    """All sides, and the best of ours compared with the best of each peer's.

    tokens: of all translations together
    """
    results = {name: summary(s, [tokens] * len(s)) for name, s in seconds.items()}

    def best(who: str) -> str | None:
        of_one = (n for n in results if n.startswith(who))
        return min(of_one, key=lambda n: results[n]["ms"], default=None)

    ours = best("ours")
    assert ours is not None
    found: dict[str, Any] = {"ours": results[ours], "peers": {}, "all": results}
    for peer in PEERS:
        theirs = best(peer)
        if theirs is None:
            continue
        found["peers"][peer] = results[theirs]
        if len(seconds[ours]) > 1:
            speedup = ratio(seconds[ours], seconds[theirs])
            found.setdefault("speedup", {})[peer] = speedup["median"]
            quartiles = [speedup["low"], speedup["high"]]
            found.setdefault("speedup_quartiles", {})[peer] = quartiles
    return found


if __name__ == "__main__":
    main()
