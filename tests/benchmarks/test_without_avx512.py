"""Libraries without AVX-512: each says itself what it uses, and each benchmark asks it."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks import without_avx512
from benchmarks.contest import Side
from benchmarks.report import RESULTS, keep
from benchmarks.table import MACHINES
from benchmarks.without_avx512 import SETTINGS, WithoutAVX512, limits
from tests.benchmarks.fake_sides import haswell
from train.machine import machine

has_avx512 = pytest.mark.skipif(
    machine().get("vectors") != "AVX-512", reason="the processor has no AVX-512 to leave out"
)


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has no such settings, and what it gets is forgotten after the test."""
    for name in SETTINGS:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--without-avx512", action=WithoutAVX512)
    return parser.parse_args(words)


def said(code: str, **settings: str) -> str:
    """What a process prints that runs with the settings."""
    environment = {**os.environ, **SETTINGS, **settings}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@has_avx512
def test_numpy_heeds_it() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
import json
import numpy as np, threadpoolctl
loops = np.lib.introspect.opt_func_info(func_name="^exp$", signature="float32")
print(json.dumps([loops, threadpoolctl.threadpool_info()]))
"""
    loops, [blas] = json.loads(said(code))
    [chosen] = {of["current"] for of in loops["exp"].values()}
    assert chosen in ("X86_V3", "AVX2", "FMA3__AVX2")
    assert blas["architecture"] == "Haswell"


@has_avx512
def test_compiled_loops_heed_it() -> None:
    pytest.importorskip("numba")
    code = """
from numba.core.registry import cpu_target
from autograd.cpu import int8_tile, microkernel
print(*cpu_target.target_context.codegen().magic_tuple()[1:])
print(microkernel.HEIGHT, microkernel.VECTORS, int8_tile.VNNI_512, int8_tile.VNNI_256)
"""
    of_numba, of_loops = said(code).split("\n")[:2]
    assert of_numba == f"{SETTINGS['NUMBA_CPU_NAME']} {SETTINGS['NUMBA_CPU_FEATURES']}"
    assert "+avx2" in of_numba
    assert "avx512" not in of_numba
    assert of_loops == "6 1 False False"


def test_their_machine_code_is_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llvmlite")
    cache = import_module("autograd.cpu.cache")

    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    before = cache._key()
    for name, setting in SETTINGS.items():
        monkeypatch.setenv(name, setting)
    assert cache._key() != before


@has_avx512
def test_pytorch_heeds_it() -> None:
    pytest.importorskip("torch")
    code = """
import torch
import torch._inductor.config
x = torch.randn(64, 64)
x @ x
torch.mm(x.bfloat16(), x.bfloat16())
torch.nn.functional.conv2d(torch.randn(8, 16, 64, 64), torch.randn(16, 16, 3, 3))
print(torch.backends.cpu.get_cpu_capability(), torch._inductor.config.cpp.march)
"""
    lines = said(code, MKL_VERBOSE="1", ONEDNN_VERBOSE="1").split("\n")
    assert "AVX2 haswell" in lines
    [of_mkl] = [line for line in lines if "MKL_VERBOSE" in line and "processors" in line]
    assert "AVX2) enabled" in of_mkl
    [of_onednn] = [line for line in lines if "info,cpu,isa:" in line]
    assert of_onednn.endswith("isa:Intel AVX2")


@has_avx512
def test_jax_heeds_it() -> None:
    """Its products are oneDNN's, which are told; YNNPACK could not be."""
    pytest.importorskip("jax")
    code = "import jax; x = jax.numpy.ones((300, 300)); print(jax.jit(lambda x: x @ x)(x)[0, 0])"
    lines = said(code, ONEDNN_VERBOSE="1").split("\n")
    [of_onednn] = [line for line in lines if "info,cpu,isa:" in line]
    assert of_onednn.endswith("isa:Intel AVX2")
    assert any("exec,cpu,gemm_api" in line for line in lines)


