"""Connections of clients that are slow, silent or many.

Uvicorn closes a connection that is idle after an answer. The rest is here: a client that does not
say what it wants, one that goes on sending what nobody reads, one that does not take its answer,
and more of them than there is room for.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from npformer.service.limits import Limits

_LINGER_SECONDS = 2.0  # for a client that still sends the body of a request that is refused
_LINGER_BYTES = 1 << 20

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 48\r\n\r\n"
    b'{"error": "all connections are busy; try again"}'
)


def protocol(limits: Limits) -> type[H11Protocol]:
    """The protocol of connections with these limits."""

    class Connection(_Connection):
        own_limits = limits

    return Connection


class _Connection(H11Protocol):
    """A connection.

    Attributes:
        silent_since: when it began to be waited for, in the loop's time; None while a request is
            answered
        asked_at: when the head of its last request had come
        answers: that it has had
    """

    own_limits: Limits
    silent_since: float | None = None
    asked_at = 0.0
    answers = 0
    _timer: asyncio.TimerHandle | None = None
    _unread = -1  # bytes that have come for nobody, once they do

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1 << 16)
        self._wait()
        if len(self.connections) > self.own_limits.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unread >= 0:
            self._unread += len(data)
            if self._unread > _LINGER_BYTES:
                self.transport.abort()
            return
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self.answers += 1
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY and not self.transport.is_closing():
            self._linger()
        else:
            self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_timer(self.own_limits.read_seconds)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_answering:
            self._set_timer(None)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _look(self) -> None:
        """Wait for a request, unless one is being answered."""
        if self._is_answering:
            if self.silent_since is not None:
                self.silent_since = None
                self.asked_at = self.loop.time()
                self._set_timer(None)
        elif self.silent_since is None:
            self._wait()

    def _wait(self) -> None:
        """Wait for a request. After an answer, a connection is idle at first."""
        self.silent_since = self.loop.time()
        idle = self.own_limits.idle_seconds if self.answers else 0
        self._set_timer(idle + self.own_limits.header_seconds)

    def _linger(self) -> None:
        """End an answer to a request that still comes, and give its client time to read it.

        If the connection were closed at once, what comes then would make the system throw the
        answer away before the client has read it.
        """
        self._unread = 0
        self._unset_keepalive_if_required()
        self.transport.resume_reading()
        self.transport.write_eof()
        self._set_timer(_LINGER_SECONDS)

    def _set_timer(self, seconds: float | None) -> None:
        """Close the connection after so many seconds, in place of what was set before."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        self.transport.abort()

    def _make_room(self) -> None:
        """Close the connection that has been waited for longest; refuse this one if there is none.

        Those that have said nothing come first, then those that are idle after an answer, and then
        those of which a body is still to come.
        """
        others: list[Any] = [
            each
            for each in self.connections
            if each is not self
            and isinstance(each, _Connection)
            and not each.transport.is_closing()
        ]
        silent = [each for each in others if each.silent_since is not None]
        slow = [each for each in others if each._is_sending]
        if silent:
            min(silent, key=lambda each: (each.answers > 0, each.silent_since)).transport.abort()
        elif slow:
            oldest = min(slow, key=lambda each: each.asked_at)
            oldest.transport.write(_FULL)
            oldest.transport.close()
        else:
            self.transport.write(_FULL)
            self._linger()

    @property
    def _is_sending(self) -> bool:
        """Whether the body of a request is still to come, and nothing has been answered yet."""
        return (
            self._is_answering
            and self.conn.their_state is h11.SEND_BODY
            and not self.cycle.response_started
        )
