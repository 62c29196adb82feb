"""Matrix products: by cuBLAS, or by cuBLASLt with fused bias and ReLU, whichever is faster.

Which one is faster is measured for the first product of a class, and kept (choices.py). A class has
the products of one kind with similar sizes, since the number of tokens differs from batch to batch.
"""

from __future__ import annotations

import math
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import numpy as np

from autograd.backend import Array, backend_of
from autograd.cuda.choices import Choices
from autograd.cuda.cublaslt import CublasLt, CublasLtError, Problem, sums_in_float32

WORKSPACE_BYTES = 32 << 20  # cuBLAS's own default on Hopper
# Algorithms of cuBLASLt that are tried. More for products of a few tens of microseconds, for which
# its order is least reliable, and where trying costs little.
_CANDIDATES, _OF_SMALL, _SMALL = 8, 24, 1 << 33  # rows · depth · columns
_AHEAD = 0.98  # of cuBLAS's time: a smaller gain does not count
_BEHIND = 1.25  # of the least time so far: a way that takes longer is not timed any further
_ROUNDING = 0.01  # of a mask's bytes may differ, where a result is nearly 0; and of sums
_MOST_KEPT = 4096  # products that are looked up at once
# Significant bits in the name of a class: with 2, a power of two and the next one have one size
# between them.
_TOKENS, _SIZES = 2, 4
_CUBLAS = "cublas"
_tf32 = False
_of_run: str | None = None  # the folder of the current run, for its choices
_TYPES = {4: "float32", 2: "bfloat16"}  # by the bytes of a number
_recordable: ContextVar[bool] = ContextVar("recordable_products", default=False)


def allow_tf32(allowed: bool) -> None:
    """Whether products of float32 matrices may round their factors to TF32, with 10 bits instead of
    23, to use tensor cores. Off by default. For the whole process."""
    global _tf32
    _tf32 = allowed


@contextmanager
def choices_kept_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Within the block, choices are kept in `folder` too, and those already there take precedence.

    For the whole process.
    """
    global _of_run
    before, _of_run = _of_run, os.fspath(folder)
    try:
        yield
    finally:
        _of_run = before


@contextmanager
def recordable_products() -> Iterator[None]:
    """Within the block, products run by cuBLASLt wherever it can compute them.

    CuPy's calls of cuBLAS cannot be recorded, and what is recorded has to give the bits of what is
    not.
    """
    token = _recordable.set(True)
    try:
        yield
    finally:
        _recordable.reset(token)


def is_way(name: str, lt: CublasLt | None = None) -> bool:
    """Whether this is a valid choice for a product: cuBLAS, or an algorithm of cuBLASLt.

    An algorithm is its bytes and what they meant to the library when it was chosen. `lt` must still
    read the same in them, and sums that are kept in float32.
    """
    if name == _CUBLAS:
        return True
    if re.fullmatch("[0-9a-f]{128}(?: -?[0-9]+)+", name) is None:
        return False
    algorithm = _algorithm_of(name)
    return lt is None or (name == _name_of(lt, algorithm) and sums_in_float32(lt.fields(algorithm)))


def _name_of(lt: CublasLt, algorithm: bytes) -> str:
    """An algorithm of cuBLASLt as a choice."""
    return " ".join([algorithm.hex(), *map(str, lt.fields(algorithm))])


def _algorithm_of(name: str) -> bytes:
    return bytes.fromhex(name.partition(" ")[0])


class Product(NamedTuple):
    """out = scale · a b, or out + scale · a b with `add`; then + bias, then max(0, ·) with `relu`.

    The row stride of a matrix may be larger than its rows. `scale` is a float32 number on the
    device; `bias` has the dtype of `out`.

    positive: with bias and ReLU, may be called with a mask of where the result is above 0: if a way
    that finds it out at once is the fastest one.
    where: a mask; the result is set to 0 where it has no bit.
    sums: is called with the sums of the rows of b, in parts: [count, columns], float32. Only for a
    b that is not transposed, and an out of float32.

    A mask is [rows, bytes] of uint8, a bit for each number: column c is bit c % 8 of byte c // 8 of
    its row (`mask_like`).
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
    positive: Callable[[Array], None] | None = None
    where: Array | None = None
    sums: Callable[[Array], None] | None = None


