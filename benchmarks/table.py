"""The tables of README.md and of docs, from what is in benchmarks/results.

python -m benchmarks.table [README.md|docs/benchmarks.md|docs/gpu.md]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.markdown import NOTHING, Table, head, line
from benchmarks.report import RESULTS

Result = dict[str, Any]
# The names of result folders in a table; other folders keep their own.
MACHINES = {
    "xeon-avx512": "Xeon AVX-512",
    "xeon-avx2-only": "Xeon, AVX2 only",  # of benchmarks/without_avx512.py
    "epyc-avx2": "EPYC AVX2",
    "epyc-avx512": "EPYC AVX-512",
    "h100": "H100",
}

_NAMES = {
    "torch": "PyTorch",
    "ctranslate2": "CTranslate2",
    "torch-float32": "PyTorch",
    "torch-float32-compiled": "PyTorch, compiled",
    "torch-bfloat16": "PyTorch, bfloat16",
    "torch-bfloat16-compiled": "PyTorch, bfloat16, compiled",
    "torch-packed": "PyTorch, packed",
    "torch-packed-compiled-dynamic": "PyTorch, packed, compiled",
    "torch-filled-compiled": "PyTorch, filled up, compiled",
    "torch-filled-cudagraphs": "PyTorch, filled up, CUDA graphs",
    "jax-float32": "JAX",
    "jax-bfloat16": "JAX, bfloat16",
    "jax-xla": "JAX, packed in rows",
    "jax-cudnn": "JAX, packed in rows, cuDNN's attention",
    "ctranslate2-float32-one-batch": "CTranslate2",
    "ctranslate2-float32-two-batches": "CTranslate2, two batches at once",
    "ctranslate2-int8-one-batch": "CTranslate2, int8",
    "ctranslate2-int8-two-batches": "CTranslate2, int8, two batches at once",
    **{
        f"ctranslate2-float32-{division}-of-{batch}": f"CTranslate2, {name.format(batch)}"
        for division, name in (
            ("one-batch", "batches of {}"),
            ("two-batches", "two batches of {} at once"),
        )
        for batch in (32, 64, 128)  # of text_to_text.py
    },
    "ctranslate2-whole": "CTranslate2, all tokens",
    "ctranslate2-vmap": "CTranslate2, the same shortlist",
    "ours-whole": "npformer, all tokens",
    "ours-float32": "npformer, float32",
    "library": "npformer as a library",
    "without-numba": "npformer without numba",
}

# Kernels, by the names that earlier results give them.
_KERNELS = {
    "decoding: keys and values kept": "decoding: append to the cache",
    "decoding: attention to what was said": "decoding: self-attention",
    "decoding: the likeliest 8 symbols": "decoding: top 8 tokens",
}

# The rows of the README: their subject, result, and the section with all results. There is one for
# each kind of work, including those in which the peer is faster.
_HIGHLIGHTS = (
    ("a training step of base", "xeon-avx512/training-step-base", "training-on-a-cpu"),
    (
        "translation with base, beam 4, 64 sentences at once",
        "xeon-avx512/translation-base-beam4-batch64",
        "translation-on-a-cpu",
    ),
    (
        "translation with tiny, greedy, one sentence at a time",
        "xeon-avx512/translation-tiny-beam1-batch1",
        "translation-on-a-cpu",
    ),
    ("a training step of base, 25,000 tokens", "h100/gpu-training-base-25000", "speed-on-a-gpu"),
    ("a training step of base, 4,096 tokens", "h100/gpu-training-base-4096", "speed-on-a-gpu"),
    ("Multi30k, English to German, 8,000 steps", "h100/gpu-multi30k", "translation-quality"),
)

_PUBLISHED = "41.02 BLEU (published, fairseq)"  # of multi30k-tiny's recipe: docs/multi30k.md


def load(backend: str | None = None) -> dict[str, list[Result]]:
    """The results of a backend, or of all, in the order of files, by machine; most first."""
    found: dict[str, list[Result]] = {}
    for path in sorted(RESULTS.glob("*/*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if backend in (None, result.get("backend")):
            found.setdefault(path.parent.name, []).append(result)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


Row = tuple[tuple[str, ...], list[str]]
"""The subjects of a row of a table, and the cells of a machine."""


def highlights() -> Table:
    """A row for each kind of work: ours, the fastest peer, and a link."""
    lines = head(["what", "npformer", "the best peer", "ratio", "machine", ""])
    for about, name, section in _HIGHLIGHTS:
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        machine = MACHINES[name.split("/")[0]]
        if "peers" in result:
            best = max(result["peers"], key=lambda peer: result["peers"][peer]["tokens_per_s"])
            ours, theirs = result["ours"], result["peers"][best]
            sides = [_speed(result, ours), f"{_speed(result, theirs)} ({_NAMES[best]})"]
            cells = [*sides, _ratio(result, best)]
        else:
            cells = [f"{result['bleu']:.2f} BLEU", _PUBLISHED, NOTHING]
        lines.append(line([about, *cells, machine, f"[more](docs/benchmarks.md#{section})"]))
    return lines


def machines() -> Table:
    """The machine of each column, and its software."""
    lines = head(["machine", "processor", "cores", "card and its driver", "software"])
    for name, results in load().items():
        machine_info, versions = results[0]["machine"], results[0]["versions"]
        software = ", ".join(f"{package} {version}" for package, version in versions.items())
        card = next(iter(machine_info.get("gpus", [])), NOTHING)
        cells = [
            MACHINES.get(name, name),
            machine_info["cpu"],
            str(machine_info["cores"]),
            card,
            software,
        ]
        lines.append(line(cells))
    return lines


def training() -> Table:
    """A row for each peer of each training benchmark on a CPU."""

    def rows(result: Result) -> Iterator[Row]:
        if result["benchmark"] in ("training_step", "end_to_end"):
            step = result["benchmark"] == "training_step"
            name = f"a step of {result['config']}" if step else f"{result['config']}, end to end"
            for peer in result["peers"]:
                yield (name, _NAMES.get(peer, peer)), [*_rates(result, peer), _memory(result, peer)]

    heads = ["npformer : peer, tokens/s", "ratio", "memory"]
    return _side_by_side(["training", "peer"], heads, rows)


def translation() -> Table:
    """A row for each peer of each translation benchmark on a CPU."""

    def rows(result: Result) -> Iterator[Row]:
        if result["benchmark"] == "translation":
            name = _of_search(result)
            for peer in result["peers"]:
                yield (name, _NAMES.get(peer, peer)), _rates(result, peer)

    return _side_by_side(["translation", "peer"], ["npformer : peer, tokens/s", "ratio"], rows)


def reads() -> Table:
    """The share of one sentence's time that a plain read of its weights takes on a CPU."""

    def rows(result: Result) -> Iterator[Row]:
        if read := result.get("read"):
            name = _of_search(result)
            times = [f"{result['ours']['ms']:,.1f}", f"{read['ms']:,.1f}"]
            yield (name,), [*times, f"{read['fraction']:.2f}"]

    heads = ["ms", "a plain read, ms", "fraction"]
    return _side_by_side(["one sentence with"], heads, rows)


