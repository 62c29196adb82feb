"""Changing how many blocks the launches of a CUDA graph have, by the driver's library.

A graph's nodes keep the grid that they were recorded with. A new one can be set before a replay,
which costs the host a microsecond or two. Without these functions, all grids stay as large as they
may become, and some blocks find nothing to do.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import Any, NamedTuple

from autograd.cuda.device import Blocks

_POINTER, _UNSIGNED = ctypes.c_void_p, ctypes.c_uint


class _KernelNodeParams(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS_v2 of cuda.h."""

    _fields_ = (
        ("function", _POINTER),
        ("grid", _UNSIGNED * 3),
        ("block", _UNSIGNED * 3),
        ("shared", _UNSIGNED),
        ("arguments", _POINTER),
        ("extra", _POINTER),
        ("kernel", _POINTER),
        ("context", _POINTER),
    )


_ARGUMENTS = {
    "cuStreamGetCaptureInfo_v2": [_POINTER] * 6,
    "cuGraphKernelNodeGetParams_v2": [_POINTER] * 2,
    "cuGraphExecKernelNodeSetParams_v2": [_POINTER] * 3,
    "cuGraphNodeSetEnabled": [_POINTER, _POINTER, _UNSIGNED],
}


class Varying(NamedTuple):
    """A recorded launch whose grid changes."""

    node: int
    blocks: Blocks
    axis: int


class Grids:
    """The functions of the driver's library. Raises OSError or AttributeError if it lacks them."""

    def __init__(self) -> None:
        library = ctypes.CDLL("libcuda.so.1")
        for name, argtypes in _ARGUMENTS.items():
            getattr(library, name).argtypes = argtypes
        self._library = library

    def last(self, stream: int) -> int:
        """The node of what was last asked for on a stream that is recorded."""
        status, number = ctypes.c_int(), ctypes.c_uint64()
        graph, nodes, count = _POINTER(), ctypes.POINTER(_POINTER)(), ctypes.c_size_t()
        self._call(
            "cuStreamGetCaptureInfo_v2",
            *(stream, byref(status), byref(number), byref(graph), byref(nodes), byref(count)),
        )
        if count.value != 1 or not nodes[0]:
            raise RuntimeError(f"a stream is recorded whose next work follows {count.value} others")
        return nodes[0]

    def set(self, executable: int, varying: Varying, before: int, now: int) -> None:
        """Replay a launch with a number of blocks, after it was replayed with another one."""
        if not now:
            self._call("cuGraphNodeSetEnabled", executable, varying.node, 0)
            return
        parameters = _KernelNodeParams()
        self._call("cuGraphKernelNodeGetParams_v2", varying.node, byref(parameters))
        parameters.grid[varying.axis] = now
        self._call("cuGraphExecKernelNodeSetParams_v2", executable, varying.node, byref(parameters))
        if not before:
            self._call("cuGraphNodeSetEnabled", executable, varying.node, 1)

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._library, name)(*arguments):
            raise RuntimeError(f"{name} has failed with the status {status}")


def grids() -> Grids | None:
    """The functions, or None if this driver does not have them."""
    try:
        return Grids()
    except (OSError, AttributeError):
        return None
