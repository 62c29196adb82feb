"""The answer of /stream: a translation as it comes, a JSON object a line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from npformer.service.errors import RefusedError
from npformer.service.jobs import Texts
from npformer.service.limits import Limits
from npformer.service.waiting import Waiting


class Changes:
    """What another thread has changed, for a coroutine to wait for.

    Attributes:
        next: done when there was a change
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.next: asyncio.Future[None] = self._loop.create_future()

    def tell(self) -> None:
        """There is a change; called by any thread."""
        self._loop.call_soon_threadsafe(self._tell)

    def take(self) -> bool:
        """Whether there was a change; `next` waits for another."""
        if not self.next.done():
            return False
        self.next = self._loop.create_future()
        return True

    def _tell(self) -> None:
        if not self.next.done():
            self.next.set_result(None)


class Lines:
    """A response: the translation so far whenever it has changed, and at last the answer."""

    def __init__(
        self,
        job: Texts,
        changes: Changes,
        limits: Limits,
        answer: Callable[[Any], Mapping[str, Any]],
    ) -> None:
        """job: which is submitted, and tells `changes`. answer: what is said of its result."""
        self._job, self._changes, self._limits, self._answer = job, changes, limits, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        with Waiting(self._job, receive, self._limits) as waiting, suppress(ClientDisconnect):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with aclosing(self._lines(waiting)) as lines:
                async for line in lines:
                    body = json.dumps(line, ensure_ascii=False).encode() + b"\n"
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _lines(self, waiting: Waiting) -> AsyncGenerator[Mapping[str, Any]]:
        told = ""
        try:
            while not await waiting.is_over(self._changes.next):
                if self._changes.take() and (text := self._job.so_far()) != told:
                    told = text
                    yield {"partial": text}
            yield self._answer(await waiting.result())
        except RefusedError as error:  # the status has been sent: the last line says it
            yield {"error": str(error)}
