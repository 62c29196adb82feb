r"""From the start of a process to its first translation, compared with CTranslate2 in the same run.

    python -m benchmarks.start --model DIR [--rounds 20] [--out FILE]

Each side is a fresh process that translates one sentence: the command `translate`, the smallest
program that uses the library, the same command without numba, and CTranslate2's smallest program,
with SentencePiece. CTranslate2 has a model of the same sizes with random parameters, and its
translation has as many tokens as ours. Sides take turns. One run of each comes before, so that
loops are compiled and files are in memory.

Beside the time until the first line is written there are the seconds of processors that the whole
process used: those count where a machine is shared. Bytecode is kept, as of an installed package.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.contest import ratio
from benchmarks.report import positive, publish, result_file
from npformer import Transformer, Translator

_LIBRARY = """
import sys
from npformer import Translator
print(Translator.load(sys.argv[1]).translate([sys.argv[2]])[0].text, flush=True)
"""

_WITHOUT_NUMBA = """
import runpy, sys
sys.modules["numba"] = None
runpy.run_module("train", run_name="__main__", alter_sys=True)
"""

_CTRANSLATE2 = """
import sys
import ctranslate2
import sentencepiece
directory, model, sentence, length = sys.argv[1:]
source = sentencepiece.SentencePieceProcessor(model_file=f"{model}/source.spm")
target = sentencepiece.SentencePieceProcessor(model_file=f"{model}/target.spm")
translator = ctranslate2.Translator(directory, compute_type="float32")
tokens = [str(i) for i in source.encode(sentence)] + ["2"]
found = translator.translate_batch(
    [tokens], beam_size=4, min_decoding_length=int(length), max_decoding_length=int(length)
)
print(target.decode([int(i) for i in found[0].hypotheses[0]]), flush=True)
"""


class Run(NamedTuple):
    """Seconds until the first line was written, and those of processors until the end."""

    first: float
    used: float


def run(command: list[str], given: str) -> Run:
    """Run a program that writes a translation. Exits with its errors if it writes none."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(given + "\n")
    process.stdin.close()
    line = process.stdout.readline()
    first = time.perf_counter() - start
    _, status, used = os.wait4(process.pid, 0)
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not line.strip():
        sys.exit(f"no result: {' '.join(command[:3])} has written no translation")
    return Run(first, used.ru_utime + used.ru_stime)


def sides(model: Path, sentence: str, directory: Path) -> dict[str, list[str]]:
    """The programs by name, with what they are given."""
    translate = ["translate", "--model", str(model)]
    found = {
        "ours": ["-m", "train", *translate],
        "library": ["-c", _LIBRARY, str(model), sentence],
        "without-numba": ["-c", _WITHOUT_NUMBA, *translate],
    }
    try:
        from benchmarks.ctranslate2_model import save
    except ImportError:
        return found
    translator = Translator.load(model)
    length = len(translator.tokenizers.target.encode(translator.translate([sentence])[0].text)) + 1
    alike = dataclasses.replace(
        translator.model.config,
        norm="post",
        positions="concatenated",
        source_vocab_size=None,
        share_embeddings="all",
        longest=None,
    )
    save(Transformer(alike, seed=0), directory)
    return {
        **found,
        "ctranslate2": ["-c", _CTRANSLATE2, str(directory), str(model), sentence, str(length)],
    }


def summary(runs: list[Run]) -> dict[str, Any]:
    """The median of runs and the fastest, and the distance between quartiles as a share."""
    first = [run.first for run in runs]
    middle = statistics.median(first)
    low, _, high = statistics.quantiles(first, n=4) if len(first) > 1 else (middle,) * 3
    return {
        "ms": round(middle * 1000, 1),
        "fastest_ms": round(min(first) * 1000, 1),
        "cpu_ms": round(statistics.median(run.used for run in runs) * 1000, 1),
        "spread": round((high - low) / middle, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="a model's directory")
    parser.add_argument("--sentence", default="a man in a blue shirt is standing on a ladder .")
    parser.add_argument("--rounds", type=positive, default=20, help="processes of each side")
    parser.add_argument("--out", type=result_file, help="a file for the result")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        programs = sides(options.model, options.sentence, Path(directory, "model"))
        runs: dict[str, list[Run]] = {name: [] for name in programs}
        for turn in range(options.rounds + 1):
            for name, command in programs.items():
                measured = run(command, options.sentence)
                if turn:
                    runs[name].append(measured)
    results = {name: summary(measured) for name, measured in runs.items()}
    ours, seconds = results.pop("ours"), {n: [one.first for one in of] for n, of in runs.items()}
    ratios = {name: ratio(seconds["ours"], seconds[name]) for name in results}
    publish(
        {
            "benchmark": "start",
            "config": options.model.name,
            "backend": "numpy",
            "ours": ours,
            "peers": results,
            "speedup": {name: r["median"] for name, r in ratios.items()},
            "speedup_quartiles": {name: [r["low"], r["high"]] for name, r in ratios.items()},
            "speedup_cpu": {
                name: round(x["cpu_ms"] / ours["cpu_ms"], 3) for name, x in results.items()
            },
        },
        options.out,
    )


if __name__ == "__main__":
    main()