@has_avx512
def test_ctranslate2_heeds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2")
    monkeypatch.setenv("CT2_FORCE_CPU_ISA", "AVX512")  # what it would use elsewhere
    code = f"""
from pathlib import Path
import ctranslate2
from benchmarks.ctranslate2_model import save
from npformer import Transformer, TransformerConfig
config = TransformerConfig(
    vocab_size=20, d_model=16, d_ff=16, heads=2, d_k=8, d_v=8, layers=1,
    positions="concatenated", position_spacing="d/2",
)
save(Transformer(config, seed=0), Path({str(tmp_path)!r}))
ctranslate2.Translator({str(tmp_path)!r}).translate_batch([["5", "2"]], max_decoding_length=2)
"""
    lines = said(code, CT2_VERBOSE="1", MKL_VERBOSE="1").split("\n")
    assert any(line.endswith("Selected ISA: AVX2") for line in lines)
    [of_mkl] = [line for line in lines if "MKL_VERBOSE" in line and "processors" in line]
    assert "AVX2) enabled" in of_mkl


@has_avx512
@pytest.mark.usefixtures("_environment")
def test_sides_that_are_started_after_the_flag_heed_it() -> None:
    pytest.importorskip("threadpoolctl")
    sides = [Side(haswell)]
    assert parsed("--without-avx512").without_avx512
    sides.append(Side(haswell))
    assert [side.turn() for side in sides] == [1.0, 2.0]
    for side in sides:
        side.close()


@pytest.mark.usefixtures("_environment")
def test_a_result_says_that_it_was_measured_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(without_avx512, "machine", lambda: {"vectors": "AVX-512"})
    assert not parsed().without_avx512
    assert limits() == {}
    assert "without" not in keep({}, None)["machine"]
    assert parsed("--without-avx512").without_avx512
    found = keep({}, None)["machine"]
    assert (found["vectors"], found["without"]) == ("AVX2", "AVX-512")
    monkeypatch.delenv("MKL_ENABLE_INSTRUCTIONS")  # with a part of it a result would be of neither
    assert limits() == {}


@pytest.mark.parametrize("found", [{"vectors": "AVX2"}, {}])
@pytest.mark.usefixtures("_environment")
def test_a_processor_without_avx512_is_told_to_leave_the_flag_out(
    found: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(without_avx512, "machine", lambda: found)
    with pytest.raises(SystemExit) as exit_:
        parsed("--without-avx512")
    assert exit_.value.code == 2
    assert "this processor has no AVX-512; leave the flag out" in capsys.readouterr().err
    assert not SETTINGS.items() & os.environ.items()


class StartedError(Exception):
    """All sides of a benchmark have been started."""


FLAGS = {
    "training_step": "--config tiny",
    "translation": "--config tiny --batch 1",
    "text_to_text": "--model model --source {text}",
    "shortlist": "--model model --source {text}",
    "end_to_end": "--config model --data corpus",
}


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.usefixtures("_environment")
def test_all_sides_of_a_benchmark_are_started_with_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = import_module(f"benchmarks.{name}")
    started: list[Any] = []

    def side(*made: Any) -> Any:
        assert limits(), made
        started.append(made)

    def take_turns(*_: Any, **__: Any) -> None:
        raise StartedError

    text = tmp_path / "text"
    text.write_text("a line\n")
    words = FLAGS[name].format(text=text).split()
    monkeypatch.setattr(sys, "argv", [name, *words, "--without-avx512"])
    monkeypatch.setattr(without_avx512, "machine", lambda: {"vectors": "AVX-512"})
    monkeypatch.setattr(module, "Side", side)
    monkeypatch.setattr(module, "take_turns", take_turns)
    monkeypatch.setattr(module, "export_model", lambda *_: None, raising=False)
    with pytest.raises(StartedError):
        module.main()
    assert len(started) >= 2
    assert not any("torch-bfloat16" in str(made) for made in started)


def test_results_without_avx512_have_a_folder_and_a_column_of_their_own() -> None:
    for path in RESULTS.glob("*/*.json"):
        without = json.loads(path.read_text(encoding="utf-8"))["machine"].get("without")
        assert (without == "AVX-512") == path.parent.name.endswith("-avx2-only"), path
    assert MACHINES["xeon-avx2-only"] not in (MACHINES["xeon-avx512"], MACHINES["epyc-avx2"])