def texts() -> Table:
    """A row for each setting of CTranslate2 that translates a text from lines to lines."""

    def rows(result: Result) -> Iterator[Row]:
        if result["benchmark"] == "text_to_text":
            name = f"{result['config']}, beam {result['beam']}, {result['lines']:,} lines"
            ours = result["ours"]["lines_per_s"]
            for peer, theirs in result["peers"].items():
                rates = f"{ours:,.0f} : {theirs['lines_per_s']:,.0f}"
                cells = [rates, _ratio(result, peer), str(theirs["different_lines"])]
                yield (name, _NAMES.get(peer, peer)), cells

    heads = ["npformer : peer, lines/s", "ratio", "other lines"]
    return _side_by_side(["a text with", "peer"], heads, rows)


def shortlists() -> Table:
    """A row for each peer of a search with a shortlist, and its BLEU where it was scored."""

    def rows(result: Result) -> Iterator[Row]:
        if result["benchmark"] == "shortlist":
            name = f"{_of_search(result)}, {result['tokens']['of_a_batch']:,.0f} tokens"
            scores = result.get("quality", {}).get("bleu")
            for peer in result["peers"]:
                bleu = NOTHING
                if scores and peer == "ours-whole":
                    bleu = f"{scores['shortlist']:.2f} : {scores['whole']:.2f}"
                yield (name, _NAMES.get(peer, peer)), [*_rates(result, peer), bleu]

    heads = ["npformer : peer, tokens/s", "ratio", "BLEU"]
    return _side_by_side(["with a shortlist", "peer"], heads, rows)


