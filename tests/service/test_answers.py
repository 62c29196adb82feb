"""What the service answers is what the Translator says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from npformer import SearchSettings, Translation, Translator
from npformer.service.limits import Limits
from npformer.service.requests import OPTIONS
from tests.npformer.test_translator import LINES
from tests.service.running import JSON, Service, running

OPTION_SETS: list[dict[str, Any]] = [
    {},
    {"beam": 1},
    {"alternatives": 3},
    {"beam": 6, "alternatives": 2, "groups": 3, "diversity": 1.5},
    {"penalty": "power", "length_penalty": 1, "coverage_penalty": 0.2},
    {"penalty": "power", "length_penalty": 1, "stop": "beam"},
    {"penalty": "none", "extra_length": 3, "min_length": 2, "max_length": 9},
    {"min_ratio": 0.5, "max_ratio": 1.5, "no_repeat_ngram": 2},
    {"sampling": True, "alternatives": 3, "seed": 5, "temperature": 1.5, "top_k": 9, "top_p": 0.9},
]


def check(found: list[dict[str, Any]], expected: list[Translation]) -> None:
    assert len(found) == len(expected)
    for one, translation in zip(found, expected, strict=True):
        for told, ranked in zip([one, *one["alternatives"]], translation.ranked, strict=True):
            assert told["text"] == ranked.text
            assert told["score"] == pytest.approx(ranked.score, rel=1e-4, abs=1e-4)
        assert one.get("note", "") == translation.note


@pytest.mark.parametrize("options", OPTION_SETS, ids=str)
def test_translations_are_those_of_the_translator(
    service: Service, translator: Translator, options: dict[str, Any]
) -> None:
    lines = [*LINES[:4], "", "  ", "Ein Hund läuft. 🙂"]
    expected = {"beam": max(4, options.get("alternatives", 1)), **options}
    check(service.translate(lines, **options), translator.translate(lines, **expected))
    check(service.translate(lines[0], **options), translator.translate(lines[:1], **expected))


def test_every_setting_of_the_search_is_tried() -> None:
    assert {name for options in OPTION_SETS for name in options} == set(OPTIONS)
    assert tuple(SearchSettings.__dataclass_fields__) == OPTIONS


def test_translations_begin_with_their_prefixes(service: Service, translator: Translator) -> None:
    lines, prefixes = LINES[:3], ["Yes.", "", "Two"]
    check(service.translate(lines, prefix=prefixes), translator.translate(lines, prefixes=prefixes))
    [alone] = service.translate(lines[0], prefix="Yes.")
    assert alone["text"].startswith("Yes.")


@pytest.mark.parametrize("how", ["split", "cut", "skip"])
def test_long_texts_are_treated_as_asked(
    service: Service, translator: Translator, how: Any
) -> None:
    text = " ".join(LINES * 30)[:9_000]
    options = {"beam": 1, "extra_length": 2}
    expected = translator.translate([text, LINES[0]], long_lines=how, **options)
    assert expected[0].note
    check(service.translate([text, LINES[0]], long_lines=how, **options), expected)


def test_a_stream_ends_with_the_answer(service: Service, translator: Translator) -> None:
    text = " ".join(LINES * 10)
    answer = service.post("/stream", {"text": text, "alternatives": 2})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    *partials, last = [json.loads(line) for line in answer.body.splitlines()]
    check(last["translations"], translator.translate([text], beam=4, alternatives=2))
    assert all(list(partial) == ["partial"] for partial in partials)


def test_a_stream_tells_the_translation_as_it_comes(
    translator: Translator, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy, each partial translation is the beginning of the next, and of the last."""
    monkeypatch.setattr("npformer.service.engine._PARTIAL_SECONDS", 0)
    with running(translator, directory) as service:
        answer = service.post("/stream", {"text": LINES[0], "beam": 1, "min_length": 30})
    *partials, last = [json.loads(line) for line in answer.body.splitlines()]
    told = [partial["partial"] for partial in partials]
    assert len(told) >= 2
    assert told == sorted(set(told), key=len)
    # The last characters may be half of one that has several bytes.
    assert all(last["translations"][0]["text"].startswith(text.rstrip("�")) for text in told)


