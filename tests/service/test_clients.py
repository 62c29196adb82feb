"""Clients that are slow, silent, many, gone, or do not stop: the others feel nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from npformer import Translator
from npformer.long_lines import DividedLines
from npformer.service.limits import Limits
from tests.npformer.test_translator import LINES
from tests.service.fakes import Echo
from tests.service.running import JSON, Service, answer_to, request, running, until


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            found += part
    return found


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed, without having said anything."""
    return all_of(connection) == b""


# Large bodies


def test_a_gigabyte_that_is_announced_is_not_read(service: Service) -> None:
    with service.connect() as client:
        head = request(service, b"").replace(b"length: 0", b"length: 1000000000")
        client.sendall(head)
        assert b"more than 1,048,576 bytes" in all_of(client)


@pytest.mark.parametrize("announced", [True, False])
def test_a_gigabyte_is_not_kept(service: Service, announced: bool) -> None:
    """It is refused when it is too large, whatever it has said, and its client can read that."""
    chunk = b"x" * (1 << 16)
    with service.connect() as client:
        head = request(service, b"")
        if announced:
            client.sendall(head.replace(b"length: 0", b"length: 1000000000"))
        else:
            client.sendall(head.replace(b"content-length: 0", b"transfer-encoding: chunked"))
        sent = 0
        with suppress(ConnectionError):
            while sent < 1 << 30:
                client.sendall(chunk if announced else b"10000\r\n" + chunk + b"\r\n")
                sent += len(chunk)
        answer = b""
        with suppress(ConnectionError):
            answer = client.recv(1 << 16)
        assert sent < 64 << 20
        assert answer == b"" or b" 413 " in answer
    assert service.get("/health").status == 200


def test_a_body_that_is_a_little_too_large_is_answered(service: Service) -> None:
    """A client that sends all of its request before it reads gets the answer."""
    for size in ((1 << 20) + 1, 3 << 19):
        with service.connect() as client:
            client.sendall(request(service, b" " * size))
            assert all_of(client).startswith(b"HTTP/1.1 413 ")


def test_a_route_that_reads_no_body_does_not_keep_one(service: Service) -> None:
    with service.connect() as client:
        client.sendall(request(service, b"", "/nowhere").replace(b"length: 0", b"length: 999999"))
        client.sendall(b"x" * 1000)
        assert all_of(client).startswith(b"HTTP/1.1 404 ")


def test_connections_are_kept_and_used_again(service: Service) -> None:
    with service.connect() as client:
        for _ in range(3):
            client.sendall(request(service, b'{"text": "a"}'))
            assert answer_to(client).status == 200
        client.sendall(request(service, b'{"text": "a", "beam": 1}') * 3)  # at once
        found = b""
        while found.count(b"translations") < 3:
            found += client.recv(1 << 16)


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"x: y\r\n" * 30_000 + b"\r\n",
        b"POST /translate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1\r\n"
        b"content-length: 2\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: "
        + b"9" * 5000
        + b"\r\n\r\n",
        b"POST /translate HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda said: repr(said[:30]),
)
def test_what_is_no_http_is_refused(service: Service, said: bytes) -> None:
    with service.connect() as client:
        with suppress(ConnectionError):
            client.sendall(said)
        answer = all_of(client)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert service.get("/health").status == 200


# Slow and silent ones

QUICK = Limits(header_seconds=0.5, body_seconds=0.5, idle_seconds=1, read_seconds=0.5)


def dribble(client: socket.socket, said: bytes, seconds: float = 0.05) -> float:
    """Send a byte at a time, until the other side closes; how long that took."""
    begun = time.monotonic()
    client.settimeout(seconds)
    for byte in said * 100:
        try:
            client.sendall(bytes([byte]))
            if client.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - begun


