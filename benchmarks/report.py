"""The common part of all results: versions, medians and their spread, and the file."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from autograd.backend import Backend, BackendError, backend, bfloat16
from benchmarks.without_avx512 import limits
from train.machine import machine, versions

RESULTS = Path(__file__).parent / "results"


def result_file(name: str) -> Path:
    """An argparse type: a file for a result, checked to be writable before the benchmark runs."""
    path = Path(name)
    is_new = not path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be written ({error.strerror})") from error
    if is_new:
        path.unlink()  # until there is a result
    return path


def positive(number: str) -> int:
    """An argparse type: a positive integer."""
    if not number.isdecimal() or int(number) == 0:
        raise argparse.ArgumentTypeError(f"{number!r} is not a whole number above 0")
    return int(number)


def gpu(needs_bfloat16: bool = True) -> Backend:
    """The GPU's backend. Without a GPU or bfloat16, exits with a message."""
    try:
        if needs_bfloat16:
            bfloat16()
        return backend("cupy")
    except BackendError as error:
        sys.exit(f"no result without a GPU: {error}")


def summary(seconds: list[float], tokens: list[int]) -> dict[str, float]:
    """Medians and spread of repeated runs, each with its seconds and tokens.

    `spread` is the distance between the quartiles, as a share of the median.
    """
    rates = [n / s for n, s in zip(tokens, seconds, strict=True)]
    low, _, high = statistics.quantiles(rates, n=4) if len(rates) > 1 else (rates[0],) * 3
    middle = statistics.median(rates)
    return {
        "ms": round(statistics.median(seconds) * 1000, 2),
        "tokens_per_s": round(middle, 1),
        "spread": round((high - low) / middle, 4),
    }


def keep(result: dict[str, Any], path: Path | None) -> dict[str, Any]:
    """Add machine and versions to a result; write it to a file if there is a path."""
    result = {**result, "machine": {**machine(), **limits()}, "versions": versions()}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def publish(result: dict[str, Any], path: Path | None) -> None:
    """Print a result as one line of JSON, the last of the output, and write it if asked."""
    print(json.dumps(keep(result, path)))
