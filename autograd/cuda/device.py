"""What the launchers of this package need from a GPU: running kernels, multiplying matrices."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autograd.backend import Array, backend_of
from autograd.cuda.product import Product

FLOAT32, INT64 = np.dtype(np.float32), np.dtype(np.int64)

FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'^#include "(.*)"$', re.MULTILINE)

Constants = Mapping[str, int]


class Blocks:
    """A number of blocks that changes from replay to replay of a launch, up to `most`.

    It is read in `counts`, on the host, whenever the launch is made or replayed. So blocks that
    have nothing to do need not be launched.
    """

    def __init__(self, counts: np.ndarray, place: int, most: int) -> None:
        self._counts, self._place, self.most = counts, place, most

    def __int__(self) -> int:
        return int(self._counts[self._place])

    def __bool__(self) -> bool:
        return self.most > 0


class Device(Protocol):
    """A GPU, or a substitute for one in tests.

    `processors` is the number of its multiprocessors, and `shared_bytes` the most shared memory
    that a block can have.
    """

    processors: int
    shared_bytes: int

    def launch(
        self,
        source: str,
        constants: Constants,
        name: str,
        grid: Sequence[int | Blocks],
        threads: int,
        shared: int = 0,
        /,
        **arguments: Any,
    ) -> None:
        """Run the kernel `name` of `source`.cu, built with preprocessor constants.

        The grid has one or two axes, of which the last may be Blocks; `shared` is the size of the
        dynamic shared memory in bytes.
        Arguments have the names of the kernel's parameters in the source: arrays of the device,
        None for a null pointer, numbers, and tuples of the fields of a struct. They are converted
        to the types that the source declares (signature.py). Raises TypeError if the names are not
        those of the kernel.
        """

    def build(self, kernels: Iterable[tuple[str, Constants]]) -> None:
        """Begin to build kernels that will be launched soon, by their sources and constants."""

    def multiply(self, product: Product) -> None:
        """Compute a product of matrices, with sums in float32."""


def source_of(name: str) -> str:
    """The text of a source file, with each header that it includes once."""
    seen: set[str] = set()

    def text_of(file: str) -> str:
        if file in seen:
            return ""
        seen.add(file)
        return _INCLUDE.sub(lambda match: text_of(match[1]), (FOLDER / file).read_text())

    return text_of(f"{name}.cu")


_openers: dict[str, Callable[[], Device]] = {}


def register(backend: str, opener: Callable[[], Device]) -> None:
    """Use the device that `opener` returns for the arrays of a backend."""
    _openers[backend] = functools.cache(opener)


register("cupy", lambda: import_module("autograd.cuda.gpu").Gpu())


def device_of(x: Array) -> Device:
    """The device that an array is on."""
    return _openers[backend_of(x).name]()


def blocks(count: int, size: int) -> int:
    """The number of blocks of `size` that cover `count`."""
    return -(-count // size)


def is_contiguous(x: Array) -> bool:
    """Whether an array is laid out as kernels and products read it.

    It is contiguous, row after row, and aligned to 16 bytes, the size of the widest loads.
    """
    return bool(x.flags.c_contiguous) and x.data.ptr % 16 == 0


def contiguous(x: Array) -> Array:
    """The array itself where it `is_contiguous`, else a copy that is."""
    return x if is_contiguous(x) else x.copy()


def as_indices(x: Array) -> Array:
    """Integers as kernels read them, contiguous int32: the array itself, or a copy."""
    if x.dtype.itemsize > 4:
        x = x.clip(-1, np.iinfo(np.int32).max)  # what is out of range stays out of range
    x = x.astype(np.int32, copy=False)
    return x if x.flags.c_contiguous else x.copy()
