r"""Translation compared with CTranslate2, with the same weights, and PyTorch, in the same run.

    python -m benchmarks.translation --config tiny|base|marian --peer torch|ctranslate2 \
        --beam 4 --batch 64 --json
    python -m benchmarks.translation --config base --weights int8

Sentences of 20 tokens are translated into 30; no side may end earlier. Models have random
parameters, which does not affect speed. `marian` has the shapes and options of an OPUS-MT model:
base with swish, a bias of the logits, and a vocabulary of 58,101. PyTorch is the `generate` of
transformers' Marian model, with a KV cache. CTranslate2 computes in float32, or with weights in 8
bits where ours are, with two divisions of the threads, of which the faster counts. Our float32 is
then another peer, and PyTorch, which has no such weights, is not. Sides take turns, each in its own
process.

One sentence at a time waits for its weights: how long a plain read of them takes, as often as steps
read them, is in the result as `read`, with the fraction of our time that it is.

On a machine that others use, too, --one-thread compares the processor's time of one thread.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest import Side, Turn, load_compiled_loops, ratio, take_turns
from benchmarks.plain_read import bytes_of_a_step, read_side
from benchmarks.report import positive, publish, result_file, summary
from benchmarks.without_avx512 import WithoutAVX512
from npformer import Packed, Transformer, TransformerConfig

SOURCE, TARGET = 20, 30  # tokens, including the source's end
BEGIN, END = 1, 2
CONFIGS: dict[str, tuple[str, int, dict[str, Any]]] = {  # preset, vocabulary, and options
    "tiny": ("tiny", 10_000, {}),
    "base": ("base", 37_000, {}),
    "marian": ("base", 58_101, {"activation": "swish", "output_bias": True}),
}


def config_of(name: str) -> TransformerConfig:
    """The same model on every side; with the positions that Marian models have."""
    preset, vocabulary, chosen = CONFIGS[name]
    return TransformerConfig.preset(
        preset, vocab_size=vocabulary, positions="concatenated", position_spacing="d/2", **chosen
    )


def model_of(name: str) -> Transformer:
    return Transformer(config_of(name), seed=0)


def weighted(name: str, weights: str) -> Transformer:
    """Our side's model, in float32 or in 8 bits."""
    model = model_of(name)
    return model.quantize() if weights == "int8" else model


