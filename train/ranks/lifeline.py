"""Connections by which a rank learns that another has gone.

When a process dies, those that wait for it must end too. Most launchers see to that, but not all,
and not always (srun does with --kill-on-bad-exit). So each rank keeps a TCP connection to the first
one, next to MPI. Nothing is sent over it but how a rank ends. The system closes it when a process
ends, in whatever way, and tells of a host that no longer answers.

The first rank is the one that tells the user why all end, so that it is said once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from train.ranks.ranks import Ending, Ranks

_CONNECT = 10.0  # seconds within which a rank must have connected
_GRACE = 10.0  # for the first rank, to end this one once it was told how that ends
_TELL = 0.2  # for the launcher, to pass on what was told: what it has not read is lost when it ends
_ABORT = 2.0  # for the launcher, to end this rank after the call of MPI_Abort
# A host that does not answer for this long is taken for dead: seconds, and the same in probes.
_SILENCE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Lifeline:
    """A rank's connection to the first one, or the first one's to all others.

    It begins, on all ranks, by connecting them. Then a thread of its own watches, whatever this
    rank does or waits for, and ends the process when another rank has gone.

    hosts: the address of each rank's host
    abort: has MPI end all ranks, with an exit status; it may return before it has

    Attributes:
        unconnected: the ranks that could not connect, and why
    """

    def __init__(self, ranks: Ranks, hosts: list[str], abort: Callable[[int], None]) -> None:
        self._ranks, self._abort = ranks, abort
        self._ending = threading.Lock()  # taken, and kept, by what ends this rank
        self._connections: dict[int, socket.socket] = {}
        self.unconnected: dict[int, str] = {}
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(_listen(ranks.size)) if ranks.is_first else None
            offer = (server.getsockname()[1], secrets.token_hex(16)) if server else None
            offered = ranks.all(offer)[0]
            assert offered is not None
            error = None if server else self._connect_to_first(hosts, *offered)
            errors = ranks.all(error)
            self.unconnected = {rank: words for rank, words in enumerate(errors) if words}
            if server:
                self._accept(server, offered[1])
        watch = self._watch_others if ranks.is_first else self._watch_first
        if self._connections:
            threading.Thread(target=watch, name="lifeline", daemon=True).start()

    # Beginning

    def _connect_to_first(self, hosts: list[str], port: int, token: str) -> str | None:
        """Connect; returns why not, if it cannot be."""
        address = "localhost" if hosts[self._ranks.rank] == hosts[0] else hosts[0]
        try:
            connection = socket.create_connection((address, port), _CONNECT)
            connection.sendall(f"{token} {self._ranks.rank}\n".encode())
        except OSError as error:
            return error.strerror or str(error)
        self._connections[0] = _kept_alive(connection)
        return None

    def _accept(self, server: socket.socket, token: str) -> None:
        """Accept the connections of the other ranks, and of nobody else."""
        server.settimeout(_CONNECT)
        with contextlib.suppress(TimeoutError):
            while len(self._connections) < self._ranks.size - 1 - len(self.unconnected):
                self._greet(server.accept()[0], token)
        for rank in range(1, self._ranks.size):
            if rank not in self._connections:
                self.unconnected.setdefault(rank, "its connection has not come")

    def _greet(self, connection: socket.socket, token: str) -> None:
        """Keep a connection if it is that of a rank, which knows the token."""
        words = []
        with contextlib.suppress(OSError):
            connection.settimeout(_CONNECT)
            words = _read_line(connection).split()
        if len(words) == 2 and secrets.compare_digest(words[0].encode(), token.encode()):
            self._connections[int(words[1])] = _kept_alive(connection)
        else:
            connection.close()

    # Ending

    def say_goodbye(self) -> None:
        """Let the other ranks know that this one ends as it should, and no longer heed them."""
        if self._ending.acquire(blocking=False):
            for connection in self._connections.values():
                _send(connection, "goodbye")

    def end_all(self, ending: Ending) -> NoReturn:
        """End all ranks, after the first of them has told the user why."""
        if self._ranks.is_first or 0 not in self._connections:
            self._end_others(ending)
        _send(self._connections[0], json.dumps(ending))
        time.sleep(_GRACE)
        self._end_others(ending)  # the first rank has not listened

    def _end_others(self, ending: Ending) -> NoReturn:
        """Tell the user, and end all ranks. Only what comes first is told."""
        self._ending.acquire()
        if ending.text:
            with contextlib.suppress(OSError):  # nobody may be reading it
                os.write(self._ranks.terminal, f"{ending.text}\n".encode())
            self._log(ending)
        for connection in self._connections.values():
            _send(connection, json.dumps(ending))
        time.sleep(_TELL)
        self._abort(ending.status)
        self._exit_soon(ending.status)

    @staticmethod
    def _exit_soon(status: int) -> NoReturn:
        """End this process, unless the launcher does before."""
        time.sleep(_ABORT)
        os._exit(status)

    def _log(self, ending: Ending) -> None:
        """Note how all end, if this rank has a log of its own."""
        if self._ranks.terminal != 2:
            print(ending.text, file=sys.stderr, flush=True)

    # Watching

    def _watch_others(self) -> None:
        """On the first rank: end all once one has gone, or has said that all must end."""
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select():
                    if ending := self._received(key.data):
                        self._end_others(ending)
                    selector.unregister(key.fileobj)

    def _watch_first(self) -> None:
        """On another rank: end once the first has gone, or has said that all must end.

        Only the second rank tells that the first has gone, since the others all see the same.
        """
        ending = self._received(0)
        if ending is None:
            return
        if ending.agreed or self._ranks.rank > 1:  # it was told, or the second one tells it
            self._ending.acquire()
            self._log(ending)
            self._exit_soon(ending.status)
        self._end_others(ending)

    def _received(self, rank: int) -> Ending | None:
        """How all ranks must end by what a rank has sent; None if it ends as it should."""
        try:
            line = _read_line(self._connections[rank])
        except OSError:
            line = ""
        if line == "goodbye":
            return None
        if line:
            status, text, _ = json.loads(line)
            return Ending(status, text, agreed=True)
        return Ending(
            1,
            f"npformer: error: {self._ranks.name(rank)} has gone without a word, so all ranks end: "
            "it was killed, perhaps for want of memory, or its host is down",
        )


def _listen(ranks: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(
        ("", 0), family=family, backlog=max(ranks, 128), dualstack_ipv6=both
    )


def _kept_alive(connection: socket.socket) -> socket.socket:
    """Have the system ask whether the other host still answers."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SILENCE.items():
        if hasattr(socket, name):  # not on every system
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return connection


def _send(connection: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # the other may have gone
        connection.sendall(f"{line}\n".encode())


def _read_line(connection: socket.socket) -> str:
    """A line, without its end; nothing if the other has gone before it was complete.

    It is not buffered: what comes after the line is left to be read.
    """
    with connection.makefile("rb", buffering=0) as file:
        line, end, _ = file.readline().partition(b"\n")
    return line.decode(errors="replace") if end else ""