def starts() -> Table:
    """The time from the start of a process to its first translation on a CPU."""

    def rows(result: Result) -> Iterator[Row]:
        if result["benchmark"] == "start":
            for peer, theirs in result["peers"].items():
                times = f"{result['ours']['ms']:,.0f} : {theirs['ms']:,.0f}"
                yield (_NAMES.get(peer, peer),), [times, _ratio(result, peer)]

    return _side_by_side(["peer"], ["npformer : peer, ms", "ratio"], rows)


def rooflines() -> Table:
    """The share of each step's time that its matrix products alone take on a CPU."""

    def rows(result: Result) -> Iterator[Row]:
        if products := result.get("roofline"):
            times = [f"{result['ours']['ms']:,.0f}", f"{products['ms']:,.0f}"]
            yield (result["config"],), [*times, f"{products['fraction']:.2f}"]

    heads = ["ms", "its products alone, ms", "fraction"]
    return _side_by_side(["a step of"], heads, rows)


def gpu() -> Table:
    """A row for each peer of each benchmark on a GPU."""
    lines = head(["on a GPU", "card", "npformer, ms", "peer", "peer, ms", "ratio", "memory"])
    for machine, result in _of_gpus("gpu_training", "gpu_decoding"):
        if result["benchmark"] == "gpu_training":
            tokens = f"{result['tokens']:,}"
            name = f"a step of {result['config']}, {tokens} + {tokens} tokens"
            if result.get("fresh"):
                name += ", no batch twice"
        else:
            name = f"{result['config']}, beam {result['beam']}, 3,003 sentences"
            if result.get("one_by_one"):
                name = f"{result['config']}, greedy, one sentence at a time"
        for peer, theirs in result["peers"].items():
            times = f"{result['ours']['ms']:,.1f}", _NAMES.get(peer, peer), f"{theirs['ms']:,.1f}"
            cells = [name, machine, *times, _ratio(result, peer), _memory(result, peer)]
            lines.append(line(cells))
    return lines


def learned() -> Table:
    """A row for each test set on which a model trained on a GPU was scored."""
    lines = head(["trained on a GPU", "card", "steps", "seconds", "test set", "BLEU", "signature"])
    found = [*_of_gpus("gpu_multi30k", "gpu_base")]
    found += [(machine, result["pre_norm"]) for machine, result in found if "pre_norm" in result]
    for machine, result in found:
        name = f"{result['config']}, seed {result['seed']}"
        if result.get("norm") == "pre":
            name += ", pre-norm"
        of_one = {"test_2016_flickr": result} if "bleu" in result else {}  # or it was interrupted
        scores = result.get("scores", of_one)
        for test, score in scores.items():
            took = [f"{result['steps']:,}", f"{result['training_s']:,.0f}"]
            signature = score["signature"].replace("|", "\\|")
            bleu = [f"{score['bleu']:.2f}", f"`{signature}`"]
            lines.append(line([name, machine, *took, test, *bleu]))
    return lines


