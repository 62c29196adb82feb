"""Every kernel compiles for an A100 and an H100, and spills no registers."""

from __future__ import annotations

import pytest

from autograd.cuda import device
from autograd.cuda.cross_entropy import threads_of
from autograd.cuda.norm import warps_of
from tests.without_gpu import nvrtc

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="needs NVRTC (pip install nvidia-cuda-nvrtc)"
)

# How far behind and ahead of a query keys are seen; all, causal, and windows of 256 positions.
WHOLE, CAUSAL = {"BEHIND": -1, "AHEAD": -1}, {"BEHIND": -1, "AHEAD": 0}
AROUND, LAST = {"BEHIND": 128, "AHEAD": 127}, {"BEHIND": 255, "AHEAD": 0}

SIZES = [  # needed by base, big and the widths of Table 3
    *(
        ("norm", {"COLUMNS": columns, "WARPS": warps_of(columns), "HAS_X": has_x})
        for columns in (512, 1024)
        for has_x in (0, 1)
    ),
    ("embedding", {"COLUMNS": 512}),
    ("embedding", {"COLUMNS": 1024}),
    ("linear", {}),
    ("dropout", {}),
    ("sums", {}),
    ("adam", {}),
    ("append_to_cache", {}),
    ("cross_entropy", {"VOCABULARY": 37_000}),
    ("cross_entropy", {"VOCABULARY": 40_960}),
    ("cross_entropy", {"VOCABULARY": 37_003}),
    ("cross_entropy", {"VOCABULARY": 10_000}),
    ("top_k", {"VOCABULARY": 37_000, "THREADS": 512}),
    ("cached_attention", {"HEADS": 8, "WIDTH": 64}),
    ("warp_cached_attention", {"HEADS": 8, "D_K": 64, "D_V": 64}),
    *(
        ("warp_attention", {"D_K": d, "D_V": d, **reach, "DROPOUT": int(reach is CAUSAL)})
        for d, reach in [(64, WHOLE), (64, AROUND), (512, CAUSAL)]
    ),
    *(
        ("attention", {"D_K": d, "D_V": d, **reach, "DROPOUT": dropout, "TILE_ROWS": rows})
        for d, reach, dropout, all_rows in [
            (64, WHOLE, 0, (16, 32, 48, 64)),
            (64, CAUSAL, 0, (16, 32, 48, 64)),
            (64, AROUND, 0, (64,)),
            (64, LAST, 0, (64,)),
            (32, CAUSAL, 0, (64,)),
            (128, CAUSAL, 0, (48, 64)),
            (64, WHOLE, 1, (32, 64)),
            (112, WHOLE, 1, (64,)),
        ]
        for rows in all_rows
    ),
]


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("source", "constants", "real"),
    [
        (source, constants, real)
        for source, constants in SIZES
        for real in ((2,) if source == "attention" else (2, 4))  # for bfloat16 only
    ],
    ids=str,
)
def test_kernels_compile_without_spilling_registers(source, constants, real, architecture):
    text = device.source_of(source)
    if source == "cross_entropy":
        constants = {**constants, "THREADS": threads_of(constants["VOCABULARY"], real)}
    used = nvrtc.compiled(text, architecture, {**constants, "REAL_BYTES": real})
    assert len(used) == text.count('extern "C" __global__')
    allowed = 24 if source == "attention" else 0  # bytes
    if source == "attention" and constants["DROPOUT"]:  # on weights: not in the paper
        allowed = 64 if constants["D_K"] <= 64 else 104
    assert {name: u.spilled for name, u in used.items() if u.spilled > allowed} == {}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("kernel", "constants", "threads", "blocks"),
    [
        ("cross_entropy", {"VOCABULARY": 37_000, "THREADS": threads_of(37_000, 2)}, 512, 2),
        # 3,126 warps of 25,000 tokens, on 132 multiprocessors at once.
        ("embedding_gradient", {"COLUMNS": 512}, 128, 6),
    ],
)
def test_as_many_blocks_as_planned_fit_on_a_multiprocessor(
    kernel, constants, threads, blocks, architecture
):
    text = device.source_of(kernel.removesuffix("_gradient"))
    used = nvrtc.compiled(text, architecture, {**constants, "REAL_BYTES": 2})
    assert used[kernel].registers * threads * blocks <= 65_536
    assert used[kernel].spilled == 0


def test_every_kernel_is_compiled():
    assert {source for source, _ in SIZES} == {p.stem for p in device.FOLDER.glob("*.cu")}


def test_an_error_of_the_compiler_gives_the_reason():
    with pytest.raises(AssertionError, match="undefined"):
        nvrtc.compiled('extern "C" __global__ void f() { g(); }', "sm_90", {})
