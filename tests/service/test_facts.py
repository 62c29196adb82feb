"""What the service tells about itself: model, health, metrics, description, page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from npformer import Translator
from npformer.service.limits import LIMITS, Limits
from npformer.service.openapi import description
from npformer.service.requests import OPTIONS
from tests.npformer.test_translator import LINES, make_translator, save
from tests.service.running import Service, running


def test_the_model_is_told(service: Service, translator: Translator) -> None:
    told = service.get("/model").json()
    assert told["name"] == "model"
    assert told["languages"]["source"] == {"code": "en", "name": "English"}
    assert told["config"] == json.loads(json.dumps(translator.model.config.to_dict()))
    assert told["parameters"] == sum(p.size for p in translator.model.parameters().values())
    assert told["changed"] is False
    assert set(told["limits"]) == set(LIMITS)


def test_a_model_that_changes_on_disk_changes_no_answer(tmp_path: Path) -> None:
    """What was loaded is served on, whatever becomes of the files; /model says it."""
    first, second = make_translator(), make_translator(d_ff=24)
    directory = save(tmp_path / "model", first.model, first.tokenizers)
    with running(Translator.load(directory), directory) as service:
        before = service.translate(LINES)
        card, config = service.get("/model").json()["card"], service.get("/model").json()["config"]
        save(directory, second.model, second.tokenizers)
        assert service.get("/model").json()["changed"] is True
        assert service.translate(LINES) == before
        shutil.rmtree(directory)
        told = service.get("/model").json()
        assert told["changed"] is True
        assert (told["card"], told["config"]) == (card, config)
        assert service.translate(LINES) == before


def test_the_languages_of_a_card_are_known(tmp_path: Path) -> None:
    made = make_translator()
    directory = save(tmp_path / "model", made.model, made.tokenizers)
    (directory / "README.md").write_text("---\nlanguage:\n- sv\n- fi\n---\n# A card\n")
    with running(made, directory) as service:
        told = service.get("/model").json()
        assert told["languages"]["target"] == {"code": "fi", "name": "Finnish"}
        assert "# A card" in told["card"]


def test_health_is_ok(service: Service) -> None:
    assert service.get("/health").json() == {"status": "ok"}


def test_metrics_count_what_happens(translator: Translator, directory: Path) -> None:
    client = pytest.importorskip("prometheus_client.parser")
    with running(translator, directory) as service:
        service.translate(LINES[:3])
        service.translate(LINES[:2], beam=1)
        service.post("/translate", {"text": 1})
        service.get("/nowhere")
        text = service.get("/metrics").body.decode()
        tokens = sum(map(len, translator.tokenizers.source.encode_lines([*LINES[:3], *LINES[:2]])))
        assert service.metric('npformer_requests_total{route="/translate",status="200"}') == 2
        assert service.metric('npformer_requests_total{route="/translate",status="422"}') == 1
        assert service.metric('npformer_requests_total{route="other",status="404"}') == 1
        assert service.metric('npformer_request_seconds_count{route="/translate"}') == 3
        assert service.metric("npformer_sentences_total") == 5
        assert service.metric("npformer_source_tokens_total") == tokens
        assert service.metric('npformer_batch_sentences_bucket{le="2.0"}') == 1
        assert service.metric("npformer_batch_sentences_count") == 2
        assert service.metric("npformer_queue_sentences") == 0
        assert service.metric("npformer_connections") >= 1
    assert len(list(client.text_string_to_metric_families(text))) >= 9


def test_the_description_is_openapi(service: Service) -> None:
    told = service.get("/openapi.json").json()
    validator = pytest.importorskip("openapi_spec_validator", reason="it knows what OpenAPI is")
    validator.validate(told)


def test_the_description_has_every_route_and_every_option(service: Service) -> None:
    paths = description(Limits(beam=9))["paths"]
    assert service.server is not None
    app: Any = service.server.config.app
    assert set(paths) == app.routes
    for path, told in paths.items():
        [method] = set(told) & {"get", "post"}
        assert service.ask(method.upper(), path.replace("{name}", "index.html")).status != 405
    for path in ("/translate", "/stream"):
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        [ours] = [s for s in schema.get("oneOf", [schema]) if "text" in s["properties"]]
        assert set(ours["properties"]) == {"text", "prefix", "long_lines", *OPTIONS}
        assert ours["properties"]["beam"]["maximum"] == 9
        assert all(len(ours["properties"][name]["description"]) > 5 for name in OPTIONS)


def test_the_page_comes_with_headers_that_keep_others_out(service: Service) -> None:
    page = service.get("/")
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert service.get("/static/index.html").body == page.body
    script = service.get("/static/main.js").headers["content-type"]  # or browsers do not run it
    assert script.startswith("text/javascript")
    for name in ("..%2fapp.py", "../app.py", "nothing", "%00"):
        assert service.get(f"/static/{name}").status == 404
