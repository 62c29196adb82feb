"""Matrix products: by cuBLAS, or by cuBLASLt with fused bias and ReLU, whichever is faster.

Which one is faster is tried with the first product of a class (trial.py), and kept (choices.py). A
class has the products of one kind with similar sizes (product.py), since the number of tokens
differs from batch to batch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, NamedTuple, Protocol

from autograd.backend import Array, backend_of
from autograd.cuda.choices import Choices
from autograd.cuda.cublaslt import CublasLt, CublasLtError, Problem, sums_in_float32
from autograd.cuda.product import Product, class_of, mask_like, problem_of
from autograd.cuda.trial import Bench, Trial

WORKSPACE_BYTES = 32 << 20  # cuBLAS's own default on Hopper
# Algorithms of cuBLASLt that are tried. More for products of a few tens of microseconds, for which
# its order is least reliable, and where trying costs little.
_CANDIDATES, _OF_SMALL, _SMALL = 8, 24, 1 << 33  # rows · depth · columns
_AHEAD = 0.98  # of cuBLAS's time: a smaller gain does not count
_BEHIND = 1.25  # of the least time so far: a way that takes longer is not timed any further
_MOST_KEPT = 4096  # products that are looked up at once
_CUBLAS = "cublas"
_tf32 = False
_of_run: str | None = None  # the folder of the current run, for its choices
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


class StreamContext(Bench, Protocol):
    """The stream and the memory with which a device computes products."""

    def address(self, x: Array) -> int:
        """The address of an array's first number."""

    def stream(self) -> int:
        """The current stream."""

    def workspace(self) -> int:
        """The address of WORKSPACE_BYTES bytes that only this stream uses."""

    def numbers(self) -> int:
        """The address of the float32 numbers 0 and 1 on the device."""


class _Way(NamedTuple):
    """The description of a product, and cuBLASLt's algorithm for it, or None for cuBLAS."""

    problem: Problem
    algorithm: bytes | None


class Products:
    """The products of one device.

    `cublas` computes a product without cuBLASLt, and `complete` what it has of masks and sums, from
    the result. `lt` is None if there is no cuBLASLt. `measured` has the seconds of `cublas` and of
    each algorithm of cuBLASLt, for each class that this process has measured.
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
            problem = problem_of(product, _tf32)
            if product.has_masks_or_sums:
                self._way(product.without())  # part of this choice: a run keeps both
            find = self._recordable_algorithm if recordable else self._algorithm
            way = self._ways[key] = _Way(problem, find(product, problem))
        return way

    def _in_passes(self, product: Product, problem: Problem) -> None:
        """Compute a product without cuBLASLt's masks and sums.

        If there are any, the product itself is one of a class of its own. Its mask is left out.
        """
        if not product.has_masks_or_sums:
            self._cublas(product, problem)
            return
        self(product.without())
        self._complete(product._replace(positive=None))

    def _algorithm(self, product: Product, problem: Problem) -> bytes | None:
        """The algorithm of cuBLASLt to use, or None for cuBLAS."""
        return self._chosen(product, problem, class_of(problem, product.add))

    def _recordable_algorithm(self, product: Product, problem: Problem) -> bytes | None:
        """The algorithm of cuBLASLt to use, or None if it has none: the usual one if there is.

        Masks and sums can be passes of their own in a recording, too, if that is faster. They are
        looked at for each size, of which there are few, and not for the first of a class alone.
        """
        algorithm = self._algorithm(product, problem)
        if product.has_masks_or_sums:
            is_right = algorithm is not None and self._is_right(product, problem, algorithm)
            return algorithm if is_right else None
        if algorithm is not None or self._lt is None:
            return algorithm
        purpose = f"{class_of(problem, product.add)}, recordable"
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
        is_small = problem.rows * problem.depth * problem.columns <= _SMALL
        count = _OF_SMALL if is_small else _CANDIDATES
        with self._context.aside():
            trial = Trial(product, self._context)
            of_cublas = trial.seconds(partial(self._whole_in_passes, problem=problem))
            assert of_cublas is not None  # it is right
            ways, seconds = [_CUBLAS], [of_cublas]
            for algorithm in self._lt.algorithms(problem, WORKSPACE_BYTES, count):
                way = partial(self._multiply, problem=problem, algorithm=algorithm)
                with suppress(CublasLtError):  # the library only suggested it
                    taken = trial.seconds(way, _BEHIND * min(seconds))
                    if taken is not None:
                        seconds.append(taken)
                        ways.append(_name_of(self._lt, algorithm))
        self.measured[purpose] = seconds
        if not with_cublas:
            return min(zip(seconds[1:], ways[1:], strict=True), default=(0.0, _CUBLAS))[1]
        least = min(seconds)
        return ways[seconds.index(least)] if least < _AHEAD * seconds[0] else _CUBLAS

    def _is_right(self, product: Product, problem: Problem, algorithm: bytes) -> bool:
        """Whether an algorithm has the right masks and sums for these very sizes."""
        with self._context.aside():
            trial = Trial(product, self._context)
            trial.is_right(partial(self._whole_in_passes, problem=problem))
            return trial.is_right(partial(self._multiply, problem=problem, algorithm=algorithm))

    def _whole_in_passes(self, product: Product, problem: Problem) -> None:
        """Compute a product without cuBLASLt's masks and sums, and then what was left out."""
        self._in_passes(product, problem)
        if product.positive:
            self._complete(Product(*product[:3], positive=product.positive))

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
