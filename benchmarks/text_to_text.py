r"""A text translated from lines to lines, compared with CTranslate2 with the same weights.

    python -m benchmarks.text_to_text --model DIR --source FILE --lines 1000 --beam 5 --json

Both sides have the same tokenizers, of our model's directory, and split, translate and join the
whole text in a turn. CTranslate2 has the model as `npformer export` writes it, and sorts and
divides the text itself; it takes part with several divisions of the threads and sizes of batches,
of which the fastest counts. Lines whose translations differ are counted. Sides take turns, each in
its own process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.contest import Side, Turn, load_compiled_loops, ratio, take_turns
from benchmarks.report import positive, publish, result_file, summary
from benchmarks.without_avx512 import WithoutAVX512
from npformer.formats.exporting import export_model
from npformer.translator import Translator
from train.corpora.text import read_lines

CTRANSLATE2S: dict[str, Any] = {"penalty": "power", "length_penalty": 1.0, "stop": "beam"}
"""The length penalty that CTranslate2 has, too, and its rule for when a sentence is done."""

EXTRA = 50  # tokens of a translation more than its source has
DIVISIONS = {"one-batch": 1, "two-batches": 2}  # at a time, which share the threads
BATCHES = 32, 64, 128  # sentences of CTranslate2's batches


def our_side(imported: Any, model: Path, lines: list[str], beam: int, out: Path) -> Turn:
    load_compiled_loops()
    imported()
    translator = Translator.load(model)

    def turn() -> None:
        found = translator.translate(lines, beam=beam, extra_length=EXTRA, **CTRANSLATE2S)
        out.write_text("".join(f"{each.text}\n" for each in found))

    return turn


def ctranslate2_side(
    imported: Any, model: Path, lines: list[str], beam: int, out: Path, inter: int, batch: int
) -> Turn:
    import ctranslate2

    tokenizers = Translator.load(model).tokenizers
    source, target = tokenizers.source, tokenizers.target
    ids = {piece: i for i, piece in enumerate(target.pieces(range(target.vocab_size)))}
    with tempfile.TemporaryDirectory() as directory:
        exported = Path(directory, "model")
        export_model(model, exported, "ctranslate2")
        imported()
        translator = ctranslate2.Translator(
            str(exported),
            compute_type="float32",
            inter_threads=inter,
            intra_threads=max(1, len(os.sched_getaffinity(0)) // inter),
        )

    def turn() -> None:
        pieces = [source.pieces(encoded) for encoded in source.encode_lines(lines)]
        found = translator.translate_batch(
            pieces,
            beam_size=beam,
            length_penalty=1.0,
            max_batch_size=batch,
            max_decoding_length=max(map(len, pieces)) + EXTRA,
        )
        texts = [target.decode([ids[piece] for piece in each.hypotheses[0]]) for each in found]
        out.write_text("".join(f"{text}\n" for text in texts))

    return turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="directory of a model")
    parser.add_argument("--source", type=Path, required=True, help="text to translate")
    parser.add_argument("--lines", type=positive, default=1000, help="of the text, at most")
    parser.add_argument("--beam", type=positive, default=5)
    parser.add_argument("--rounds", type=positive, default=5, help="turns of each side")
    parser.add_argument("--warmup", type=int, default=1, help="turns before those, not measured")
    parser.add_argument("--json", action="store_true", help="for scripts: the result is one line")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    parser.add_argument("--without-avx512", action=WithoutAVX512)
    options = parser.parse_args()

    lines = list(islice(read_lines(options.source), options.lines))
    with tempfile.TemporaryDirectory() as folder:
        texts = {"ours": Path(folder, "ours")}
        task = options.model, lines, options.beam
        sides = {"ours": Side(our_side, *task, texts["ours"])}
        for division, inter in DIVISIONS.items():
            for batch in BATCHES:
                name = f"ctranslate2-float32-{division}-of-{batch}"
                texts[name] = Path(folder, name)
                sides[name] = Side(ctranslate2_side, *task, texts[name], inter, batch)
        seconds = take_turns(sides, options.rounds, options.warmup)
        found = {name: path.read_text().splitlines() for name, path in texts.items()}
    results = {
        name: {**summary(seconds[name], [len(lines)] * options.rounds), **side.close()}
        for name, side in sides.items()
    }
    for name, result in results.items():
        result["lines_per_s"] = result.pop("tokens_per_s")
        result["different_lines"] = sum(map(str.__ne__, found[name], found["ours"]))
    ratios = {name: ratio(seconds["ours"], seconds[name]) for name in sides if name != "ours"}
    publish(
        {
            "benchmark": "text_to_text",
            "config": options.model.name,
            "backend": "numpy",
            "beam": options.beam,
            "lines": len(lines),
            "ours": results.pop("ours"),
            "peers": results,
            "speedup": {name: r["median"] for name, r in ratios.items()},
            "speedup_quartiles": {name: [r["low"], r["high"]] for name, r in ratios.items()},
        },
        options.out,
    )


if __name__ == "__main__":
    main()
