"""Products of matrices: by cuBLAS, or by cuBLASLt with bias and ReLU in one, whichever is faster.

Which one is, is found out when a product of its class comes for the first time, and kept
(choices.py). Of a class are products of the same kind whose sizes are alike: packed batches have
other numbers of tokens at every step.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from autograd.backend import Array
from autograd.cuda.choices import Choices
from autograd.cuda.cublaslt import CublasLt, CublasLtError, Problem

WORKSPACE_BYTES = 32 << 20  # what cuBLAS takes for itself on Hopper
_CANDIDATES = 8  # algorithms of cuBLASLt that are tried
_AHEAD = 0.98  # of cuBLAS's time: what less is not worth another way
_MOST_KEPT = 4096  # products whose way is known at once
_CUBLAS = "cublas"
_tf32 = False
_TYPES = {4: "float32", 2: "bfloat16"}  # by the bytes of a number


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 matrices may round what they multiply to TF32, 10 bits and not
    23, as tensor cores take it; not unless asked for. For the whole process."""
    global _tf32
    _tf32 = allowed


def is_way(name: str) -> bool:
    """Whether `Choices` may have this for a product: cuBLAS, or an algorithm of cuBLASLt."""
    return name == _CUBLAS or re.fullmatch("[0-9a-f]{128}", name) is not None


class Product(NamedTuple):
    """out = scale · a b, or out + scale · a b with `add`; then + bias, then max(0, ·) with `relu`.

    Matrices whose rows may lie further apart than they are long. `scale` is a float32 number on the
    device, `bias` has the dtype of `out`.
    """

    out: Array
    a: Array
    b: Array
    a_transposed: bool = False
    b_transposed: bool = False
    scale: Array | None = None
    add: bool = False
    bias: Array | None = None
    relu: bool = False


class Place(Protocol):
    """Where a device does its work now."""

    def address(self, x: Array) -> int:
        """Where the first number of an array lies."""

    def stream(self) -> int:
        """The stream that work is queued on."""

    def workspace(self) -> int:
        """The address of WORKSPACE_BYTES bytes that belong to this stream alone."""

    def numbers(self) -> int:
        """The address of the float32 numbers 0 and 1 on the device."""

    def like(self, x: Array) -> Array:
        """A matrix that lies as x does, for a result that nobody wants."""

    def seconds(self, run: Callable[[], None]) -> float:
        """How long the device takes for what `run` asks of it."""


class _Way(NamedTuple):
    """What a product looks like, and cuBLASLt's algorithm for it; None where cuBLAS computes it."""

    problem: Problem
    algorithm: bytes | None


