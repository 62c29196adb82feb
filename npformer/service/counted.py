"""Counts what is answered, and how long it took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from npformer.service.metrics import Metrics


class Counted:
    """An application whose answers are counted by route and status.

    A request that is cancelled, because the service stops and can wait no longer, is told so. Where
    the client has left before its answer was complete, the status is 499, also if another was sent.
    """

    def __init__(self, app: ASGIApp, routes: Collection[str], metrics: Metrics) -> None:
        """routes: paths that are counted by their names; others are counted together."""
        self.routes = frozenset(routes)
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun = 0, time.monotonic()
        has_ended = has_left = False

        async def counting(message: Message) -> None:
            nonlocal status, has_ended
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                has_ended = True
            await send(message)

        async def watching() -> Message:
            nonlocal has_left
            message = await receive()
            has_left |= message["type"] == "http.disconnect" and not has_ended
            return message

        try:
            await self._app(scope, watching, counting)
        except asyncio.CancelledError:
            stopped = {"error": "the service has stopped before the answer was found"}
            if not status:
                await JSONResponse(stopped, 503, {"retry-after": "10"})(scope, receive, counting)
        finally:
            route = scope["path"] if scope["path"] in self.routes else "other"
            told = 499 if has_left else status or 500
            self._metrics.answered(route, told, time.monotonic() - begun)
