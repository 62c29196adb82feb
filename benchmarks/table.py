"""The README's tables, from what is in benchmarks/results.

python -m benchmarks.table
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

_NAMES = {
    "torch-float32": "PyTorch",
    "torch-float32-compiled": "PyTorch, compiled",
    "torch-bfloat16": "PyTorch, bfloat16",
    "torch-bfloat16-compiled": "PyTorch, bfloat16, compiled",
    "ctranslate2-float32-one-batch": "CTranslate2",
    "ctranslate2-float32-two-batches": "CTranslate2, two batches at once",
}


def load() -> list[dict[str, Any]]:
    """All results of the CPU, in the order of their files' names."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [result for result in found if result["backend"] == "numpy"]


def training(results: list[dict[str, Any]]) -> list[str]:
    """A line for each peer of each training benchmark: tokens a second, ratios, memory."""
    lines = [
        "| training | npformer, tokens/s | peer | tokens/s | ratio | memory |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        if result["benchmark"] in ("training_step", "end_to_end"):
            step = result["benchmark"] == "training_step"
            name = f"a step of {result['config']}" if step else f"{result['config']}, end to end"
            lines += [_line(name, result, peer, memory=True) for peer in result["peers"]]
    return lines


def translation(results: list[dict[str, Any]]) -> list[str]:
    """A line for each peer of each translation benchmark."""
    lines = [
        "| translation | npformer, tokens/s | peer | tokens/s | ratio |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        if result["benchmark"] == "translation":
            name = f"{result['config']}, beam {result['beam']}, batch {result['batch']}"
            lines += [_line(name, result, peer, memory=False) for peer in result["peers"]]
    return lines


def rooflines(results: list[dict[str, Any]]) -> list[str]:
    """How near to its matrix products alone each step comes."""
    lines = ["| a step of | ms | its products alone, ms | fraction |", "|---|---|---|---|"]
    for result in results:
        if "roofline" in result:
            products = result["roofline"]
            lines.append(
                f"| {result['config']} | {result['ours']['ms']:,.0f} | {products['ms']:,.0f} "
                f"| {products['fraction']:.2f} |"
            )
    return lines


def _line(name: str, result: dict[str, Any], peer: str, memory: bool) -> str:
    ours, theirs = result["ours"], result["peers"][peer]
    low, high = result["speedup_quartiles"][peer]
    cells = [
        name,
        f"{ours['tokens_per_s']:,.0f}",
        _NAMES[peer],
        f"{theirs['tokens_per_s']:,.0f}",
        f"{result['speedup'][peer]:.2f} ({low:.2f} to {high:.2f})",
    ]
    if memory:
        cells.append(f"{ours['peak_bytes'] / theirs['peak_bytes']:.2f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    results = load()
    for table in (training, translation, rooflines):
        print("\n".join(table(results)), end="\n\n")


if __name__ == "__main__":
    main()
