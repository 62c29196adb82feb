"""The machine that a benchmark runs on, and the folder for its results.

python -m benchmarks.machine cpu|gpu    prints the folder's name: xeon-avx512, h100
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from train.machine import machine


class Peak(NamedTuple):
    """A card's peak rates per second: bytes read or written, and FLOPs of matrix products."""

    bytes_per_s: float
    flops_per_s: float


# As measured: a copy within the card's memory, and a product of 8192 x 8192 x 8192 in bfloat16.
_PEAKS = {"h100": Peak(3.0e12, 790e12), "h200": Peak(4.3e12, 790e12)}

# Parts of a processor's name other than its family.
_NO_FAMILY = re.compile(r"\((?:R|TM)\)|\b(?:AMD|Intel|CPU|Processor|\d+(?:th|nd|rd) Gen)\b", re.I)


def folder(which: str, found: Mapping[str, Any]) -> str:
    """A short name for the processor ("cpu") or the first GPU ("gpu") of a machine.

    A processor's family and vectors, "epyc-avx2", or the word with a number in a card's name,
    "h100". Without a GPU it is the processor's name, also for "gpu".
    """
    if which == "gpu" and (gpus := found.get("gpus")):
        name = gpus[0].partition(",")[0]
        return _slug(next(iter(re.findall(r"\b[A-Za-z]*\d+[A-Za-z]*\b", name)), name))
    family = _slug((_NO_FAMILY.sub(" ", found["cpu"]).split() or ["unknown"])[0])
    vectors = found.get("vectors", "").replace("-", "").lower()
    return f"{family}-{vectors}" if vectors else family


def peak_of(found: Mapping[str, Any]) -> Peak:
    """The peak rates of a machine's first GPU; those of an H100 for a card not measured."""
    return _PEAKS.get(folder("gpu", found), _PEAKS["h100"])


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("which", choices=["cpu", "gpu"])
    print(folder(parser.parse_args().which, machine()))


if __name__ == "__main__":
    main()