@pytest.mark.parametrize("given", [None, "Two dogs run.", ""])
def test_attention_is_that_of_the_model(
    service: Service, translator: Translator, given: str | None
) -> None:
    asked = {"text": LINES[0]} | ({} if given is None else {"translation": given})
    answer = service.post("/attention", asked).json()
    if given is None:
        [expected] = translator.translate([LINES[0]], attention=True)
        assert answer["text"] == expected.text
    else:
        [expected] = translator.score([LINES[0]], [given], attention=True)
    assert expected.attention is not None
    for name, pieces in (("encoder", "source"), ("decoder", "target"), ("cross", "target")):
        weights = np.array(answer[name])
        np.testing.assert_allclose(weights, getattr(expected.attention, name), atol=1e-4)
        assert weights.shape[2] == len(answer[pieces])
    assert answer["source"] == list(expected.source_pieces)
    assert answer["target"] == list(expected.target_pieces)
    assert answer["predicted"] == list(expected.predicted_pieces)


def test_attention_that_is_too_large_is_not_computed(
    translator: Translator, directory: Path
) -> None:
    with running(translator, directory, Limits(attention=50_000)) as service:
        assert service.post("/attention", {"text": "A dog."}).status == 200
        for asked in ({"text": "A dog " * 60}, {"text": "A dog.", "translation": "Dog " * 500}):
            answer = service.post("/attention", asked)
            assert answer.status == 413
            assert "at most 50,000 are told" in answer.error
    with running(translator, directory) as service:
        answer = service.post("/attention", {"text": "A dog " * 900})
        assert answer.status == 413
        assert "that the model takes at once" in answer.error


# LibreTranslate's form


@pytest.mark.parametrize("as_form", [False, True])
def test_libretranslates_form_is_understood(
    service: Service, translator: Translator, as_form: bool
) -> None:
    [first, second] = translator.translate(LINES[:2], beam=4)
    [ranked] = translator.translate(LINES[:1], beam=4, alternatives=3)

    def ask(**fields: Any) -> Any:
        fields = {"source": "en", "target": "de", **fields}
        if not as_form:
            return service.post("/translate", fields).json()
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return service.ask("POST", "/translate", urlencode(fields, doseq=True), kind).json()

    assert ask(q=LINES[0]) == {"translatedText": first.text}
    assert ask(q=LINES[:2]) == {"translatedText": [first.text, second.text]}
    assert ask(q=LINES[0], source="auto", format="text", api_key="x", apiKey="") == {
        "translatedText": first.text
    }
    others = [each.text for each in ranked.alternatives]
    expected = {"translatedText": ranked.text, "alternatives": others}
    assert ask(q=LINES[0], alternatives=2) == expected


def test_libretranslates_own_client_works(service: Service, translator: Translator) -> None:
    theirs = pytest.importorskip("libretranslatepy", reason="the client is asked to translate")
    client = theirs.LibreTranslateAPI(service.url)
    assert client.translate(LINES[0], "en", "de") == translator.translate(LINES[:1])[0].text
    assert {language["code"] for language in client.languages()} == {"en", "de"}


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"source": "fr"}, "source is en (English) here, and not 'fr'"),
        ({"target": "auto"}, "target is de (German) here, and not 'auto'"),
        ({"target": None}, "target must be the code of a language, as de"),
        ({"format": "html"}, "format must be text"),
        ({"alternatives": -1}, "alternatives must be a whole number, 0 or more"),
        ({"alternatives": "many"}, "alternatives must be a whole number, 0 or more"),
        ({"alternatives": 16}, "alternatives is at most 15 here, got 16"),
        ({"q": [1]}, "q 1 must be a string, got a number"),
    ],
    ids=str,
)
def test_what_libretranslate_has_and_we_have_not_is_refused(
    service: Service, fields: dict[str, Any], sentence: str
) -> None:
    answer = service.post("/translate", {"q": "a", "source": "en", "target": "de", **fields})
    assert answer.status == 422
    assert sentence in answer.error


def test_languages_and_settings_are_told_as_libretranslate_does(service: Service) -> None:
    assert service.get("/languages").json() == [
        {"code": "en", "name": "English", "targets": ["de"]},
        {"code": "de", "name": "German", "targets": []},
    ]
    settings = service.get("/frontend/settings").json()
    assert settings["charLimit"] == Limits().characters
    assert settings["keyRequired"] is False
    assert settings["language"]["target"] == {"code": "de", "name": "German"}


def test_unknown_languages_are_believed(translator: Translator, directory: Path) -> None:
    with running(translator, directory) as service:
        asked = {"q": "A dog.", "source": "sv", "target": "fi"}
        assert service.post("/translate", asked).status == 200
        assert service.get("/languages").json() == []
        assert service.get("/model").json()["languages"] == {"source": None, "target": None}


def test_what_takes_json_takes_it_with_a_charset(service: Service) -> None:
    kind = {"content-type": "Application/JSON; charset=utf-8"}
    assert service.ask("POST", "/translate", '{"text": "a"}', kind).status == 200
    assert service.ask("POST", "/translate", '{"text": "a"}', JSON).status == 200