def test_a_byte_a_second_is_too_slow(translator: Translator, directory: Path) -> None:
    """In the head of a request, in its body, or after an answer."""
    with running(translator, directory, QUICK) as service, ExitStack() as stack:
        silent = stack.enter_context(service.connect())
        begun = time.monotonic()
        with service.connect() as client:
            assert dribble(client, b"POST /translate HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ") < 5
        with service.connect() as client:
            client.sendall(request(service, b"").replace(b"length: 0", b"length: 500"))
            assert b" 408 " in dribbled(client)
        with service.connect() as client:
            client.sendall(request(service, b'{"text": "a"}'))
            assert answer_to(client).status == 200
            assert dribble(client, b"POST /translate HTTP/1.1\r\nhost: ") < 8
        assert is_closed(silent)
        assert time.monotonic() - begun < 25
        assert service.translate(LINES[0])


def dribbled(client: socket.socket) -> bytes:
    """What is answered while a byte is sent now and then."""
    client.settimeout(0.05)
    found = b""
    for _ in range(200):
        try:
            client.sendall(b"x")
            part = client.recv(1 << 16)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        if not part:
            break
        found += part
    return found


def test_a_client_that_does_not_take_its_answer_is_left(
    translator: Translator, directory: Path
) -> None:
    with running(translator, directory, QUICK) as service:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((service.host, service.port))
            client.settimeout(0.2)
            with suppress(OSError):
                while True:  # answers of some kilobytes each, which nobody reads
                    client.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" * 50)
            until(lambda: service.metric("npformer_connections") == 1)
        assert service.translate(LINES[0])


def test_a_thousand_silent_connections_keep_nobody_out(
    translator: Translator, directory: Path
) -> None:
    with running(translator, directory, Limits(connections=100)) as service, ExitStack() as stack:
        silent = []
        for i in range(1000):
            silent.append(stack.enter_context(service.connect()))
            if i % 100 == 0:
                assert service.translate(LINES[0], beam=1)
        assert service.metric("npformer_connections") <= 101
        assert service.translate(LINES[0])
        until(lambda: service.metric("npformer_connections") <= 101)
        for client in silent[:800]:
            assert is_closed(client)


def test_bodies_that_do_not_come_keep_nobody_out(translator: Translator, directory: Path) -> None:
    whole = request(Service(None, "127.0.0.1", 1), b'{"text": "a"}')
    with running(translator, directory, Limits(connections=5)) as service, ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(5)]
        for i, client in enumerate(slow, start=1):
            client.sendall(whole[:-5])
            until(lambda: len(service.server.server_state.tasks) >= i)  # noqa: B023
            time.sleep(0.02)  # a loop's clock may tell milliseconds alone
        assert service.translate("a")
        refused = answer_to(slow[0])  # the one that has been waited for longest
        assert refused.status == 503
        assert "all connections are busy" in refused.error
        assert is_closed(slow[0])
        for client in slow[1:]:
            client.sendall(whole[-5:])
            assert answer_to(client).status == 200


def test_a_request_that_is_answered_is_never_closed_for_another(
    translator: Translator, directory: Path
) -> None:
    engine = Echo()
    limits = Limits(connections=3)
    with running(translator, directory, limits, engine) as service, ExitStack() as stack:
        engine.close_gate()
        busy = [stack.enter_context(service.connect()) for _ in range(3)]
        for i, client in enumerate(busy):
            client.sendall(request(service, json.dumps({"text": str(i)}).encode()))
        until(lambda: sum(map(len, engine.batches)) or engine.entered.is_set())
        time.sleep(0.3)
        with service.connect() as late:
            answer = all_of(late)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {
            "error": "all connections are busy; try again"
        }
        engine.gate.set()
        for client in busy:
            assert answer_to(client).status == 200


# Those that leave


@pytest.mark.parametrize("path", ["/translate", "/stream"])
def test_what_a_client_that_left_has_asked_for_is_not_translated(
    translator: Translator, directory: Path, path: str
) -> None:
    engine = Echo()
    with running(translator, directory, engine=engine) as service:
        engine.close_gate()
        first = service.connect()
        first.sendall(request(service, b'{"text": "a"}', path))
        assert engine.entered.wait(60)
        leaves = service.connect()
        leaves.sendall(request(service, json.dumps({"text": ["b"] * 50}).encode()))
        until(lambda: service.metric("npformer_queue_sentences") == 50)
        with service.connect() as stays:
            stays.sendall(request(service, b'{"text": "c"}'))
            until(lambda: service.metric("npformer_queue_sentences") == 51)
            leaves.close()
            first.close()
            left = 'npformer_requests_total{route="/translate",status="499"}'
            until(lambda: left in service.get("/metrics").body.decode())
            engine.gate.set()
            assert answer_to(stays).status == 200
        assert [len(batch) for batch in engine.batches] == [1, 1]