def sources_of(name: str, batch: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    ids = rng.integers(4, CONFIGS[name][1], (batch, SOURCE))
    ids[:, -1] = END
    return ids


def our_side(imported: Any, name: str, beam: int, batch: int, weights: str) -> Turn:
    from npformer.beam_search import search
    from npformer.search_settings import SearchSettings

    load_compiled_loops()
    imported()
    model = weighted(name, weights)
    source = Packed.of(sources_of(name, batch).tolist())
    settings = SearchSettings(beam, extra_length=TARGET - SOURCE + 1)

    def turn() -> None:
        found = search(model, source, settings, BEGIN, end_id=-1)
        assert all(len(hypotheses[0].ids) == TARGET for hypotheses in found)

    return turn


def ctranslate2_side(
    imported: Any, name: str, beam: int, batch: int, weights: str, inter: int
) -> Turn:
    import ctranslate2

    from benchmarks.ctranslate2_model import save

    with tempfile.TemporaryDirectory() as directory:
        save(model_of(name), Path(directory))
        imported()
        translator = ctranslate2.Translator(
            directory,
            compute_type="float32" if weights == "float32" else f"{weights}_float32",
            inter_threads=inter,
            intra_threads=max(1, _threads() // inter),
        )
    source = [[str(i) for i in row] for row in sources_of(name, batch).tolist()]

    def turn() -> None:
        results = translator.translate_batch(
            source,
            beam_size=beam,
            max_batch_size=-(-batch // inter),
            min_decoding_length=TARGET,
            max_decoding_length=TARGET,
        )
        assert all(len(r.hypotheses[0]) == TARGET for r in results)

    return turn


def _threads() -> int:
    """The threads of a side."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def timed_by_the_processor(imported: Any, side: Any, *task: Any) -> Turn:
    """A side whose turns are as long as its process has run."""
    turn = side(imported, *task)

    def timed() -> float:
        start = time.process_time()
        turn()
        return time.process_time() - start

    return timed


def torch_side(imported: Any, name: str, beam: int, batch: int) -> Turn:
    import torch
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    imported()
    torch.manual_seed(0)
    ours = config_of(name)
    sizes = {
        f"{side}_{what}": value
        for side in ("encoder", "decoder")
        for what, value in (
            ("layers", ours.layers),
            ("attention_heads", ours.heads),
            ("ffn_dim", ours.d_ff),
        )
    }
    config = MarianConfig(
        vocab_size=ours.vocab_size,
        d_model=ours.d_model,
        activation_function=ours.activation,
        scale_embedding=True,
        max_position_embeddings=512,
        pad_token_id=3,
        eos_token_id=END,
        bos_token_id=BEGIN,
        decoder_start_token_id=BEGIN,
        forced_eos_token_id=None,
        **sizes,
    )
    model = MarianMTModel(config).eval()
    source = torch.from_numpy(sources_of(name, batch))
    generation = GenerationConfig(
        num_beams=beam,
        do_sample=False,
        min_new_tokens=TARGET,
        max_new_tokens=TARGET,
        use_cache=True,
        pad_token_id=3,
        eos_token_id=END,
        bos_token_id=BEGIN,
        decoder_start_token_id=BEGIN,
    )

    @torch.inference_mode()
    def turn() -> None:
        found = model.generate(
            source, attention_mask=torch.ones_like(source), generation_config=generation
        )
        assert found.shape == (batch, TARGET + 1)

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", choices=CONFIGS, required=True)
    parser.add_argument("--peer", choices=["torch", "ctranslate2", "all"], default="all")
    parser.add_argument("--beam", type=positive, default=4)
    parser.add_argument("--batch", type=positive, default=64, help="sentences translated at once")
    parser.add_argument("--rounds", type=positive, default=10, help="turns of each side")
    parser.add_argument("--warmup", type=int, default=2, help="turns before those, not measured")
    parser.add_argument("--json", action="store_true", help="for scripts: the result is one line")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    parser.add_argument("--weights", choices=["float32", "int8"], default="float32")
    parser.add_argument("--one-thread", action="store_true", help="its processor time")
    parser.add_argument("--without-avx512", action=WithoutAVX512)
    options = parser.parse_args()
    if options.one_thread:
        names = "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"
        os.environ.update(dict.fromkeys(names, "1"))

    def side(*made: Any) -> Side:
        return Side(timed_by_the_processor, *made) if options.one_thread else Side(*made)

    task = options.config, options.beam, options.batch
    weights = options.weights
    sides = {"ours": side(our_side, *task, weights)}
    if weights != "float32":
        sides["ours-float32"] = side(our_side, *task, "float32")
    if options.peer in ("ctranslate2", "all"):
        theirs = f"ctranslate2-{weights}"
        sides[f"{theirs}-one-batch"] = side(ctranslate2_side, *task, weights, 1)
        if options.batch > 1 and not options.one_thread:
            sides[f"{theirs}-two-batches"] = side(ctranslate2_side, *task, weights, 2)
    if options.peer in ("torch", "all") and weights == "float32":
        sides["torch-float32"] = side(torch_side, *task)
    if options.batch == 1:
        sides["read"] = side(read_side, bytes_of_a_step(weighted(options.config, weights)), TARGET)
    seconds = take_turns(sides, options.rounds, options.warmup)
    tokens = [options.batch * TARGET] * options.rounds
    results = {
        name: {**summary(seconds[name], tokens), **one.close()} for name, one in sides.items()
    }
    ratios = {name: ratio(seconds["ours"], seconds[name]) for name in sides if name != "ours"}
    plain = {}
    if read := results.pop("read", None):
        plain["read"] = {"ms": read["ms"], "fraction": ratios.pop("read")["median"]}
    publish(
        {
            "benchmark": "translation",
            "config": options.config,
            "backend": "numpy",
            "weights": weights,
            "one_thread": options.one_thread,
            "beam": options.beam,
            "batch": options.batch,
            "ours": results.pop("ours"),
            "peers": results,
            "speedup": {name: r["median"] for name, r in ratios.items()},
            "speedup_quartiles": {name: [r["low"], r["high"]] for name, r in ratios.items()},
            **plain,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
