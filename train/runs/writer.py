"""Writes to a run while training goes on."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from npformer.errors import UserError

logger = logging.getLogger("npformer")


class RunWriter:
    """A thread that writes to a run, in the order in which it is asked to.

    So what a kill leaves is what it would leave if training waited for each file. After a write
    that fails nothing more is written, and its error is raised by whatever is asked for next. At
    the end of the `with` block all is written, also if an exception ends it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "npformer-writer")
        self._waiting: deque[Future[None]] = deque()  # the oldest first, and one that has failed
        self._has_failed = self._is_told = False
        self._step = -1

    def put(self, write: Callable[[], None]) -> None:
        """Have `write` called after all that was put before. Raises the error of one of those."""
        while self._waiting and self._waiting[0].done():
            self._take_oldest()
        self._waiting.append(self._thread.submit(self._call, write))

    def finish(self) -> None:
        """Wait until all is written. Raises the error of the write that failed."""
        while self._waiting:
            self._take_oldest()

    def make_room(self, step: int) -> None:
        """Wait until no copies of an earlier step are left to write.

        To be called before copies are made at `step`: slow files shall not fill the memory.
        """
        if step != self._step:
            self.finish()
            self._step = step

    def _wait(self) -> None:
        """Wait until nothing is being written, also if signals come: theirs is raised after that.

        As long as a run is written to, it has to stay locked.
        """
        try:
            wait(self._waiting)
        except KeyboardInterrupt:
            self._wait()
            raise

    def _take_oldest(self) -> None:
        error = self._waiting[0].exception()
        if error is not None:  # it stays the oldest
            self._is_told = True
            raise error
        self._waiting.popleft()

    def _call(self, write: Callable[[], None]) -> None:
        """In the thread."""
        if self._has_failed:
            return
        try:
            write()
        except BaseException:
            self._has_failed = True
            raise

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait()
        self._thread.shutdown()
        if error is None:
            self.finish()
        elif self._has_failed and not self._is_told:
            failed = next(e for future in self._waiting if (e := future.exception()) is not None)
            logger.error("%s", failed, exc_info=None if isinstance(failed, UserError) else failed)
