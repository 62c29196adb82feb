"""Kernels are built several at a time, and what a thread launches is its own."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from autograd import Sentences, Tape, Tensor, ops
from autograd.backend import backend, bfloat16
from autograd.cuda.device import Blocks, device_of
from autograd.cuda.mask import mask_of
from autograd.cuda.modules import Modules

cupy = pytest.importorskip("cupy")

KERNELS = [("dropout", {"REAL_BYTES": size}) for size in (2, 4)]


def test_kernels_are_built_at_the_same_time(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    modules, both = Modules(), threading.Barrier(2, timeout=60)
    build = modules._build

    def together(source: str, constants: Any) -> Any:
        both.wait()
        return build(source, constants)

    monkeypatch.setattr(modules, "_build", together)
    modules.begin(KERNELS)
    found = [modules.get(*kernel) for kernel in KERNELS]
    assert found[0][0] is not found[1][0]
    assert [modules.get(*kernel) for kernel in KERNELS] == found
    assert all("dropout" in parameters for _, parameters in found)


def test_a_kernel_that_could_not_be_built_is_built_another_time(monkeypatch):
    modules = Modules()
    build, fails = modules._build, [True]

    def sometimes(source: str, constants: Any) -> Any:
        if fails.pop() if fails else False:
            raise MemoryError("no room for a module")
        return build(source, constants)

    monkeypatch.setattr(modules, "_build", sometimes)
    with pytest.raises(MemoryError, match="no room"):
        modules.get(*KERNELS[0])
    assert "dropout" in modules.get(*KERNELS[0])[1]


@pytest.mark.parametrize("on_a_tape", [False, True])
def test_attention_has_all_its_kernels_built_at_once(on_a_tape, monkeypatch):
    begun: list[tuple[str, int]] = []
    x = Tensor(backend("cupy").asarray(np.zeros((22, 48)), bfloat16()))

    def noted(kernels: Any) -> None:
        begun.extend((source, constants["TILE_ROWS"]) for source, constants in kernels)

    monkeypatch.setattr(device_of(x.value), "build", noted)
    sentences = Sentences([5, 17])

    def attend() -> None:
        ops.attention(x, heads=1, d_k=16, sentences=sentences)

    for _ in range(2):
        if on_a_tape:
            with Tape():
                attend()
        else:
            attend()
    gradients = [("attention_gradient", 16), ("attention_gradient", 32)] * on_a_tape
    assert begun == [("attention", 16), ("attention", 32), *gradients]


def test_what_another_thread_launches_is_not_recorded():
    """It has as many blocks as there are now, and nobody keeps its arrays."""
    gpu: Any = device_of(cupy.empty(0))
    there, varied = np.array([1]), []
    arrays = [cupy.ones(256, np.float32) for _ in range(2)]

    def launch(x: Any) -> None:
        grid = (Blocks(there, 0, 3),)
        sizes = {"mask": mask_of(None), "rows": 8, "columns": 32}
        gpu.launch("dropout", {"REAL_BYTES": 4}, "dropout", grid, 256, x=x, y=x, **sizes)

    with (
        gpu.keeping(set(), lambda blocks, axis: varied.append(axis)) as kept,
        ThreadPoolExecutor(1) as other,
    ):
        other.submit(launch, arrays[0]).result()
        assert varied == []
        launch(arrays[1])
    assert varied == [0]
    assert [memory.ptr for memory in kept] == [arrays[1].data.mem.ptr]
