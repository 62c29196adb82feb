"""Building kernels, several at a time, for NVRTC uses a single core for each."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from autograd.cuda.device import Constants, source_of
from autograd.cuda.signature import Parameter, signatures

_MOST_THREADS = 16

Built = tuple[Any, dict[str, list[Parameter]]]  # a module, and the parameters of its kernels


class Modules:
    """The modules of CuPy's current device, each of a source and its preprocessor constants."""

    def __init__(self) -> None:
        cupy = importlib.import_module("cupy")
        self._cupy, self._lock = cupy, threading.Lock()
        self._built: dict[Any, Future[Built]] = {}
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, "kernels", cupy.cuda.Device().use)

    def begin(self, modules: Iterable[tuple[str, Constants]]) -> None:
        """Have these built, so that they are there when they are asked for."""
        for source, constants in modules:
            self._future(source, constants)

    def get(self, source: str, constants: Constants) -> Built:
        """The module, when it is built."""
        found = self._future(source, constants)
        try:
            return found.result()
        except Exception:
            # Another time there may be memory for it. Several threads may have waited.
            self._built.pop(_key(source, constants), None)
            raise

    def _future(self, source: str, constants: Constants) -> Future[Built]:
        key = _key(source, constants)
        with self._lock:
            if key not in self._built:
                self._built[key] = self._pool.submit(self._build, source, constants)
            return self._built[key]

    def _build(self, source: str, constants: Constants) -> Built:
        options = ("--std=c++17", *(f"-D{key}={value}" for key, value in constants.items()))
        # With the headers in the text, since CuPy caches modules by a hash of the text.
        text = source_of(source)
        module = self._cupy.RawModule(code=text, options=options)
        module.compile()
        return module, signatures(text)


def _key(source: str, constants: Constants) -> tuple[Any, ...]:
    return source, *sorted(constants.items())