class Products:
    """The products of one device.

    `cublas` computes one without cuBLASLt, and is told what it looks like; where cuBLASLt is not
    there, `lt` is None. `measured` has, for each class that this process chose for, the seconds of
    `cublas` and of each algorithm of cuBLASLt.
    """

    def __init__(
        self,
        cublas: Callable[[Product, Problem], None],
        lt: CublasLt | None,
        place: Place,
        choices: Choices,
    ) -> None:
        self._cublas, self._lt, self._place, self._choices = cublas, lt, place, choices
        self.measured: dict[str, list[float]] = {}
        self._ways: dict[tuple[Any, ...], _Way] = {}

    def __call__(self, product: Product) -> None:
        """Compute a product. Sizes of 0 are none of its business."""
        out, a, b, a_transposed, b_transposed, scale, add, bias, relu = product
        key = (
            *(a.shape, b.shape, a.strides, b.strides, out.strides, a.itemsize, out.itemsize),
            *(a_transposed, b_transposed, scale is None, add, bias is None, relu, _tf32),
        )
        way = self._ways.get(key)
        if way is None:
            if len(self._ways) >= _MOST_KEPT:
                self._ways.clear()
            problem = _problem(product, _tf32)
            way = self._ways[key] = _Way(problem, self._algorithm(product, problem))
        if way.algorithm is None:
            self._cublas(product, way.problem)
        else:
            self._multiply(product, way.problem, way.algorithm)

    def _algorithm(self, product: Product, problem: Problem) -> bytes | None:
        """The algorithm of cuBLASLt that is to be used; None where cuBLAS is."""
        if self._lt is None:
            return None
        purpose = _class_of(problem, product.add)
        chosen = self._choices.get(purpose)
        # What cannot be kept would be chosen otherwise by the next run.
        if chosen is None and self._choices.can_keep:
            chosen = self._choices.keep(purpose, self._fastest(product, problem, purpose))
        if chosen is None or chosen == _CUBLAS:
            return None
        algorithm = bytes.fromhex(chosen)
        return algorithm if self._lt.supports(problem, algorithm, WORKSPACE_BYTES) else None

    def _fastest(self, product: Product, problem: Problem, purpose: str) -> str:
        """What took the least time for this product, by its name for `Choices`."""
        assert self._lt is not None
        place = self._place
        if product.add:  # or else it would be added as often as it is tried
            product = product._replace(out=place.like(product.out))
        ways, seconds = [_CUBLAS], [place.seconds(lambda: self._cublas(product, problem))]
        for algorithm in self._lt.algorithms(problem, WORKSPACE_BYTES, _CANDIDATES):

            def run(algorithm: bytes = algorithm) -> None:
                self._multiply(product, problem, algorithm)

            with suppress(CublasLtError):  # it was a guess of the library's
                seconds.append(place.seconds(run))
                ways.append(algorithm.hex())
        self.measured[purpose] = seconds
        least = min(seconds)
        return ways[seconds.index(least)] if least < _AHEAD * seconds[0] else _CUBLAS

    def _multiply(self, product: Product, problem: Problem, algorithm: bytes) -> None:
        assert self._lt is not None
        place, scale = self._place, product.scale
        alpha, beta = 1.0, float(product.add)
        if scale is not None:
            alpha, beta = place.address(scale), place.numbers() + 4 * product.add
        self._lt.multiply(
            problem,
            algorithm,
            place.address(product.a),
            place.address(product.b),
            place.address(product.out),
            bias=0 if product.bias is None else place.address(product.bias),
            alpha=alpha,
            beta=beta,
            workspace=place.workspace(),
            workspace_bytes=WORKSPACE_BYTES,
            stream=place.stream(),
        )


def stride_of(x: Array) -> int:
    """Numbers from row to row; NumPy says anything of a matrix of one row."""
    return max(x.strides[0] // x.itemsize, x.shape[1])


def _problem(product: Product, tf32: bool) -> Problem:
    out, a, b = product.out, product.a, product.b
    return Problem(
        rows=out.shape[0],
        columns=out.shape[1],
        depth=a.shape[0] if product.a_transposed else a.shape[1],
        a_transposed=product.a_transposed,
        b_transposed=product.b_transposed,
        a_stride=stride_of(a),
        b_stride=stride_of(b),
        out_stride=stride_of(out),
        dtype=_TYPES[a.itemsize],
        out_dtype=_TYPES[out.itemsize],
        epilogue="_".join(["relu"] * product.relu + ["bias"] * (product.bias is not None)),
        scale_on_device=product.scale is not None,
        tf32=tf32,
    )


def _class_of(problem: Problem, add: bool) -> str:
    """What products of like sizes have in common, in words."""
    p = problem
    sizes = " x ".join(str(_rounded(n)) for n in (p.rows, p.depth, p.columns))
    kinds = {
        "a transposed": p.a_transposed,
        "b transposed": p.b_transposed,
        "scaled": p.scale_on_device,
        "added": add,
        "tf32": p.tf32,
        p.epilogue: bool(p.epilogue),
    }
    return ", ".join([sizes, f"{p.dtype} to {p.out_dtype}", *(k for k, v in kinds.items() if v)])


def _rounded(size: int) -> int:
    """A size rounded up to three bits more than its first: eight classes for each power of two."""
    step = 1 << max(0, size.bit_length() - 4)
    return -(-size // step) * step
