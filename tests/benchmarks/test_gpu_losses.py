"""benchmarks/gpu_losses.py: our losses on real text, and PyTorch's from the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="losses are compared with PyTorch's")

from autograd import references
from benchmarks import gpu_losses
from benchmarks.gpu_losses import compared
from train.corpora.preparation import prepare
from train.grammar import generate

TOY = """
model: {preset: tiny, layers: 1, d_model: 16, d_ff: 32, heads: 2}
batch_tokens: 300
seed: 4
warmup: 10
schedule: paper
"""


def test_losses_are_pytorchs_from_the_same_weights(tmp_path: Path) -> None:
    paths = []
    for part, pairs in (("train", generate(pairs=200, held_out=20, seed=0).train[:120]),) * 2:
        for language, side in (("en", "source"), ("de", "target")):
            path = tmp_path / f"{part}.{language}"
            path.write_text("".join(f"{getattr(p, side)}\n" for p in pairs), encoding="utf-8")
            paths.append(path)
    train, valid = ([paths[0]], [paths[1]]), ([paths[2]], [paths[3]])
    prepare(*train, *valid, tmp_path / "corpus" / "corpus", vocab_size=400)
    config, out = tmp_path / "toy.yaml", tmp_path / "losses.json"
    config.write_text(TOY)
    words = ["--corpus", str(tmp_path / "corpus"), "--config", str(config), "--steps", "30"]
    with references():
        gpu_losses.main([*words, "--backend", "numpy", "--precision", "float32", "--out", str(out)])
    result = json.loads(out.read_text())
    assert (result["steps"], result["benchmark"]) == (30, "gpu_losses")
    assert [len(of) for of in result["losses"].values()] == [10, 10, 10]
    assert result["largest"]["torch"] < 1e-3
    assert result["largest"]["another seed"] > 20 * result["largest"]["torch"]
    assert result["losses"]["ours"][-1] < result["losses"]["ours"][0] - 0.3


def test_differences_are_those_of_means_over_tenths() -> None:
    ours = [float(i) for i in range(40)]
    found = compared({"ours": ours, "torch": [x + 0.5 for x in ours], "short": ours[:20]})
    assert found["steps"] == 20
    assert found["losses"]["ours"] == [0.5 + 2 * i for i in range(10)]
    assert found["apart"] == {"torch": [0.5] * 10, "short": [0.0] * 10}
    assert found["largest"] == {"torch": 0.5, "short": 0.0}