def mask_like(x: Array) -> Array:
    """An uninitialised mask for x: [rows, columns].

    Its rows have a multiple of 16 bytes, as cuBLASLt wants it.
    """
    rows, columns = x.shape
    return backend_of(x).empty((rows, 16 * -(-columns // 128)), np.dtype(np.uint8))


class StreamContext(Protocol):
    """The stream and the memory with which a device computes products."""

    def address(self, x: Array) -> int:
        """The address of an array's first number."""

    def stream(self) -> int:
        """The current stream."""

    def workspace(self) -> int:
        """The address of WORKSPACE_BYTES bytes that only this stream uses."""

    def numbers(self) -> int:
        """The address of the float32 numbers 0 and 1 on the device."""

    def like(self, x: Array) -> Array:
        """A matrix with the layout of x, for a result that is discarded."""

    def seconds(self, run: Callable[[], None], most: float = math.inf) -> float:
        """How long the device takes for the work that `run` queues; roughly, beyond `most`."""


class _Way(NamedTuple):
    """The description of a product, and cuBLASLt's algorithm for it, or None for cuBLAS."""

    problem: Problem
    algorithm: bytes | None


class Products:
    """The products of one device.

    `cublas` computes a product without cuBLASLt, and `complete` what it has of masks and sums, from
    the result. `lt` is None if there is no cuBLASLt. `measured`
    has the seconds of `cublas` and of each algorithm of cuBLASLt, for each class that this process
    has measured.
    """

    def __init__(
        self,
        cublas: Callable[[Product, Problem], None],
        complete: Callable[[Product], None],
        lt: CublasLt | None,
        context: StreamContext,
        choices: Choices,
    ) -> None:
        self._cublas, self._complete, self._lt = cublas, complete, lt
        self._context, self._choices = context, choices
        self.measured: dict[str, list[float]] = {}
        self._ways: dict[tuple[Any, ...], _Way] = {}

    def __call__(self, product: Product) -> None:
        """Compute a product, none of whose sizes is 0."""
        way = self._way(product)
        if way.algorithm is None:
            self._in_passes(product, way.problem)
        else:
            self._multiply(product, way.problem, way.algorithm)

    def _way(self, product: Product) -> _Way:
        out, a, b, a_transposed, b_transposed, scale, add, bias, relu, positive, where, sums = (
            product
        )
        recordable = _recordable.get()
        key = (
            *(a.shape, b.shape, a.strides, b.strides, out.strides, a.itemsize, out.itemsize),
            *(a_transposed, b_transposed, scale is None, add, bias is None, relu, _tf32, _of_run),
            *(positive is None, where is None, sums is None, recordable),
        )
        way = self._ways.get(key)
        if way is None:
            if len(self._ways) >= _MOST_KEPT:
                self._ways.clear()
            problem = _problem(product, _tf32)
            if _has_masks_or_sums(product):
                self._way(_without(product))  # part of this choice: a run keeps both
            find = self._recordable_algorithm if recordable else self._algorithm
            way = self._ways[key] = _Way(problem, find(product, problem))
        return way

    def _in_passes(self, product: Product, problem: Problem) -> None:
        """Compute a product without cuBLASLt's masks and sums.

        If there are any, the product itself is one of a class of its own. Its mask is left out.
        """
        if not _has_masks_or_sums(product):
            self._cublas(product, problem)
            return
        self(_without(product))
        self._complete(product._replace(positive=None))

    def _algorithm(self, product: Product, problem: Problem) -> bytes | None:
        """The algorithm of cuBLASLt to use, or None for cuBLAS."""
        return self._chosen(product, problem, _class_of(problem, product.add))

    def _recordable_algorithm(self, product: Product, problem: Problem) -> bytes | None:
        """The algorithm of cuBLASLt to use, or None if it has none: the usual one if there is.

        Masks and sums can be passes of their own in a recording, too, if that is faster.
        """
        algorithm = self._algorithm(product, problem)
        if algorithm is not None or self._lt is None or _has_masks_or_sums(product):
            return algorithm
        purpose = f"{_class_of(problem, product.add)}, recordable"
        algorithm = self._chosen(product, problem, purpose, with_cublas=False)
        if algorithm is not None:
            return algorithm
        # What the library suggests first depends on nothing but the problem.
        return next(iter(self._lt.algorithms(problem, WORKSPACE_BYTES, 1)), None)

    def _chosen(
        self, product: Product, problem: Problem, purpose: str, with_cublas: bool = True
    ) -> bytes | None:
        """The algorithm that is kept for this purpose, or else the fastest; None for cuBLAS."""
        if self._lt is None:
            return None
        chosen = self._choices.get(purpose, _of_run)
        # Without keeping the choice, the next run might choose another.
        if chosen is None and self._choices.can_keep(_of_run):
            fastest = self._fastest(product, problem, purpose, with_cublas)
            chosen = self._choices.keep(purpose, fastest, _of_run)
        if chosen is None or chosen == _CUBLAS:
            return None
        algorithm = _algorithm_of(chosen)
        return algorithm if self._lt.supports(problem, algorithm, WORKSPACE_BYTES) else None

    def _fastest(
        self, product: Product, problem: Problem, purpose: str, with_cublas: bool = True
    ) -> str:
        """The fastest way to compute this product, by its name in `Choices`.

        Without cuBLAS it is the fastest of cuBLASLt's, if there is one that is right.
        """
        assert self._lt is not None
        context = self._context
        if product.add:  # else every try would add to it
            product = product._replace(out=context.like(product.out))
        tries = _Tries(product)
        product = tries.product

        def in_passes() -> None:
            self._in_passes(product, problem)
            if product.positive:  # what leaving the mask out costs later
                self._complete(Product(*product[:3], positive=product.positive))

        ways, seconds = [_CUBLAS], [context.seconds(in_passes)]
        tries.expect_as_now()
        is_small = problem.rows * problem.depth * problem.columns <= _SMALL
        count = _OF_SMALL if is_small else _CANDIDATES
        for algorithm in self._lt.algorithms(problem, WORKSPACE_BYTES, count):

            def run(algorithm: bytes = algorithm) -> None:
                self._multiply(product, problem, algorithm)

            with suppress(CublasLtError):  # the library only suggested it
                taken = context.seconds(run, _BEHIND * min(seconds))
                if tries.are_right():
                    seconds.append(taken)
                    ways.append(_name_of(self._lt, algorithm))
        self.measured[purpose] = seconds
        if not with_cublas:
            return min(zip(seconds[1:], ways[1:], strict=True), default=(0.0, _CUBLAS))[1]
        least = min(seconds)
        return ways[seconds.index(least)] if least < _AHEAD * seconds[0] else _CUBLAS

    def _multiply(self, product: Product, problem: Problem, algorithm: bytes) -> None:
        assert self._lt is not None
        context, scale = self._context, product.scale
        alpha, beta = 1.0, float(product.add)
        if scale is not None:
            alpha, beta = context.address(scale), context.numbers() + 4 * product.add
        vector, mask = product.bias, product.where
        if product.positive:
            mask = mask_like(product.out)
        if product.sums:
            vector = backend_of(product.b).empty((1, product.out.shape[1]), product.out.dtype)
        self._lt.multiply(
            problem,
            algorithm,
            context.address(product.a),
            context.address(product.b),
            context.address(product.out),
            bias=0 if vector is None else context.address(vector),
            mask=0 if mask is None else context.address(mask),
            alpha=alpha,
            beta=beta,
            workspace=context.workspace(),
            workspace_bytes=WORKSPACE_BYTES,
            stream=context.stream(),
        )
        if product.positive:
            product.positive(mask)
        if product.sums:
            product.sums(vector)


class _Tries:
    """Checks the masks and sums of each way to compute a product.

    NVIDIA does not say in which order a mask's bits lie, or whether sums have the same bits each
    time. So a way counts only if they are where ours are, and if they do.
    """

    def __init__(self, product: Product) -> None:
        self._taken: deque[Array] = deque(maxlen=4)  # the last masks or sums
        self._expected: Array | None = None
        taken = self._taken.append
        self.product = product._replace(
            positive=product.positive and taken, sums=product.sums and taken
        )

    def expect_as_now(self) -> None:
        """The product has been computed, and what it has is right."""
        self._expected = self._found()

    def are_right(self) -> bool:
        """Whether what the product has by now is right, too."""
        if self._expected is None:
            return True
        found = self._found()
        if not self.product.sums:
            return float((found != self._expected).mean()) < _ROUNDING
        same = all(bool((x == self._taken[0]).all()) for x in self._taken)
        error, size = abs(found - self._expected).max(), abs(self._expected).max()
        return same and float(error) <= _ROUNDING * float(size)

    def _found(self) -> Array | None:
        product = self.product
        if product.positive:
            return self._taken[-1][:, : product.out.shape[1] // 8]
        if product.sums:
            return self._taken[-1].sum(axis=0)
        return None if product.where is None else product.out == 0


def _has_masks_or_sums(product: Product) -> bool:
    return not (product.positive is None and product.where is None and product.sums is None)


def _without(product: Product) -> Product:
    """The same product without masks and sums."""
    return product._replace(positive=None, where=None, sums=None)


def stride_of(x: Array) -> int:
    """Numbers from row to row. For a matrix of one row, NumPy's stride is arbitrary."""
    return max(x.strides[0] // x.itemsize, x.shape[1])


def _problem(product: Product, tf32: bool) -> Problem:
    out, a, b = product.out, product.a, product.b
    has_mask = product.positive is not None or product.where is not None
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
        epilogue=_epilogue_of(product),
        scale_on_device=product.scale is not None,
        tf32=tf32,
        mask_stride=-(-out.shape[1] // 128) * 128 if has_mask else 0,
    )


def _epilogue_of(product: Product) -> str:
    """The name of what follows the product, in cublaslt.py."""
    if product.where is not None:
        return "masked"
    if product.sums:
        return "sums"
    parts = {
        "relu": product.relu,
        "mask": product.positive is not None,
        "bias": product.bias is not None,
    }
    return "_".join(name for name, there in parts.items() if there)


def _class_of(problem: Problem, add: bool) -> str:
    """The class of a product, in words.

    Tokens are the rows of a product, or where it is a gradient of a matrix, its depth. Their number
    differs from batch to batch, so there are few classes of it: a run has soon met all of them.
    """
    p = problem
    of_rows, of_depth = (_SIZES, _TOKENS) if p.a_transposed else (_TOKENS, _SIZES)
    rounded = _rounded(p.rows, of_rows), _rounded(p.depth, of_depth), _rounded(p.columns, _SIZES)
    sizes = " x ".join(map(str, rounded))
    kinds = {
        "a transposed": p.a_transposed,
        "b transposed": p.b_transposed,
        "scaled": p.scale_on_device,
        "added": add,
        "tf32": p.tf32,
        p.epilogue: bool(p.epilogue),
    }
    return ", ".join([sizes, f"{p.dtype} to {p.out_dtype}", *(k for k, v in kinds.items() if v)])


def _rounded(size: int, bits: int) -> int:
    """A size rounded up to so many significant bits."""
    step = 1 << max(0, size.bit_length() - bits)
    return -(-size // step) * step
