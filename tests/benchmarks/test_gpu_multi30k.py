"""benchmarks/gpu_multi30k.py, Multi30k's recipe, runs two steps on NumPy."""

import json
from pathlib import Path

import pytest

from autograd import references
from benchmarks import gpu_multi30k
from train.grammar import generate


def test_two_steps_go_from_text_to_a_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generated = generate(pairs=300, held_out=30, seed=0)
    parts = {"train": generated.train, "val": generated.valid, "test_2016_flickr": generated.test}
    for part, pairs in parts.items():
        for language, side in (("en", "source"), ("de", "target")):
            lines = "".join(f"{getattr(pair, side)}\n" for pair in pairs[:60])
            (tmp_path / f"{part}.lc.norm.tok.{language}").write_text(lines, encoding="utf-8")
    monkeypatch.setattr(gpu_multi30k, "VOCABULARY", 400)
    # An untrained model does not end its translations.
    monkeypatch.setitem(gpu_multi30k.SEARCH, "extra_length", 3)
    out = tmp_path / "multi30k.json"
    on_numpy = ["--backend", "numpy", "--precision", "float32", "--steps", "2"]
    with references():  # compiling the CPU's loops takes longer
        gpu_multi30k.main(["--data", str(tmp_path), *on_numpy, "--out", str(out)])
    result = json.loads(out.read_text())
    assert (result["config"], result["steps"]) == ("multi30k-tiny", 2)
    assert [entry["step"] for entry in result["curve"] if "loss" in entry] == [1, 2]
    assert 0 <= result["bleu"] <= 100
    assert "tok:none" in result["signature"]
