"""Every kernel compiles for an A100 and an H100, and spills no registers."""

from __future__ import annotations

import pytest

from autograd.cuda import device
from autograd.cuda.attention import shared_bytes
from autograd.cuda.bias import ACTIVATIONS
from autograd.cuda.logits import threads_of
from autograd.cuda.norm import warps_of
from autograd.cuda.signature import SUMS
from tests.without_gpu import nvrtc

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="needs NVRTC (pip install nvidia-cuda-nvrtc)"
)

# How far behind and ahead of a query keys are seen; all, causal, and windows of 256 positions.
WHOLE, CAUSAL = {"BEHIND": -1, "AHEAD": -1}, {"BEHIND": -1, "AHEAD": 0}
AROUND, LAST = {"BEHIND": 128, "AHEAD": 127}, {"BEHIND": 255, "AHEAD": 0}

# Attention on tensor cores, for bfloat16 only.
TILED = ("attention", "attention_gradient", "long_attention_gradient")

SIZES = [  # needed by base, big and the widths of Table 3
    *(
        ("norm", {"COLUMNS": columns, "WARPS": warps_of(columns), "HAS_X": has_x})
        for columns in (512, 1024)
        for has_x in (0, 1)
    ),
    ("embedding", {"COLUMNS": 512}),
    ("embedding", {"COLUMNS": 1024}),
    *(("linear", {"ACTIVATION": activation}) for activation in ACTIVATIONS.values()),
    ("dropout", {}),
    ("sums", {"COUNT": SUMS}),
    ("adam", {}),
    ("append_to_cache", {}),
    ("cross_entropy", {"VOCABULARY": 37_000}),
    ("cross_entropy", {"VOCABULARY": 40_960}),
    ("cross_entropy", {"VOCABULARY": 37_003}),
    ("cross_entropy", {"VOCABULARY": 10_000}),
    *(
        (
            "top_k",
            {"VOCABULARY": vocabulary, "BIASED": biased, "NAMED": biased, "NORMALISED": normalised},
        )
        for vocabulary in (37_000, 37_003)
        for biased, normalised in [(0, 1), (1, 1), (0, 0)]
    ),
    *(
        ("beam", {"BEAM": beam, "COUNT": count, "GROUPS": groups})
        for beam, count, groups in [(1, 1, 1), (4, 8, 1), (10, 20, 1), (32, 64, 1), (4, 8, 2)]
    ),
    *(("cached_attention", {"HEADS": 8, "WIDTH": 64, "QUERIES": n}) for n in (1, 2, 3, 4)),
    ("warp_cached_attention", {"HEADS": 8, "D_K": 64, "D_V": 64}),
    *(
        ("warp_attention", {"D_K": d, "D_V": d, **reach, "DROPOUT": int(reach is CAUSAL)})
        for d, reach in [(64, WHOLE), (64, AROUND), (512, CAUSAL)]
    ),
    *(
        (source, {"D_K": d, "D_V": d, **reach, "DROPOUT": dropout, "TILE_ROWS": rows})
        for d, reach, dropout, all_rows in [
            (64, WHOLE, 0, (16, 32, 48, 64, 96, 128)),
            (64, CAUSAL, 0, (16, 32, 48, 64, 96, 128)),
            (64, AROUND, 0, (64,)),
            (64, LAST, 0, (64,)),
            (32, CAUSAL, 0, (64,)),
            (112, WHOLE, 0, (64,)),
            (128, CAUSAL, 0, (48, 64, 128)),
            (64, WHOLE, 1, (32, 64)),
            (112, WHOLE, 1, (64,)),
        ]
        for rows in all_rows
        for source in TILED
        if rows <= 64 or source == "attention_gradient"
        if rows == 64 or source != "long_attention_gradient"
    ),
]