def kernels() -> Table:
    """The time of each kernel, and its lower bound."""
    lines = head(["kernel", "of", "card", "µs", "floor, µs", "fraction"])
    for machine, result in _of_gpus("gpu_kernels"):
        for name, kernel in result["kernels"].items():
            times = [f"{kernel['us']:,.1f}", f"{kernel['floor_us']:,.1f}"]
            fraction = f"{kernel['fraction']:.2f}"
            cells = [_KERNELS.get(name, name), result["config"], machine, *times, fraction]
            lines.append(line(cells))
    return lines


def products() -> Table:
    """The time of each class of products in cuBLAS and in cuBLASLt."""
    lines = head(["product", "card", "cuBLAS, µs", "cuBLASLt, µs"])
    for machine, result in _of_gpus("gpu_kernels"):
        for name, took in result["products"].items():
            lines.append(line([name, machine, f"{took['cublas_us']}", f"{took['cublaslt_us']}"]))
    return lines


DOCUMENTS = {
    "README.md": (highlights,),
    "docs/benchmarks.md": (
        machines,
        learned,
        training,
        rooflines,
        translation,
        reads,
        texts,
        shortlists,
        starts,
        gpu,
    ),
    "docs/gpu.md": (kernels, products),
}


def _side_by_side(
    subjects: list[str], heads: list[str], rows_of: Callable[[Result], Iterator[Row]]
) -> Table:
    """A table with columns `heads` for the CPU of each machine that has such results."""
    rows: dict[tuple[str, ...], dict[str, list[str]]] = {}
    machines: list[str] = []
    for machine, results in load("numpy").items():
        for key, cells in (row for result in results for row in rows_of(result)):
            rows.setdefault(key, {})[machine] = cells
            if machine not in machines:
                machines.append(machine)
    named = [f"{MACHINES.get(machine, machine)}: {head}" for machine in machines for head in heads]
    nothing = [NOTHING] * len(heads)
    return head([*subjects, *named]) + [
        line([*key, *(cell for machine in machines for cell in of.get(machine, nothing))])
        for key, of in rows.items()
    ]


def _of_search(result: Result) -> str:
    """What was searched for, in a few words."""
    name = f"{result['config']}, beam {result['beam']}, batch {result['batch']}"
    weights = result.get("weights", "float32")
    return name if weights == "float32" else f"{name}, {weights}"


def _of_gpus(*benchmarks: str) -> Iterator[tuple[str, Result]]:
    """The name of the card and the result, for each of these benchmarks."""
    for benchmark in benchmarks:
        for machine, results in load("cupy").items():
            for result in results:
                if result["benchmark"] == benchmark:
                    yield MACHINES.get(machine, machine), result


def _rates(result: Result, peer: str) -> list[str]:
    ours, theirs = result["ours"]["tokens_per_s"], result["peers"][peer]["tokens_per_s"]
    return [f"{ours:,.0f} : {theirs:,.0f}", _ratio(result, peer)]


def _speed(result: Result, side: Result) -> str:
    """Tokens per second, or on a GPU the time."""
    if result["backend"] == "numpy":
        return f"{side['tokens_per_s']:,.0f} tokens/s"
    return f"{side['ms']:,.1f} ms"


def _ratio(result: Result, peer: str) -> str:
    low, high = result["speedup_quartiles"][peer]
    return f"{result['speedup'][peer]:.2f} ({low:.2f} to {high:.2f})"


def _memory(result: Result, peer: str) -> str:
    """Our memory, as a share of the peer's."""
    ours, theirs = (side.get("peak_bytes") for side in (result["ours"], result["peers"][peer]))
    return f"{ours / theirs:.2f}" if ours and theirs else NOTHING


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("document", nargs="?", choices=DOCUMENTS, default="docs/benchmarks.md")
    tables = DOCUMENTS[parser.parse_args(arguments).document]
    print("\n\n".join("\n".join(table()) for table in tables))


if __name__ == "__main__":
    main()
