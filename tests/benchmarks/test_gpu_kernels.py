"""The benchmark of kernels runs every operation, forward and backward; here on NumPy."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from autograd import references
from autograd.backend import backend
from benchmarks import gpu_kernels
from npformer import TransformerConfig

pytest.importorskip("ml_dtypes", reason="bfloat16 on NumPy needs ml_dtypes")


def _run(target: Any, runs: list[Callable[[], Any]]) -> list[float]:
    """Run each function, without measuring it."""
    return [1e-6 for run in runs if run() is not NotImplemented]


def test_every_operation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = TransformerConfig.preset("tiny", vocab_size=90, d_model=32, d_ff=64, heads=2, layers=1)
    batches = partial(gpu_kernels.training_batches, pairs=200)
    monkeypatch.setattr(gpu_kernels, "VOCABULARY", 90)
    monkeypatch.setattr(gpu_kernels, "HYPOTHESES", 8)
    monkeypatch.setattr(gpu_kernels, "training_batches", batches)
    monkeypatch.setattr(gpu_kernels, "seconds_of", _run)
    monkeypatch.setattr(gpu_kernels, "products_of", lambda target: {"a product": [2e-5, 1e-5]})
    monkeypatch.setattr(gpu_kernels.TransformerConfig, "preset", lambda name, vocab_size: small)
    out = tmp_path / "kernels.json"
    options = argparse.Namespace(config="tiny", tokens=300, repeats=2, out=out)
    with references():
        gpu_kernels.measure(backend("numpy"), options)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert len(result["kernels"]) == 27
    assert {kernel["us"] for kernel in result["kernels"].values()} == {1.0}
    assert result["products"] == {"a product": {"cublas_us": 20.0, "cublaslt_us": 10.0}}