# Blocks a multiprocessor of an A100 and of an H100, for heads of 64 as the paper has them.
PLANNED = {
    ("attention", 16): (21, 21),
    ("attention", 32): (8, 8),
    ("attention", 48): (5, 5),
    ("attention", 64): (4, 4),
    ("attention_gradient", 16): (13, 16),
    ("attention_gradient", 32): (6, 8),
    ("attention_gradient", 48): (4, 5),
    ("attention_gradient", 64): (3, 4),
    ("attention_gradient", 96): (1, 2),
    ("attention_gradient", 128): (1, 1),
    ("long_attention_gradient", 64): (3, 3),
}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("source", "constants", "real"),
    [
        (source, constants, real)
        for source, constants in SIZES
        for real in ((2,) if source in TILED else (2, 4))
    ],
    ids=str,
)
def test_kernels_compile_without_spilling_registers(source, constants, real, architecture):
    text = device.source_of(source)
    if "VOCABULARY" in constants:
        constants = {**constants, "THREADS": threads_of(constants["VOCABULARY"], real)}
    used = nvrtc.compiled(text, architecture, {**constants, "REAL_BYTES": real})
    assert len(used) == text.count('extern "C" __global__')
    allowed = 0  # bytes
    if source == "long_attention_gradient" and constants["D_K"] > 96:
        allowed = 48 if constants["DROPOUT"] else 24
    if source == "top_k" and constants.get("NAMED"):
        allowed = 16
    if source == "norm" and constants["COLUMNS"] == 1024 and real == 4:  # big in float32
        allowed = 32
    assert {name: u.spilled for name, u in used.items() if u.spilled > allowed} == {}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("kernel", "constants", "threads", "blocks"),
    [
        ("cross_entropy", {"VOCABULARY": 37_000, "THREADS": 512}, 512, 2),
        (
            "top_k",
            {"VOCABULARY": 37_000, "THREADS": 512, "BIASED": 0, "NAMED": 0, "NORMALISED": 1},
            512,
            2,
        ),
        ("embedding_gradient", {"COLUMNS": 512}, 128, 5),
        ("cached_attention", {"HEADS": 8, "WIDTH": 64, "QUERIES": 1}, 128, 7),
        ("cached_attention", {"HEADS": 8, "WIDTH": 64, "QUERIES": 4}, 128, 4),
    ],
)
def test_as_many_blocks_as_planned_fit_on_a_multiprocessor(
    kernel, constants, threads, blocks, architecture
):
    text = device.source_of(kernel.removesuffix("_gradient"))
    used = nvrtc.compiled(text, architecture, {**constants, "REAL_BYTES": 2})
    assert used[kernel].registers * threads * blocks <= 65_536
    assert used[kernel].spilled == 0


def blocks_of(registers: int, threads: int, shared: int, of_processor: int) -> int:
    """How many blocks fit onto a multiprocessor with so much shared memory, in bytes."""
    of_warp = 32 * -(-registers // 8) * 8
    return min(2048 // threads, 65536 // (threads // 32 * of_warp), of_processor // (shared + 1024))


@pytest.mark.parametrize(
    ("architecture", "of_processor", "i"), [("sm_80", 164 * 1024, 0), ("sm_90", 228 * 1024, 1)]
)
@pytest.mark.parametrize(("source", "rows"), PLANNED)
def test_a_multiprocessor_holds_the_blocks_of_attention_that_were_planned(
    source, rows, architecture, of_processor, i
):
    text, shared = device.source_of(source), shared_bytes(source, rows, 64, 64)
    for reach in (WHOLE, CAUSAL):
        constants = {"D_K": 64, "D_V": 64, **reach, "DROPOUT": 0, "TILE_ROWS": rows}
        used = nvrtc.compiled(text, architecture, {**constants, "REAL_BYTES": 2})
        found = [blocks_of(u.registers, 2 * rows, shared, of_processor) for u in used.values()]
        assert min(found) >= PLANNED[source, rows][i]


def test_every_kernel_is_compiled():
    assert {source for source, _ in SIZES} == {p.stem for p in device.FOLDER.glob("*.cu")}


def test_an_error_of_the_compiler_gives_the_reason():
    with pytest.raises(AssertionError, match="undefined"):
        nvrtc.compiled('extern "C" __global__ void f() { g(); }', "sm_90", {})
