"""Results are in a folder that is named after the machine."""

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.machine import folder, peak_of
from train.machine import machine

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("cpu", "vectors", "name"),
    [
        ("Intel(R) Xeon(R) Processor", "AVX-512", "xeon-avx512"),
        ("AMD EPYC", "AVX2", "epyc-avx2"),
        ("AMD EPYC 7763 64-Core Processor", "AVX2", "epyc-avx2"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "AVX2", "core-avx2"),
        ("arm", "", "arm"),
        ("", "", "unknown"),
    ],
)
def test_a_processor_is_named_by_its_family_and_vectors(cpu: str, vectors: str, name: str) -> None:
    found = {"cpu": cpu, "vectors": vectors} if vectors else {"cpu": cpu}
    assert folder("cpu", found) == name
    assert folder("gpu", found) == name


@pytest.mark.parametrize(
    ("gpu", "name"),
    [
        ("NVIDIA H100 80GB HBM3, 81559 MiB, 580.159.04", "h100"),
        ("NVIDIA A100-SXM4-80GB, 81920 MiB, 580.1", "a100"),
        ("NVIDIA GeForce RTX 4090, 24564 MiB, 580.1", "4090"),
        ("Tesla T4, 15360 MiB, 580.1", "t4"),
        ("Some card, 1 MiB, 1", "some-card"),
    ],
)
def test_a_card_is_named_by_its_model(gpu: str, name: str) -> None:
    assert folder("gpu", {"cpu": "AMD EPYC", "gpus": [gpu]}) == name


def test_this_machine_has_a_name() -> None:
    assert folder("cpu", machine())
    assert machine()["cores"] >= 1


def test_peak_rates_are_those_of_the_card() -> None:
    h100, h200 = ({"cpu": "", "gpus": [f"NVIDIA {name}, 1 MiB, 1"]} for name in ("H100", "H200"))
    assert peak_of(h100).bytes_per_s < peak_of(h200).bytes_per_s


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize(
    ("target", "given", "file"),
    [
        ("gpu-kernels", "MACHINE=a100", "benchmarks/results/a100/gpu-kernels-$size.json"),
        ("gpu-base", "MACHINE=a100", "benchmarks/results/a100/gpu-base.json"),
        ("gpu-base", "OUT=elsewhere", "elsewhere/gpu-base.json"),
        ("bench", "MACHINE=core", "benchmarks/results/core/training-step-$size.json"),
    ],
)
def test_make_writes_results_to_the_machines_folder(target: str, given: str, file: str) -> None:
    plan = subprocess.run(
        ["make", "-n", "-C", ROOT, target, given], capture_output=True, text=True, check=True
    )
    assert f"--out {file}" in plan.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_measures_without_avx512_in_a_folder_of_its_own() -> None:
    """Where the processor has AVX-512; else it says so."""
    plan = subprocess.run(
        ["make", "-n", "-C", ROOT, "bench-avx2", "MACHINE=core-avx512", "SIZES=tiny"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    measured = [line for line in plan.split("\n") if "--out" in line]
    if machine().get("vectors") == "AVX-512":
        assert any("results/core-avx2-only/training-step-$size.json" in line for line in measured)
        assert all("results/core-avx2-only/" in line for line in measured)
        assert plan.count("--without-avx512") >= 4
    else:
        assert measured == []
        assert "this processor has no AVX-512" in plan
