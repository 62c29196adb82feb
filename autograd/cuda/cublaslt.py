"""cuBLASLt: matrix products with bias, ReLU and their gradients, by an algorithm of our choice.

cuBLASLt is column-major, so it sees every row-major matrix transposed: outᵀ = bᵀ aᵀ. Its A is our
b, its B is our a, and its bias, a number for each row of the result, is a number for each column of
ours.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import threading
from ctypes import byref
from typing import Any, NamedTuple


class Problem(NamedTuple):
    """The description of a product for cuBLASLt: out: [rows, columns] = a b, row-major.

    a: [rows, depth], or [depth, rows] if it is transposed; b: [depth, columns], or [columns,
    depth]. A bias: [columns], and sums, have the dtype of out. A mask is [rows, mask_stride] bits,
    the first in the lowest bit of the first byte; mask_stride is a multiple of 128. No size is 0.
    """

    rows: int
    columns: int
    depth: int
    a_transposed: bool
    b_transposed: bool
    a_stride: int  # numbers from row to row, at least the length of a row
    b_stride: int
    out_stride: int
    dtype: str  # of a and b: "bfloat16" or "float32"
    out_dtype: str
    epilogue: str  # one of EPILOGUES
    scale_on_device: bool  # alpha and beta are addresses on the device, of float32 numbers
    tf32: bool  # float32 numbers may be rounded to TF32 before they are multiplied
    mask_stride: int = 0  # bits from row to row of the mask that some epilogues have


class CublasLtError(RuntimeError):
    """cuBLASLt returned an error, or cannot be loaded."""


# The values of cublasLt.h, cublas_api.h and library_types.h
_TYPES = {"float32": 0, "bfloat16": 14}
_COMPUTE_32F, _COMPUTE_32F_FAST_TF32 = 68, 77
# What is done with the result: "masked" sets it to 0 where the ReLU of "relu_mask_bias" was 0.
# "sums" adds up the rows of b.
EPILOGUES = {
    "": 1,
    "relu": 2,
    "bias": 4,
    "relu_bias": 6,
    "relu_mask_bias": 134,  # RELU_AUX_BIAS
    "masked": 136,  # DRELU
    "sums": 256,  # BGRADA
}
_INVALID_VALUE, _ARCH_MISMATCH, _NOT_SUPPORTED = 7, 8, 15
_POINTER_MODE, _A_TRANSPOSED, _B_TRANSPOSED, _EPILOGUE, _BIAS_POINTER = 2, 3, 4, 7, 8
_MASK_POINTER, _MASK_STRIDE = 11, 12  # EPILOGUE_AUX_POINTER, EPILOGUE_AUX_LD
_MAX_WORKSPACE_BYTES, _REDUCTIONS, _MIN_ALIGNMENTS = 1, 3, (5, 6, 7, 8)

# Partial sums are kept in float32 and added up in a separate step. The library's other reduction
# schemes round them to the dtype of out, or add them to out in no fixed order.
_REDUCE_IN_COMPUTE_TYPE = 2
# An algorithm's fields in the order of their numbers, which begin with 0: id, tile, parts of the
# sums, reduction scheme, swizzling, custom option, stages, inner shape and cluster shape.
_FIELDS = (*[ctypes.c_uint32] * 7, *[ctypes.c_uint16] * 2)
_REDUCTION = 3
_UNKNOWN = -1  # a field that the library does not tell
_REDUCTIONS_IN_FLOAT32 = (_UNKNOWN, 0, _REDUCE_IN_COMPUTE_TYPE)  # a search allows no others
_ALIGNMENT = 16  # bytes: eight numbers of bfloat16
_ANY = _ALIGNMENT  # an address: a search considers only its alignment

_MOST_KEPT = 1024  # plans, and matrix layouts; packed batches keep bringing new numbers of rows

_INT, _LONG, _SIZE, _ADDRESS = ctypes.c_int32, ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
_SET_ATTRIBUTE = [_ADDRESS, _INT, _ADDRESS, _SIZE]
_ARGUMENTS = {
    "cublasLtGetVersion": [],
    "cublasLtGetStatusName": [_INT],
    "cublasLtGetStatusString": [_INT],
    "cublasLtCreate": [_ADDRESS],
    "cublasLtMatmulDescCreate": [_ADDRESS, _INT, _INT],
    "cublasLtMatmulDescSetAttribute": _SET_ATTRIBUTE,
    "cublasLtMatmulDescDestroy": [_ADDRESS],
    "cublasLtMatrixLayoutCreate": [_ADDRESS, _INT, _LONG, _LONG, _LONG],
    "cublasLtMatrixLayoutDestroy": [_ADDRESS],
    "cublasLtMatmulPreferenceCreate": [_ADDRESS],
    "cublasLtMatmulPreferenceSetAttribute": _SET_ATTRIBUTE,
    "cublasLtMatmulPreferenceDestroy": [_ADDRESS],
    "cublasLtMatmulAlgoGetHeuristic": [*[_ADDRESS] * 7, _INT, _ADDRESS, _ADDRESS],
    "cublasLtMatmulAlgoCheck": [_ADDRESS] * 8,
    "cublasLtMatmulAlgoConfigGetAttribute": [_ADDRESS, _INT, _ADDRESS, _SIZE, _ADDRESS],
    "cublasLtMatmul": [*[_ADDRESS] * 14, _SIZE, _ADDRESS],
}


class CublasLt:
    """The library on the current device. Threads may share it.

    Raises CublasLtError if there is no device.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, argtypes in _ARGUMENTS.items():
            getattr(library, name).argtypes = argtypes
        library.cublasLtGetVersion.restype = _SIZE
        library.cublasLtGetStatusName.restype = ctypes.c_char_p
        library.cublasLtGetStatusString.restype = ctypes.c_char_p
        self._library, self._matmul = library, library.cublasLtMatmul
        self._set_attribute = library.cublasLtMatmulDescSetAttribute
        # A new problem usually has a known operation, and one or two new layouts.
        cached = functools.lru_cache(_MOST_KEPT)
        self._operation = cached(functools.partial(_Operation, library))
        self._layout = cached(functools.partial(_Layout, library))
        self._plan = cached(self._planned)
        self._one_at_a_time = threading.Lock()
        handle = _ADDRESS()
        _check(library, "cublasLtCreate", library.cublasLtCreate(byref(handle)))
        # Never destroyed: there is one per process, at whose end the device may already be gone.
        self._handle = handle.value

    @property
    def version(self) -> int:
        """The library's version: 130100 is 13.1.0."""
        return self._library.cublasLtGetVersion()

    def algorithms(self, problem: Problem, workspace_bytes: int, count: int) -> list[bytes]:
        """Up to `count` algorithms for the problem, the most promising first; maybe none.

        Each is 64 opaque bytes, valid for this version of the library. Each is deterministic, sums
        in float32, and accepts matrices and rows aligned to 16 bytes.
        """
        preference = _Descriptor(self._library, "MatmulPreference")
        preference.set(_MAX_WORKSPACE_BYTES, _SIZE(workspace_bytes))
        preference.set(_REDUCTIONS, _INT(_REDUCE_IN_COMPUTE_TYPE))
        for matrix in _MIN_ALIGNMENTS:
            preference.set(matrix, _INT(_ALIGNMENT))
        plan = self._plan(problem)
        found, results = _INT(), (_Result * count)()
        arguments = (
            self._handle, plan.operation, plan.b, plan.a, plan.out, plan.out, preference.address,
            count, results, byref(found),
        )  # fmt: skip
        search = self._library.cublasLtMatmulAlgoGetHeuristic
        status = self._call(search, arguments, plan, _ANY, _ANY)
        if status in (_ARCH_MISMATCH, _NOT_SUPPORTED):
            return []
        _check(self._library, "cublasLtMatmulAlgoGetHeuristic", status, problem)
        return [bytes(r.algorithm) for r in results[: found.value] if not r.status]

    def supports(self, problem: Problem, algorithm: bytes, workspace_bytes: int) -> bool:
        """Whether an algorithm, perhaps of another problem, can solve this one in the workspace."""
        plan, result = self._plan(problem), _Result()
        arguments = (
            self._handle, plan.operation, plan.b, plan.a, plan.out, plan.out,
            algorithm, byref(result),
        )  # fmt: skip
        check = self._library.cublasLtMatmulAlgoCheck
        status = self._call(check, arguments, plan, _ANY, _ANY)
        if status in (_INVALID_VALUE, _ARCH_MISMATCH, _NOT_SUPPORTED):
            return False
        _check(self._library, "cublasLtMatmulAlgoCheck", status, problem)
        return result.workspace_bytes <= workspace_bytes

    def fields(self, algorithm: bytes) -> tuple[int, ...]:
        """What the library reads in an algorithm's 64 bytes; -1 for a field that it lacks."""
        get, found = self._library.cublasLtMatmulAlgoConfigGetAttribute, []
        for number, kind in enumerate(_FIELDS):
            value, written = kind(), _SIZE()
            size = ctypes.sizeof(value)
            status = get(algorithm, number, byref(value), size, byref(written))
            found.append(_UNKNOWN if status or written.value != size else value.value)
        return tuple(found)

    def multiply(
        self,
        problem: Problem,
        algorithm: bytes,
        a: int,
        b: int,
        out: int,
        *,
        bias: int = 0,
        mask: int = 0,
        alpha: float,
        beta: float,
        workspace: int,
        workspace_bytes: int,
        stream: int,
    ) -> None:
        """Queue out = alpha a b + beta out, then the epilogue. If beta is 0, out is not read.

        Matrices, bias, mask, workspace and stream are addresses, as are alpha and beta if the
        problem has `scale_on_device`. `bias` is also where "sums" go. The workspace is aligned to
        256 bytes, and belongs to one stream only. Raises CublasLtError.
        """
        plan = self._plan(problem)
        on_device = problem.scale_on_device
        scale, add = (alpha, beta) if on_device else (_on_host(alpha), _on_host(beta))
        arguments = (
            self._handle, plan.operation, scale, b, plan.b, a, plan.a, add, out, plan.out,
            out, plan.out, algorithm, workspace, workspace_bytes, stream,
        )  # fmt: skip
        status = self._call(self._matmul, arguments, plan, bias, mask)
        if status:
            _check(self._library, "cublasLtMatmul", status, problem)

    def _call(
        self, function: Any, arguments: tuple[Any, ...], plan: _Plan, bias: int, mask: int
    ) -> int:
        """The status of a call for a plan, with its bias and its mask set if it has them."""
        if not plan.pointers:
            return function(*arguments)
        with self._one_at_a_time:  # pointers are part of the operation, which threads share
            for attribute, pointer in plan.pointers:
                pointer.value = bias if attribute == _BIAS_POINTER else mask
                status = self._set_attribute(plan.operation, attribute, byref(pointer), 8)
                if status:
                    return status
            return function(*arguments)

    def _planned(self, problem: Problem) -> _Plan:
        p = problem
        return _Plan(
            self._operation(
                *(p.a_transposed, p.b_transposed, p.dtype, p.epilogue, p.scale_on_device, p.tf32),
                p.mask_stride,
            ),
            self._layout(p.dtype, p.rows, p.depth, p.a_transposed, p.a_stride),
            self._layout(p.dtype, p.depth, p.columns, p.b_transposed, p.b_stride),
            self._layout(p.out_dtype, p.rows, p.columns, False, p.out_stride),
        )


