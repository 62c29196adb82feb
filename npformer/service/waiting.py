"""Waiting for a job, for as long as its client does and may."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from npformer.service.errors import RefusedError
from npformer.service.jobs import Job, UntranslatableTextError
from npformer.service.limits import Limits


class Waiting:
    """A submitted job and its client: `with` this, the job is dropped if it is not done."""

    def __init__(self, job: Job, receive: Receive, limits: Limits) -> None:
        """receive: of the client's request, whose body has been read."""
        self._job, self._limits = job, limits
        self._found = asyncio.wrap_future(job.result)
        self._gone = asyncio.ensure_future(_disconnected(receive))
        self._submitted = time.monotonic()

    def __enter__(self) -> Waiting:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._job.drop()
        self._gone.cancel()
        self._found.cancel()

    async def result(self) -> Any:
        """The job's result.

        Raises RefusedError if it takes too long, and ClientDisconnect if the client leaves before.
        """
        while not await self.is_over():
            pass
        try:
            return self._found.result()
        except UntranslatableTextError as error:
            raise RefusedError(
                500, "the model's probabilities of this text are not numbers (NaN)"
            ) from error
        except RefusedError:
            raise
        except Exception as error:  # of any kind; the thread that translates has logged it
            raise RefusedError(500, "an error of the service, which is in its log") from error

    async def is_over(self, event: asyncio.Future[Any] | None = None) -> bool:
        """Wait for the result, and return true; or return false when `event` is done before.

        Raises as `result` does.
        """
        limits, has_begun = self._limits, self._job.has_begun
        until = limits.seconds if has_begun else _queue_seconds(limits)
        left = self._submitted + until - time.monotonic()
        waited = {self._found, self._gone} | ({event} if event else set())
        await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if self._found.done():
            return True
        if self._gone.done():
            raise ClientDisconnect
        if self._submitted + until <= time.monotonic() and has_begun == self._job.has_begun:
            raise _overdue(has_begun, limits)
        return False


def _queue_seconds(limits: Limits) -> float:
    """Until it is looked whether a job has begun: no later than its answer is due."""
    return min(limits.queue_seconds, limits.seconds)


def _overdue(has_begun: bool, limits: Limits) -> RefusedError:
    if has_begun:
        return RefusedError(
            504, f"the answer takes longer than {limits.seconds:g} seconds; send fewer texts"
        )
    return RefusedError(
        503,
        f"the queue is longer than {_queue_seconds(limits):g} seconds; try again later",
        retry_after=10,
    )


async def _disconnected(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
