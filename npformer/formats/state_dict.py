"""PyTorch's files of parameters, pytorch_model.bin, read without PyTorch and without pickle."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from npformer.errors import UserError
from npformer.formats.archives import BAD_ARCHIVE
from npformer.formats.foreign import LARGEST_WEIGHTS, widened_bfloat16
from npformer.formats.unpickling import (
    LARGEST_PICKLE,
    MAGIC,
    PickleError,
    Storage,
    StridedTensor,
    unpickled,
)
from npformer.reading import read_plain

_OLD_MAGIC = 0x1950A86A20F9469CFC6C  # the first number in a file before PyTorch 1.6
_OLD_VERSION = 1001
_MOST_DIMENSIONS = 8
_MOST_EMPTY = 1 << 20
_MOST_PARAMETERS = 1 << 20


def read_state_dict(path: Path, within: str | None = None) -> dict[str, np.ndarray]:
    """The tensors of a state dict that `torch.save` has written; bfloat16 comes as float32.

    within: the key of the state dict in a checkpoint; of what else this has, nothing is kept.
    Nothing in the file is executed. Raises UserError if it is another kind of file, is cut short,
    or holds anything that a state dict does not need.
    """
    try:
        content = read_plain(path, LARGEST_WEIGHTS)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    try:
        if content.startswith(b"PK"):
            return _of_archive(content, within)
        if content.startswith(MAGIC):
            if within is not None:
                raise PickleError(
                    "it was written before PyTorch 1.6; load and save it with a later"
                )
            return _of_old_file(content)
    except PickleError as error:
        raise UserError(f"{path} is not a state dict that can be read safely: {error}") from error
    raise UserError(f"{path} is no file of PyTorch: it is another kind of file, or cut short")


def _of_archive(content: bytes, within: str | None) -> dict[str, np.ndarray]:
    """The tensors of a file of PyTorch 1.6 or later: a zip archive with a file for each storage."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except BAD_ARCHIVE as error:
        raise PickleError("its archive is damaged or cut short") from error
    sizes = {info.filename: info for info in archive.infolist()}
    main = [name for name in sizes if name.endswith("/data.pkl")]
    if len(main) != 1:
        raise PickleError("its archive has no data.pkl")
    folder = main[0].removesuffix("data.pkl")
    if sum(info.file_size for info in sizes.values()) > len(content):
        raise PickleError("its archive says that it holds more than there is")

    def read(name: str) -> bytes:
        info = sizes.get(folder + name)
        if info is None:
            raise PickleError(f"its archive lacks {name!r:.60}")
        if info.compress_type != zipfile.ZIP_STORED:
            raise PickleError(f"{name!r:.60} in its archive is compressed")
        try:
            return archive.read(info)
        except BAD_ARCHIVE as error:
            raise PickleError(f"{name!r:.60} in its archive is damaged or cut short") from error

    if f"{folder}byteorder" in sizes and read("byteorder") != b"little":
        raise PickleError("its numbers are not little-endian")
    if sizes[main[0]].file_size > LARGEST_PICKLE:
        raise PickleError("its data.pkl is too large for the names and shapes of parameters")
    # The state of an optimizer has numbers for the parameters.
    numbers = 0 if within is None else _MOST_PARAMETERS
    value, _ = unpickled(memoryview(read("data.pkl")), numbers=numbers)
    if within is not None:
        value = value.get(within) if type(value) is dict else None
    return _arrays(value, lambda storage: read(f"data/{storage.key}"))


def _of_old_file(content: bytes) -> dict[str, np.ndarray]:
    """The tensors of an older file: five pickles, and then the storages."""
    data = memoryview(content)
    values, position = [], 0
    for _ in range(5):
        value, position = unpickled(data, position)
        values.append(value)
    magic, version, _, state, keys = values
    if magic != _OLD_MAGIC or version != _OLD_VERSION:
        raise PickleError("it does not begin as PyTorch's files do")
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise PickleError("it does not say in which order its storages come")
    widths = {
        t.storage.key: _itemsize(t.storage)
        for t in (state.values() if type(state) is dict else ())
        if type(t) is StridedTensor
    }
    found = {}
    for key in keys:
        if key not in widths:
            raise PickleError(f"it has the storage {key!r:.40}, which no tensor uses")
        if position + 8 > len(data):
            raise PickleError("it is cut short")
        count = int.from_bytes(data[position : position + 8], "little")
        end = position + 8 + count * widths[key]
        if end > len(data):
            raise PickleError("it is cut short")
        found[key] = data[position + 8 : end]
        position = end

    def read(storage: Storage) -> memoryview:
        if storage.key not in found:
            raise PickleError(f"it lacks the storage {storage.key!r:.40}")
        return found[storage.key]

    return _arrays(state, read)


def _arrays(state: Any, read: Callable[[Storage], Any]) -> dict[str, np.ndarray]:
    """The tensors of a state dict, as arrays that may share memory."""
    if type(state) is not dict:
        raise PickleError("it holds no dict of tensors")
    storages: dict[str, tuple[Storage, np.ndarray]] = {}
    found = {}
    for name, tensor in state.items():
        if type(name) is not str or type(tensor) is not StridedTensor:
            raise PickleError(f"{name!r:.60} in it is no tensor")
        storage = tensor.storage
        if storage.key not in storages:
            storages[storage.key] = storage, _numbers(storage, read(storage))
        known, numbers = storages[storage.key]
        if known != storage:
            raise PickleError(f"it has two storages called {storage.key!r:.40}")
        found[name] = _view(name, tensor, numbers)
    return found


def _numbers(storage: Storage, content: Any) -> np.ndarray:
    if len(content) != storage.count * _itemsize(storage):
        raise PickleError(
            f"the storage {storage.key!r:.40} has {len(content):,} bytes, not "
            f"{storage.count * _itemsize(storage):,}"
        )
    if storage.dtype == "bfloat16":
        return widened_bfloat16(np.frombuffer(content, "<u2"))
    return np.frombuffer(content, storage.dtype)


def _itemsize(storage: Storage) -> int:
    return 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize


def _view(name: str, tensor: StridedTensor, numbers: np.ndarray) -> np.ndarray:
    """The tensor, which must lie within its storage and have no number twice."""
    shape, strides = tensor.shape, tensor.strides
    if len(shape) > _MOST_DIMENSIONS:
        raise PickleError(f"{name!r:.60} has {len(shape)} dimensions")
    if min((tensor.offset, *shape, *strides)) < 0:
        raise PickleError(f"{name!r:.60} has a negative size, stride or offset")
    size = math.prod(shape)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # Where a dimension is 0, the others could still be of any size.
    largest = math.prod(n for n in shape if n)
    if size > len(numbers) or last >= len(numbers) or largest > max(len(numbers), _MOST_EMPTY):
        raise PickleError(f"{name!r:.60} reaches beyond its storage")
    if not size:
        return np.empty(shape, numbers.dtype)
    # Where a dimension is 1, its stride counts for nothing, and may be of any size.
    strided = [s * numbers.itemsize * (n > 1) for n, s in zip(shape, strides, strict=True)]
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], shape, strided, writeable=False
    )