def load() -> CublasLt:
    """The cuBLASLt of the installed CUDA, or the one that is loaded already.

    Raises CublasLtError if there is none, or no device.
    """
    try:
        pathfinder = importlib.import_module("cuda.pathfinder")
        library = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)
    except (ImportError, OSError, RuntimeError) as error:
        raise CublasLtError(f"cuBLASLt cannot be loaded: {error}") from error
    return CublasLt(library)


def sums_in_float32(fields: tuple[int, ...]) -> bool:
    """Whether an algorithm with these fields keeps partial sums in float32, in a fixed order."""
    return fields[_REDUCTION] in _REDUCTIONS_IN_FLOAT32


class _Descriptor:
    """A descriptor of the library, destroyed with this object.

    `kind` is the prefix of its functions: MatmulDesc, MatrixLayout or MatmulPreference.
    """

    def __init__(self, library: ctypes.CDLL, kind: str, *arguments: int) -> None:
        self._library, self._kind = library, f"cublasLt{kind}"
        self._destroy = getattr(library, f"{self._kind}Destroy")
        self.address = None
        created = _ADDRESS()
        self._call("Create", byref(created), *arguments)
        self.address = created.value

    def set(self, attribute: int, value: Any) -> None:
        """Set an attribute to a ctypes number, which has the attribute's size."""
        self._call("SetAttribute", self.address, attribute, byref(value), ctypes.sizeof(value))

    def _call(self, verb: str, *arguments: Any) -> None:
        name = self._kind + verb
        _check(self._library, name, getattr(self._library, name)(*arguments))

    def __del__(self) -> None:
        if self.address:
            self._destroy(self.address)