@pytest.mark.parametrize("path", ["/translate", "/stream"])
def test_long_texts_of_a_client_that_left_are_not_divided(
    translator: Translator, directory: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    divided: list[str] = []
    gate = threading.Event()

    def divide(self: Translator, lines: list[str], *arguments: Any) -> DividedLines:
        divided.append(lines[0][0])
        if len(lines[0]) > 2_000:
            assert gate.wait(60)
        return own(self, lines, *arguments)

    own = Translator.divide
    monkeypatch.setattr(Translator, "divide", divide)
    with running(translator, directory) as service:
        busy = [service.connect() for _ in range(4)]
        for client in busy:
            client.sendall(request(service, json.dumps({"text": "b" * 3_000}).encode()))
        until(lambda: len(divided) == 4)
        with service.connect() as leaves:
            leaves.sendall(request(service, json.dumps({"text": "l" * 3_000}).encode(), path))
            service.translate("s")  # a short one needs none of those that divide
        left = f'npformer_requests_total{{route="{path}",status="499"}}'
        until(lambda: left in service.get("/metrics").body.decode())
        gate.set()
        for client in busy:
            assert answer_to(client).status == 200
        assert sorted(divided) == [*"bbbb", "s"]


def test_what_waits_too_long_to_be_divided_is_told_to_come_again(
    translator: Translator, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    own = Translator.divide

    def divide(*arguments: Any) -> DividedLines:
        assert gate.wait(60)
        return own(*arguments)

    monkeypatch.setattr(Translator, "divide", divide)
    long = json.dumps({"text": "a" * 3_000}).encode()
    with running(translator, directory, Limits(queue_seconds=0.5)) as service:
        busy = [service.connect() for _ in range(4)]
        for client in busy:
            client.sendall(request(service, long))
        answer = service.ask("POST", "/translate", long, JSON)
        assert answer.status == 503
        assert "the queue is longer than 0.5 seconds" in answer.error
        gate.set()
        for client in busy:
            assert answer_to(client).status == 200


@pytest.mark.parametrize("path", ["/translate", "/stream"])
def test_a_search_is_given_up_when_its_client_leaves(
    translator: Translator, directory: Path, path: str
) -> None:
    """A long search beside a short one: the long one ends early, and the short one is answered."""
    long = {"text": "A dog runs.", "beam": 16, "extra_length": 4000, "min_length": 3999}
    with running(translator, directory, Limits(extra_length=5000)) as service:
        client = service.connect()
        client.sendall(request(service, json.dumps(long).encode(), path))
        until(lambda: service.metric("npformer_queue_seconds_count") == 1)
        client.close()
        begun = time.monotonic()
        [found] = service.translate(LINES[0])
        assert time.monotonic() - begun < 10
        assert service.metric(f'npformer_requests_total{{route="{path}",status="499"}}') == 1
        [expected] = translator.translate(LINES[:1])
        assert found["text"] == expected.text


def test_a_search_that_takes_too_long_is_given_up(translator: Translator, directory: Path) -> None:
    long = {"text": "A dog runs.", "beam": 16, "extra_length": 4000, "min_length": 3999}
    limits = Limits(extra_length=5000, queue_seconds=30, seconds=0.5)
    with running(translator, directory, limits) as service:
        answer = service.post("/translate", long)
        assert answer.status == 504
        *_, last = service.post("/stream", long).body.splitlines()
        assert "longer than 0.5 seconds" in json.loads(last)["error"]


def test_many_clients_at_once_get_their_own(service: Service, translator: Translator) -> None:
    texts = [f"{line} {i}" for i, line in enumerate(LINES * 8)][:64]
    expected = [t.text for t in translator.translate(texts, beam=2)]
    found: dict[int, str] = {}

    def client(i: int) -> None:
        found[i] = service.translate(texts[i], beam=2)[0]["text"]

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(len(texts))] == expected
