"""Requests that are wrong, too large, or of somebody who may not ask: one clear sentence each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from npformer import Translator
from npformer.service.limits import Limits
from tests.npformer.test_translator import LINES
from tests.service.fakes import Echo
from tests.service.running import JSON, Service, answer_to, request, running, until

FORM = {"content-type": "application/x-www-form-urlencoded"}

BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid JSON"),
    "cut short": (b'{"text": "a', "not valid JSON"),
    "not UTF-8": (b'{"text": "\xff"}', "byte 11 is not UTF-8"),
    "a list": (b'["a"]', "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
    "NaN": (b'{"text": "a", "length_penalty": NaN}', "NaN is not allowed"),
    "infinity": (b'{"text": "a", "length_penalty": -Infinity}', "-Infinity is not allowed"),
    "1e999": (b'{"text": "a", "length_penalty": 1e999}', "'1e999' is too large"),
    "a huge number": (b'{"text": "a", "beam": ' + b"9" * 5000 + b"}", "is too large"),
    "deep lists": (b'{"text": ' + b"[" * 100 + b"]" * 100 + b"}", "nested too deeply"),
    "very deep lists": (b"[" * 200_000, "nested too deeply"),
    "very deep objects": (b'{"text":' * 60_000, "nested too deeply"),
    "twice": (b'{"text": "a", "text": "b"}', "'text' is given twice"),
    "half a pair": (b'{"text": "ab\\ud800"}', "half of a surrogate pair, U+D800, at character 3"),
    "half a pair in a list": (b'{"text": ["a", "\\udc00"]}', "text 2 has half of a surrogate"),
    "half a pair in a prefix": (b'{"text": "a", "prefix": "\\udfff"}', "prefix has half of a"),
    "half a pair in a name": (b'{"text": "a", "\\ud800": 1}', "no field '\\ud800'"),
    "half a pair in a setting": (b'{"text": "a", "penalty": "\\ud800"}', "penalty must be gnmt"),
}

FIELDS: list[tuple[dict[str, Any], str]] = [
    ({}, "the field text is missing"),
    ({"text": None}, "text must be a string, got null"),
    ({"text": 3}, "text must be a string, got a number"),
    ({"text": {"a": "b"}}, "text must be a string, got an object"),
    ({"text": ["a", ["b"]]}, "text 2 must be a string, got a list"),
    ({"text": ["a", True]}, "text 2 must be a string, got true or false"),
    ({"text": "a", "beams": 3}, "there is no field 'beams'; there are text, prefix, long_lines,"),
    ({"text": "a", "b" * 9999: 3}, "there is no field 'bbb"),
    ({"text": "a", "beam": 17}, "beam is at most 16 here, got 17"),
    ({"text": "a", "beam": 0}, "beam must be 1 to 1,000"),
    ({"text": "a", "beam": 1.5}, "beam must be a whole number, got 1.5"),
    ({"text": "a", "beam": "4"}, "beam must be a whole number, got '4'"),
    ({"text": "a", "beam": True}, "beam must be a whole number, got True"),
    ({"text": "a", "beam": None}, "beam must be a whole number, got None"),
    ({"text": "a", "beam": ["x" * 99_999]}, "beam must be a whole number, got ['xxx"),
    ({"text": "a", "alternatives": 17}, "alternatives is at most 16 here, got 17"),
    ({"text": "a", "alternatives": 3, "beam": 2}, "alternatives must lie between 1 and beam (2)"),
    ({"text": "a", "extra_length": 201}, "extra_length is at most 200 here, got 201"),
    ({"text": "a", "length_penalty": "much"}, "length_penalty must be a number, got 'much'"),
    ({"text": "a", "penalty": {}}, "penalty must be gnmt, power or none"),
    ({"text": "a", "sampling": "yes"}, "sampling must be true or false"),
    ({"text": "a", "temperature": 2}, "temperature must be 1 without sampling, got 2"),
    ({"text": "a", "groups": 3}, "groups must divide the beam (4) evenly"),
    ({"text": "a", "long_lines": "fold"}, "long_lines must be one of split, cut, skip, refuse"),
    ({"text": "a", "long_lines": ["cut"]}, "long_lines must be one of split, cut, skip, refuse"),
    ({"text": ["a", "b"], "prefix": "c"}, "prefix must be as many as text, 2, got 1"),
    ({"text": "A dog " * 900, "long_lines": "refuse"}, "line 1 has"),
]

TOO_LARGE: list[tuple[dict[str, Any], str]] = [
    ({"text": "a" * 10_001}, "text has 10,001 characters, of at most 10,000"),
    ({"text": ["a", "b" * 10_001]}, "text 2 has 10,001 characters"),
    ({"text": ["a"] * 1_001}, "text has 1,001 texts, of at most 1,000"),
    ({"text": "a", "prefix": "b" * 10_001}, "prefix has 10,001 characters"),
    ({"text": "a", "prefix": "b " * 1_000}, "a prefix has 2,000 tokens, of at most 202 here"),
]


@pytest.mark.parametrize("path", ["/translate", "/stream", "/attention"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_request_is_refused(service: Service, path: str, name: str) -> None:
    body, sentence = BODIES[name]
    answer = service.ask("POST", path, body, JSON)
    assert answer.status == 422
    if path == "/translate":
        assert sentence in answer.error
    assert len(answer.error) < 700


@pytest.mark.parametrize(("fields", "sentence"), FIELDS, ids=lambda given: f"{given!s:.50}")
def test_a_field_that_is_wrong_is_named(
    service: Service, fields: dict[str, Any], sentence: str
) -> None:
    answer = service.post("/translate", fields)
    assert answer.status == 422
    assert sentence in answer.error
    assert len(answer.error) < 700


@pytest.mark.parametrize(("fields", "sentence"), TOO_LARGE, ids=lambda given: f"{given!s:.50}")
def test_what_is_too_large_is_refused_with_the_limit(
    service: Service, fields: dict[str, Any], sentence: str
) -> None:
    answer = service.post("/translate", fields)
    assert answer.status == 413
    assert sentence in answer.error


def test_limits_are_what_they_are_set_to(translator: Translator, directory: Path) -> None:
    limits = Limits(characters=5, texts=2, body=100, beam=2, alternatives=1, extra_length=3)
    with running(translator, directory, limits) as service:
        assert service.translate(["12345", "a"], beam=2, extra_length=3)
        for fields, status in (
            ({"text": "123456", "beam": 1, "extra_length": 3}, 413),
            ({"text": ["a"] * 3, "beam": 1, "extra_length": 3}, 413),
            ({"text": "a", "beam": 1, "extra_length": 3, "x": "y" * 80}, 413),
            ({"text": "a", "beam": 3, "extra_length": 3}, 422),
            ({"text": "a", "beam": 2, "alternatives": 2, "extra_length": 3}, 422),
            ({"text": "a", "beam": 2, "extra_length": 4}, 422),
        ):
            assert service.post("/translate", fields).status == status


def test_the_sentences_of_a_request_are_limited(translator: Translator, directory: Path) -> None:
    longest = translator.longest_source
    with running(translator, directory, Limits(sentences=2)) as service:
        service.translate(["a", "", "b"])
        for texts in (["a", "b", "c"], "a " * (2 * longest + 10)):
            answer = service.post("/translate", {"text": texts})
            assert answer.status == 413
            assert "sentences, of at most 2" in answer.error


def test_defaults_fit_into_lower_limits(translator: Translator, directory: Path) -> None:
    """A request that names no beam and no length is never refused for the defaults of these."""
    with running(translator, directory, Limits(beam=2, extra_length=3)) as service:
        [found] = service.translate(LINES[0])
        [expected] = translator.translate(LINES[:1], beam=2, extra_length=3)
        assert found["text"] == expected.text


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"q", "no form"),
        (b"q=%ff&source=en&target=de", "no form"),
        (b"q=%ed%a0%80&source=en&target=de", "no form"),
        ("q=ä&source=en&target=de".encode(), "no form"),
        (b"&".join(b"q=a" for _ in range(101)), "no form of at most 100 fields"),
        (b"q=a&target=de", "source must be the code of a language"),
        (b"q=a&q=b&source=en&source=de&target=de", "source must be the code of a language"),
        (b"", "the field text is missing"),
        (b"text=a&beam=4", "beam must be a whole number, got '4'"),
    ],
)
def test_a_form_that_is_wrong_is_refused(service: Service, body: bytes, sentence: str) -> None:
    answer = service.ask("POST", "/translate", body, FORM)
    assert answer.status == 422
    assert sentence in answer.error


@pytest.mark.parametrize("kind", [None, "text/plain", "multipart/form-data; boundary=x", "\xff"])
def test_other_kinds_of_bodies_are_refused(service: Service, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = service.ask("POST", "/translate", b'{"text": "a"}', headers)
    assert answer.status == 415
    assert "send application/json" in answer.error


def test_other_routes_and_methods_are_refused(service: Service) -> None:
    assert "there is no '/detect'" in service.post("/detect", {"q": "a"}).error
    assert service.get("/nowhere").status == 404
    answer = service.get("/translate")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert "GET is not what '/translate' takes" in answer.error
    assert service.post("/model", {}).status == 405


def test_a_model_without_numbers_says_so(translator: Translator, directory: Path) -> None:
    class Broken(Echo):
        def one(self, sentence: Any) -> None:
            return None

    with running(translator, directory, engine=Broken()) as service:
        for path in ("/translate", "/attention"):
            answer = service.post("/translate", {"text": "a"})
            assert answer.status == 500
            assert "not numbers" in answer.error, path
        [last] = service.post("/stream", {"text": "a"}).body.splitlines()
        assert "not numbers" in json.loads(last)["error"]


def test_an_engine_that_fails_is_an_error_of_the_service(
    translator: Translator, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Echo):
        def one(self, sentence: Any) -> None:
            raise RuntimeError("a bug")

    with running(translator, directory, engine=Failing()) as service:
        answer = service.post("/translate", {"text": "a"})
        assert answer.status == 500
        assert "in its log" in answer.error
        [last] = service.post("/stream", {"text": "a"}).body.splitlines()
        assert "in its log" in json.loads(last)["error"]
        assert service.get("/health").status == 200
    assert "RuntimeError: a bug" in caplog.text


# Time


def test_what_waits_too_long_is_told_to_come_again(translator: Translator, directory: Path) -> None:
    engine = Echo()
    limits = Limits(queue_seconds=0.2, seconds=1.0)
    with running(translator, directory, limits, engine) as service:
        engine.close_gate()
        with service.connect() as first:
            first.sendall(request(service, b'{"text": "a"}'))
            assert engine.entered.wait(60)
            answer = service.post("/translate", {"text": "b"})
            assert (answer.status, answer.headers["retry-after"]) == (503, "10")
            assert "longer than 0.2 seconds" in answer.error
            answer = answer_to(first)
            assert answer.status == 504
            assert "longer than 1 seconds" in answer.error
        engine.gate.set()
        assert service.translate("c")


def test_a_full_queue_is_told(translator: Translator, directory: Path) -> None:
    engine = Echo()
    with running(translator, directory, Limits(queue=2), engine) as service:
        engine.close_gate()
        with service.connect() as first, service.connect() as second:
            first.sendall(request(service, b'{"text": "a"}'))
            assert engine.entered.wait(60)
            second.sendall(request(service, b'{"text": ["b", "c"]}'))
            until(lambda: service.metric("npformer_queue_sentences") == 2)
            answer = service.post("/translate", {"text": "d"})
            assert answer.status == 503
            assert "2 sentences wait already, of 2" in answer.error
            assert service.post("/stream", {"text": "d"}).status == 503
            engine.gate.set()
            assert answer_to(first).status == 200
            assert answer_to(second).status == 200


# Hosts and origins


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_on_loopback_other_names_are_refused(service: Service, host: str) -> None:
    """A site whose name was made to stand for 127.0.0.1 (DNS rebinding) gets no answer."""
    for answer in (service.get("/model", host=host), service.post("/translate", {}, host=host)):
        assert answer.status == 403
        assert "does not answer to the name" in answer.error


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "[::1]:8000"])
def test_its_own_names_are_known(service: Service, host: str) -> None:
    assert service.get("/health", host=host).status == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", "localhost"]
)
def test_pages_of_others_may_not_ask(service: Service, origin: str) -> None:
    for answer in (
        service.post("/translate", {"text": "a"}, origin=origin),
        service.ask("POST", "/translate", b"q=a", {**FORM, "origin": origin}),
        service.ask("OPTIONS", "/translate", None, {"origin": origin}),
    ):
        assert answer.status == 403
        assert "may not ask here" in answer.error
        assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_may_ask(service: Service) -> None:
    answer = service.post("/translate", {"text": "a"}, origin=service.url)
    assert answer.status == 200


def test_those_that_are_allowed_may_ask(translator: Translator, directory: Path) -> None:
    allowed = {"allow_hosts": ["mt.example"], "allow_origins": ["https://a.example"]}
    with running(translator, directory, **allowed) as service:
        assert service.get("/health", host="mt.example").status == 200
        answer = service.post("/translate", {"text": "a"}, origin="https://a.example")
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        asked = {
            "origin": "https://a.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        }
        assert service.ask("OPTIONS", "/translate", None, asked).status == 200
        assert service.post("/translate", {"text": "a"}, origin="https://b.example").status == 403
    with running(translator, directory, allow_origins=["*"]) as service:
        answer = service.post("/translate", {"text": "a"}, origin="https://b.example")
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("host", ["127.1", "127.0.0.2", "LOCALHOST"])
def test_loopback_is_known_by_whatever_name(
    translator: Translator, directory: Path, host: str
) -> None:
    with running(translator, directory, host=host) as service:
        assert service.get("/health", host="example.org").status == 403
        assert service.get("/health", host=f"{host}:1").status == 200


def test_elsewhere_than_on_loopback_every_name_is_known(
    translator: Translator, directory: Path
) -> None:
    with running(translator, directory, host="0.0.0.0") as service:
        service.host = "127.0.0.1"
        assert service.get("/health", host="anything.example").status == 200
        assert service.get("/health", origin="https://evil.example").status == 403
