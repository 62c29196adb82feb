"""The server: a socket, a model, and Uvicorn between them, until it is told to stop."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import os
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn

from npformer.errors import UserError
from npformer.reading import reason
from npformer.service.app import Service, application
from npformer.service.batcher import Batcher, Batching
from npformer.service.connections import protocol
from npformer.service.counted import Counted
from npformer.service.engine import Engine, TranslatorEngine
from npformer.service.facts import Facts
from npformer.service.guard import LOOPBACK, Allowed, Guard
from npformer.service.limits import Limits
from npformer.service.metrics import Metrics
from npformer.translator import Translator


@dataclass(frozen=True)
class Address:
    """Where a service listens, and to whom."""

    host: str = "127.0.0.1"
    port: int = 8000
    allow_hosts: Collection[str] = ()
    allow_origins: Collection[str] = ()

    @property
    def allowed(self) -> Allowed:
        """Who may ask: on loopback only those who say so."""
        if self.allow_hosts or self._is_loopback:
            hosts = {*LOOPBACK, self.host.lower(), *(name.lower() for name in self.allow_hosts)}
            return Allowed(sorted(hosts), self.allow_origins)
        return Allowed((), self.allow_origins)

    @property
    def _is_loopback(self) -> bool:
        """Whether it is on loopback, by whatever name: 127.1 and the machine's own may be, too."""
        _, place = self._found()
        return ipaddress.ip_address(place[0].partition("%")[0]).is_loopback

    def url(self, own: socket.socket) -> str:
        """Where the socket is that listens here."""
        host, port = own.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def listen(self) -> socket.socket:
        """A socket that listens here. Raises UserError if none can."""
        if not 0 <= self.port <= 65_535:
            raise UserError(f"--port must be 0 to 65,535; it is {self.port}")
        family, place = self._found()
        own = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":  # elsewhere it would let two services share a port
                own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(place)
            own.listen(2048)
        except OSError as error:
            own.close()
            raise UserError(
                f"cannot listen on port {self.port} of {self.host}: {reason(error)}; give another "
                "--port"
            ) from error
        return own

    def _found(self) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
        """The family and the place that a socket is bound to. Raises UserError if there is none."""
        try:
            [(family, _, _, _, place), *_] = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise UserError(f"--host {self.host} is no address here: {error.strerror}") from error
        return family, place


class Server(uvicorn.Server):
    """Uvicorn's server, which leaves signals to whoever runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A handler of signals: answer what is in flight, and end; a second time, end at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def server_of(
    translator: Translator,
    facts: Facts,
    address: Address,
    limits: Limits,
    batching: Batching,
    engine: Engine | None = None,
) -> Server:
    """The server of a model. engine: what translates, if not the translator itself."""
    metrics = Metrics()
    batcher = Batcher(engine or TranslatorEngine(translator), metrics, limits.queue, batching)
    service = Service(translator, batcher, facts, limits, metrics)
    routes = service.routes()
    guarded = Guard(application(routes, batcher), address.allowed)
    config = uvicorn.Config(
        Counted(guarded, [route.path for route in routes], metrics),
        http=protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # not of what clients do wrong
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(limits.idle_seconds),
        timeout_graceful_shutdown=math.ceil(limits.stop_seconds),
    )
    server = Server(config)
    metrics.watch(lambda: batcher.waiting, lambda: len(server.server_state.connections))
    return server
