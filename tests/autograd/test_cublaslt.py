"""The binding of cuBLASLt, run on a stand-in with the library's ABI and compared with NumPy.

The error may be 1e-5 of the sum of the magnitudes of the terms in float32, and 2^-8 of it in
bfloat16.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ml_dtypes", reason="bfloat16 on NumPy needs ml_dtypes")

from autograd.backend import bfloat16
from autograd.cuda import cublaslt
from autograd.cuda.cublaslt import CublasLt, CublasLtError, Problem
from tests.without_gpu import emulator

pytestmark = pytest.mark.skipif(
    emulator.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
)

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": bfloat16()}
TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-8}
ROOM = 1 << 16  # bytes of workspace, enough for every problem here

# The stand-in's algorithms, by their number: those that any problem may get.
IN_TWO_PARTS, IN_ONE_SEQUENCE = 4, 5

PLAIN = Problem(
    rows=5,
    columns=8,
    depth=16,
    a_transposed=False,
    b_transposed=False,
    a_stride=16,
    b_stride=8,
    out_stride=8,
    dtype="float32",
    out_dtype="float32",
    epilogue="",
    scale_on_device=False,
    tf32=False,
)

transposes = pytest.mark.parametrize(
    ("a_transposed", "b_transposed"), [*itertools.product([False, True], repeat=2)]
)
dtypes = pytest.mark.parametrize(
    ("dtype", "out_dtype"),
    [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")],
)
epilogues = pytest.mark.parametrize("epilogue", cublaslt.EPILOGUES)
sizes = st.integers(1, 20)
paddings = st.sampled_from([0, 3, 8])
scales = st.sampled_from([0.0, 1.0, -0.5])


@functools.cache
def cublas() -> CublasLt:
    return CublasLt(ctypes.CDLL(str(emulator.cublaslt())))


class Operands:
    """Random arrays for a problem, with its strides, and NaN between the rows."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self.problem, self.rng = problem, np.random.default_rng(seed)
        p = problem
        a = (p.depth, p.rows) if p.a_transposed else (p.rows, p.depth)
        b = (p.columns, p.depth) if p.b_transposed else (p.depth, p.columns)
        self.a = self.matrix(*a, p.a_stride, p.dtype)
        self.b = self.matrix(*b, p.b_stride, p.dtype)
        self.out = self.matrix(p.rows, p.columns, p.out_stride, p.out_dtype)
        self.bias = self.matrix(1, p.columns, p.columns, p.out_dtype)[0]
        self.mask = self.rng.integers(0, 256, (p.rows, p.mask_stride // 8), np.uint8)
        self.workspace = np.full(ROOM, 255, np.uint8)

    def matrix(self, rows: int, columns: int, stride: int, dtype: str) -> np.ndarray:
        whole = np.full((rows, stride), np.nan, DTYPES[dtype])
        whole[:, :columns] = self.rng.standard_normal((rows, columns))
        return whole[:, :columns]

    def expected(self, alpha: float, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """The result in float64, and for each number the sum of the magnitudes of its terms."""
        p = self.problem
        a, b, out, bias = (x.astype(np.float64) for x in (self.a, self.b, self.out, self.bias))
        a, b = a.T if p.a_transposed else a, b.T if p.b_transposed else b
        bias = bias if "bias" in p.epilogue else 0 * bias
        where = self.masked() if p.epilogue == "masked" else 1
        result = alpha * (a @ b) + bias
        size = abs(alpha) * (abs(a) @ abs(b)) + abs(bias)
        if beta:
            result, size = result + beta * out, size + abs(beta * out)
        return np.maximum(result, 0) if "relu" in p.epilogue else result * where, size

    def masked(self) -> np.ndarray:
        """The bits of the mask, [rows, columns]."""
        bits = np.unpackbits(self.mask, axis=1, bitorder="little")
        return bits[:, : self.problem.columns]

    def multiply(self, algorithm: bytes, alpha: float = 1, beta: float = 0, **given: Any) -> None:
        scale = np.array([alpha, beta], np.float32)
        if self.problem.scale_on_device:
            alpha, beta = (scale.ctypes.data + i for i in (0, 4))
        addresses = {n: getattr(self, n).ctypes.data for n in ("a", "b", "out", "workspace")}
        if "mask" in self.problem.epilogue:
            addresses["mask"] = self.mask.ctypes.data
        if "bias" in self.problem.epilogue or self.problem.epilogue == "sums":
            addresses["bias"] = self.bias.ctypes.data
        arguments = {**addresses, "alpha": alpha, "beta": beta, "workspace_bytes": ROOM, **given}
        cublas().multiply(self.problem, algorithm, stream=0, **arguments)


def number(algorithm: bytes) -> int:
    """Which of the stand-in's algorithms this is."""
    return int.from_bytes(algorithm[:4], sys.byteorder)


def numbers(problem: Problem, workspace_bytes: int = ROOM, count: int = 9) -> list[int]:
    return [*map(number, cublas().algorithms(problem, workspace_bytes, count))]


def assert_product(problem: Problem, algorithm: bytes, alpha: float, beta: float, seed: int):
    operands = Operands(problem, seed)
    expected, size = operands.expected(alpha, beta)
    if beta == 0:
        operands.out[...] = np.nan  # and so it must not be read
    operands.multiply(algorithm, alpha, beta)
    error = np.abs(operands.out.astype(np.float64) - expected)
    assert np.all(error <= TOLERANCE[problem.out_dtype] * size)
    if problem.epilogue == "relu_mask_bias":
        np.testing.assert_array_equal(operands.masked(), operands.out > 0)
    if problem.epilogue == "sums":
        b = operands.b.astype(np.float64)
        error = abs(operands.bias.astype(np.float64) - b.sum(axis=0))
        assert np.all(error <= TOLERANCE[problem.out_dtype] * abs(b).sum(axis=0))
    between = operands.out.base[:, problem.columns :]
    assert np.isnan(between.astype(np.float32)).all()


@transposes
@dtypes
@epilogues
@given(
    st.tuples(sizes, sizes, sizes),
    st.tuples(paddings, paddings, paddings),
    st.booleans(),
    scales,
    scales,
    st.integers(0, 999),
)
def test_every_algorithm_agrees_with_numpy(
    a_transposed, b_transposed, dtype, out_dtype, epilogue,
    shape, padding, scale_on_device, alpha, beta, seed,
):  # fmt: skip
    rows, columns, depth = shape
    problem = Problem(
        *(rows, columns, depth, a_transposed, b_transposed),
        a_stride=padding[0] + (rows if a_transposed else depth),
        b_stride=padding[1] + (depth if b_transposed else columns),
        out_stride=padding[2] + columns,
        dtype=dtype,
        out_dtype=out_dtype,
        epilogue=epilogue,
        scale_on_device=scale_on_device,
        tf32=False,
        mask_stride=128 if "mask" in epilogue else 0,
    )
    algorithms = cublas().algorithms(problem, ROOM, 9)
    if epilogue == "sums" and b_transposed:  # which the library cannot add up
        assert algorithms == []
        return
    assert IN_ONE_SEQUENCE in map(number, algorithms)
    for algorithm in algorithms:
        assert len(algorithm) == 64
        assert cublas().supports(problem, algorithm, ROOM)
        assert_product(problem, algorithm, alpha, beta, seed)


def test_a_problem_says_whether_alpha_and_beta_are_on_the_device():
    def pointer_mode(algorithm: bytes) -> int:  # the stand-in records it in its algorithms
        return int.from_bytes(algorithm[8:12], sys.byteorder)

    for on_device in (False, True):
        problem = PLAIN._replace(scale_on_device=on_device)
        assert pointer_mode(cublas().algorithms(problem, ROOM, 1)[0]) == on_device


def test_tf32_is_used_only_for_float32_and_if_it_is_allowed():
    one_and_a_bit = 1 + 2**-20

    def product(problem: Problem) -> np.ndarray:
        operands = Operands(problem)
        operands.a[...], operands.b[...] = one_and_a_bit, 1
        operands.multiply(cublas().algorithms(problem, ROOM, 9)[-1])
        return operands.out

    assert np.all(product(PLAIN) == PLAIN.depth * one_and_a_bit)
    assert np.all(product(PLAIN._replace(tf32=True)) == PLAIN.depth)
    narrow = PLAIN._replace(dtype="bfloat16", tf32=True)
    assert numbers(narrow) == numbers(narrow._replace(tf32=False)) != []


def test_only_algorithms_with_float32_sums_and_16_byte_alignment_are_found():
    aligned = PLAIN._replace(rows=64, columns=64, depth=64, a_stride=64, b_stride=64, out_stride=64)
    assert numbers(aligned)[-2:] == [IN_TWO_PARTS, IN_ONE_SEQUENCE]
    assert not {0, 1, 2} & {*numbers(aligned)}


def test_unaligned_rows_get_an_algorithm_that_supports_them():
    odd = PLAIN._replace(a_stride=17)
    assert IN_TWO_PARTS not in numbers(odd)
    assert IN_ONE_SEQUENCE in numbers(odd)


def test_a_search_does_not_depend_on_the_alignment_of_the_last_bias():
    problem = PLAIN._replace(epilogue="bias")
    (algorithm, *_), wanted = cublas().algorithms(problem, ROOM, 9), numbers(problem)
    operands = Operands(problem)
    wide = np.zeros(problem.columns + 16, np.float32)
    start = -wide.ctypes.data % 64 // 4
    operands.bias = wide[start:][: problem.columns]
    operands.multiply(algorithm)
    assert numbers(problem) == wanted == [IN_TWO_PARTS, IN_ONE_SEQUENCE]


def test_a_search_is_limited_by_count_and_workspace():
    assert numbers(PLAIN, count=1) == numbers(PLAIN)[:1]
    assert IN_TWO_PARTS in numbers(PLAIN)
    assert IN_TWO_PARTS not in numbers(PLAIN, workspace_bytes=0)


def test_an_algorithm_needs_its_workspace_and_its_kind_of_problem():
    parts, sequence = cublas().algorithms(PLAIN, ROOM, 9)[-2:]
    needed = 2 * 4 * PLAIN.rows * PLAIN.columns
    assert cublas().supports(PLAIN, parts, needed)
    assert not cublas().supports(PLAIN, parts, needed - 1)
    assert cublas().supports(PLAIN, sequence, 0)
    assert cublas().supports(PLAIN._replace(rows=7), sequence, 0)
    assert not cublas().supports(PLAIN._replace(epilogue="relu"), sequence, 0)
    assert not cublas().supports(PLAIN, b"\xff" * 64, ROOM)


def test_the_fields_of_an_algorithm_are_those_that_the_library_reads():
    in_two_parts, in_one = cublas().algorithms(PLAIN, ROOM, 9)[-2:]
    assert cublas().fields(in_two_parts) == (IN_TWO_PARTS, 0, 2, 2, 0, 0, 0, 0, 0)
    assert cublas().fields(in_one) == (IN_ONE_SEQUENCE, 0, 1, 0, 0, 0, 0, 0, 0)
    unknown = cublas().fields(b"\xff" * 64)
    assert unknown == (2**32 - 1, *[-1] * 8)
    assert cublaslt.sums_in_float32(cublas().fields(in_two_parts))
    in_bfloat16 = bytes([0]) + in_one[1:]  # the stand-in's first, whose sums are rounded
    assert not cublaslt.sums_in_float32(cublas().fields(in_bfloat16))


def test_an_unsupported_problem_has_no_algorithms():
    unknown = PLAIN._replace(dtype="float32", out_dtype="bfloat16")
    assert cublas().algorithms(unknown, ROOM, 9) == []
    assert not cublas().supports(unknown, cublas().algorithms(PLAIN, ROOM, 1)[0], ROOM)


def test_an_algorithm_gives_the_same_bits_each_time():
    problem = PLAIN._replace(dtype="bfloat16", out_dtype="bfloat16")
    for algorithm in cublas().algorithms(problem, ROOM, 9):
        first, second = Operands(problem), Operands(problem)
        for operands in (first, second):
            operands.multiply(algorithm)
        assert first.out.tobytes() == second.out.tobytes()


def test_threads_can_share_the_library_with_different_biases():
    problem = PLAIN._replace(epilogue="relu_bias")
    algorithm = cublas().algorithms(problem, ROOM, 9)[-1]

    def work(seed: int) -> None:
        for turn in range(50):
            assert_product(problem, algorithm, 1, 0, 1000 * seed + turn)

    often, usual = 1e-6, sys.getswitchinterval()
    sys.setswitchinterval(often)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(usual)


def test_a_problem_works_again_after_its_eviction_from_the_cache():
    algorithm = cublas().algorithms(PLAIN, ROOM, 9)[-1]
    for rows in range(1, 2500):
        assert cublas().supports(PLAIN._replace(rows=rows, depth=13), algorithm, 0)
        if rows % 50 == 0:
            assert_product(PLAIN, algorithm, 1, 1, rows)


def test_a_missing_mask_is_an_error():
    operands = Operands(PLAIN._replace(epilogue="masked", mask_stride=128))
    algorithm = cublas().algorithms(operands.problem, ROOM, 1)[0]
    with pytest.raises(CublasLtError, match="CUBLAS_STATUS_INVALID_VALUE"):
        operands.multiply(algorithm, mask=0)
    operands.multiply(algorithm)


@pytest.mark.parametrize("mask_stride", [0, 64, 192])
def test_a_mask_has_rows_of_16_bytes(mask_stride):
    with pytest.raises(CublasLtError, match="INVALID_VALUE"):
        cublas().algorithms(PLAIN._replace(epilogue="masked", mask_stride=mask_stride), ROOM, 9)


def test_a_missing_bias_is_an_error():
    operands = Operands(PLAIN._replace(epilogue="bias"))
    algorithm = cublas().algorithms(operands.problem, ROOM, 1)[0]
    message = r"cublasLtMatmul failed with CUBLAS_STATUS_INVALID_VALUE \(7\): .*, for Problem\("
    with pytest.raises(CublasLtError, match=message):
        operands.multiply(algorithm, bias=0)
    operands.multiply(algorithm)


@pytest.mark.parametrize(
    "wrong",
    [{"a": 0}, {"b": 0}, {"out": 0}, {"workspace": 0}, {"workspace_bytes": 8}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_missing_operand_or_workspace_is_an_error(wrong):
    (algorithm,) = (x for x in cublas().algorithms(PLAIN, ROOM, 9) if number(x) == IN_TWO_PARTS)
    with pytest.raises(CublasLtError, match="cublasLtMatmul failed with CUBLAS_STATUS_INVALID"):
        Operands(PLAIN).multiply(algorithm, **wrong)


def test_overlapping_rows_are_an_error():
    with pytest.raises(CublasLtError, match="cublasLtMatmulAlgoGetHeuristic failed with"):
        cublas().algorithms(PLAIN._replace(a_stride=15), ROOM, 9)


def test_a_search_for_no_algorithms_is_an_error():
    with pytest.raises(CublasLtError, match="INVALID_VALUE"):
        cublas().algorithms(PLAIN, ROOM, 0)


@pytest.fixture
def pathfinder(monkeypatch):
    """A replacement of cuda.pathfinder, which finds libraries."""
    module = types.ModuleType("cuda.pathfinder")
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", module)
    return module


def test_the_library_is_loaded_from_where_it_is_found(pathfinder):
    asked: list[str] = []

    def find(name: str) -> Any:
        asked.append(name)
        return types.SimpleNamespace(abs_path=str(emulator.cublaslt()))

    pathfinder.load_nvidia_dynamic_lib = find
    assert cublaslt.load().version == 130000
    assert asked == ["cublasLt"]


def test_a_missing_library_is_an_error(pathfinder, monkeypatch):
    def find(name: str) -> Any:
        raise RuntimeError(f"no {name} here")

    pathfinder.load_nvidia_dynamic_lib = find
    with pytest.raises(CublasLtError, match="cuBLASLt cannot be loaded: no cublasLt here"):
        cublaslt.load()
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    with pytest.raises(CublasLtError, match="cuBLASLt cannot be loaded"):
        cublaslt.load()
