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


class Latest:
    """The newest text that another thread has told."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: str | None = None
        self.changed: asyncio.Future[None] = self._loop.create_future()

    def tell(self, text: str) -> None:
        """Tell a text; called by any thread."""
        self._loop.call_soon_threadsafe(self._tell, text)

    def take(self) -> str:
        """The newest text; `changed` waits for the next one."""
        assert self._told is not None
        self.changed = self._loop.create_future()
        return self._told

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            if not self.changed.done():
                self.changed.set_result(None)


class Lines:
    """A response: the translation so far whenever it has changed, and at last the answer."""

    def __init__(
        self,
        job: Texts,
        latest: Latest,
        limits: Limits,
        answer: Callable[[Any], Mapping[str, Any]],
    ) -> None:
        """job: which is submitted, and tells `latest`. answer: what is said of its result."""
        self._job, self._latest, self._limits, self._answer = job, latest, limits, answer

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
        try:
            while not await waiting.is_over(self._latest.changed):
                if self._latest.changed.done():
                    yield {"partial": self._latest.take()}
            yield self._answer(await waiting.result())
        except RefusedError as error:  # the status has been sent: the last line says it
            yield {"error": str(error)}
