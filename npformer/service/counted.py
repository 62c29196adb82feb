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

    A request that is cancelled, because the service stops and can wait no longer, is told so.
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

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except asyncio.CancelledError:
            stopped = {"error": "the service has stopped before the answer was found"}
            if not status:
                await JSONResponse(stopped, 503, {"retry-after": "10"})(scope, receive, counting)
        finally:
            route = scope["path"] if scope["path"] in self.routes else "other"
            self._metrics.answered(route, status or 500, time.monotonic() - begun)