class _Operation(_Descriptor):
    """What to compute, independent of sizes."""

    def __init__(
        self,
        library: ctypes.CDLL,
        a_transposed: bool,
        b_transposed: bool,
        dtype: str,
        epilogue: str,
        scale_on_device: bool,
        tf32: bool,
        mask_stride: int,
    ) -> None:
        rounds = tf32 and dtype == "float32"
        compute = _COMPUTE_32F_FAST_TF32 if rounds else _COMPUTE_32F
        super().__init__(library, "MatmulDesc", compute, _TYPES["float32"])
        self.set(_POINTER_MODE, _INT(scale_on_device))
        self.set(_A_TRANSPOSED, _INT(b_transposed))
        self.set(_B_TRANSPOSED, _INT(a_transposed))
        self.set(_EPILOGUE, _INT(EPILOGUES[epilogue]))
        self.pointers: list[tuple[int, ctypes.c_void_p]] = []  # by attribute
        if "bias" in epilogue or epilogue == "sums":
            self.pointers.append((_BIAS_POINTER, _ADDRESS()))
        if "mask" in epilogue:
            self.pointers.append((_MASK_POINTER, _ADDRESS()))
            self.set(_MASK_STRIDE, _LONG(mask_stride))


class _Layout(_Descriptor):
    """The layout of a row-major matrix: [rows, columns], or [columns, rows] if transposed."""

    def __init__(
        self,
        library: ctypes.CDLL,
        dtype: str,
        rows: int,
        columns: int,
        transposed: bool,
        stride: int,
    ) -> None:
        sizes = (rows, columns) if transposed else (columns, rows)
        super().__init__(library, "MatrixLayout", _TYPES[dtype], *sizes, stride)


class _Plan:
    """A problem in the library's terms: the addresses of its descriptors, which it owns."""

    __slots__ = ("_owned", "a", "b", "operation", "out", "pointers")

    def __init__(self, operation: _Operation, a: _Layout, b: _Layout, out: _Layout) -> None:
        self._owned = operation, a, b, out
        self.operation, self.a, self.b, self.out = (x.address for x in self._owned)
        self.pointers = operation.pointers


class _Result(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t: an algorithm and what it needs."""

    _fields_ = (
        ("algorithm", ctypes.c_ubyte * 64),
        ("workspace_bytes", ctypes.c_size_t),
        ("status", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


@functools.lru_cache(maxsize=64)
def _on_host(number: float) -> ctypes.Array[ctypes.c_float]:
    """A float32 number in memory."""
    return (ctypes.c_float * 1)(number)


def _check(library: ctypes.CDLL, call: str, status: int, problem: Problem | None = None) -> None:
    if not status:
        return
    name = library.cublasLtGetStatusName(status).decode()
    meaning = library.cublasLtGetStatusString(status).decode()
    context = f", for {problem}" if problem else ""
    raise CublasLtError(f"{call} failed with {name} ({status}): {meaning}{context}")
