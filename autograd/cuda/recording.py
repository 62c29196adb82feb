"""Recording what a function asks of the device, as a CUDA graph, and replaying it as one launch.

A replay has the addresses and the numbers that launches had at the recording. So all arrays stay
where they are: those that the function makes are in memory that only replays and work that takes
turns with them use (memory.py), and those that it finds are kept. Work is recorded on a stream of
its own, where it is not done, and replayed on the stream that is current then.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from autograd.cuda.device import Blocks, device_of
from autograd.cuda.graphs import Varying, grids
from autograd.cuda.memory import Apart, Arena, arena
from autograd.cuda.products import recordable_products
from autograd.operation import are_calls_observed

T = TypeVar("T")

_TRIES = 3  # to record a function for which there was not enough memory

logger = logging.getLogger(__name__)


class _Graph(NamedTuple, Generic[T]):
    """What was recorded: `kept` are the arrays that it reads and has not made."""

    graph: Any
    result: T
    version: int  # of the arena
    stream: int
    kept: list[Any]
    varying: list[Varying]
    sizes: list[int]  # of their grids in the last replay

    def replay(self) -> None:
        """Launch it, with the grids that there are now."""
        found = _grids()
        if found is not None:
            for i, varying in enumerate(self.varying):
                now = int(varying.blocks)
                if now != self.sizes[i]:
                    found.set(self.graph.graphExec, varying, self.sizes[i], now)
                    self.sizes[i] = now
        self.graph.launch()


class Recorded(Generic[T]):
    """A function whose first call runs it, whose second one records it, and whose others replay it.

    The first call builds kernels and chooses algorithms, which cannot be done while recording. The
    function runs as it is whenever memory is not as it was: while arrays are in the arena, on
    another stream, and after the arena has moved, when it begins anew; and while calls are watched
    or counted, or run references. If it does what cannot be recorded, it is not tried again.
    """

    def __init__(self, run: Callable[[], T], memory: Arena | Apart | None = None) -> None:
        """memory: for the function's arrays; by default the arena, in turns with other work."""
        self._run, self._given = run, memory
        self._graph: _Graph[T] | None = None
        self._has_run, self._tries = False, _TRIES

    def __call__(self) -> T:
        block = self._memory
        if not (self._has_run and self._tries) or block.used_bytes_here() or are_calls_observed():
            return self._as_it_is()
        if self._graph is None:
            self._graph = self._recorded()
        elif self._graph.version != block.version:
            self._graph = None
        graph = self._graph
        if graph is None or graph.stream != _cupy().cuda.get_current_stream().ptr:
            return self._as_it_is()
        graph.replay()
        return graph.result

    @property
    def _memory(self) -> Arena | Apart:
        return self._given or arena()

    def _as_it_is(self) -> T:
        self._has_run = True
        with recordable_products():
            return self._run()

    def _recorded(self) -> _Graph[T] | None:
        """Record the function; None if that fails, with one try less."""
        cuda, block = _cupy().cuda, self._memory
        stream, home = _stream(), cuda.get_current_stream()
        gpu: Any = device_of(_cupy().empty(0))
        gpu.will_replay(stream)  # before, as it may need memory of its own
        varying: list[Varying] = []

        def vary(blocks: Blocks, axis: int) -> None:
            if (found := _grids()) is not None:
                varying.append(Varying(found.last(stream.ptr), blocks, axis))

        try:
            with (
                _ONE_AT_A_TIME,
                block.fixed() as fixed,
                gpu.keeping(fixed.places, vary) as kept,
            ):
                version = block.version
                with stream, recordable_products():
                    stream.begin_capture()
                    try:
                        result = fixed.apart(self._run())
                    except BaseException:
                        _abandon(stream)
                        raise
                    graph = stream.end_capture()
        except MemoryError:
            self._tries -= 1
            return None
        except RuntimeError as error:  # of CUDA, or of CuPy, which knows what cannot be recorded
            self._tries = 0
            logger.info("what is asked of the GPU here is not recorded: %s", error)
            return None
        if not fixed.has_held():
            self._tries -= 1
            return None
        sizes = [v.blocks.most for v in varying]
        return _Graph(graph, result, version, home.ptr, kept, varying, sizes)


class GraphRecorder:
    """Makes functions Recorded whose memory only these use, in turns with each other."""

    def __init__(self) -> None:
        self._memory = Apart()

    def another(self) -> GraphRecorder:
        return GraphRecorder()

    def __call__(self, run: Callable[[], T]) -> Recorded[T]:
        return Recorded(run, self._memory)

    @property
    def nbytes(self) -> int:
        """The bytes of their arrays. What CUDA has for the graphs is not known."""
        return self._memory.held_bytes()


_ONE_AT_A_TIME = threading.Lock()


_grids = functools.cache(grids)


def _cupy() -> Any:
    return importlib.import_module("cupy")


@functools.cache
def _stream() -> Any:
    """The stream that is recorded. It is non-blocking, for others may use the default one."""
    return _cupy().cuda.Stream(non_blocking=True)


def _abandon(stream: Any) -> None:
    """End a recording that cannot be used."""
    try:
        stream.end_capture()
    except RuntimeError as error:
        logger.debug("a recording was given up: %s", error)
