"""From what is typed to its translations, also if something is wrong with either."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from docs.browser import serving
from tests.page.answers import TRANSLATIONS
from tests.page.conftest import CHARACTERS, translate

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

SENTENCE = "Two girls sing in the garden."
LIMIT = f"{CHARACTERS:,}"

# An answer that comes in pieces.
STREAMED = """(pieces) => {
  window.fetch = async () => new Response(new ReadableStream({
    pull(controller) {
      const piece = pieces.shift();
      if (piece) controller.enqueue(new TextEncoder().encode(piece));
      else controller.close();
    },
  }));
}"""


def text_of(page: Page, name: str) -> str:
    return page.locator(f"#{name}").inner_text().strip()


def wait_until_idle(page: Page) -> None:
    page.locator("body:not(.busy)").wait_for()


def test_a_typed_sentence_is_translated_with_its_best_translations(page: Page) -> None:
    page.get_by_label("English").press_sequentially(SENTENCE)
    assert text_of(page, "count") == f"{len(SENTENCE)} of {LIMIT}"
    page.get_by_role("button", name="Translate").click()
    page.get_by_role("grid").wait_for()
    shown = page.locator("#translations .text").all_inner_texts()
    asked = {"text": SENTENCE, "beam": 4, "alternatives": 4}
    [best] = page.request.post("/translate", data=asked).json()["translations"]
    assert [text.strip() for text in shown] == [
        each["text"].strip() for each in [best, *best["alternatives"]]
    ]
    assert len(shown) == 4
    assert text_of(page, "translation") == best["text"].strip()
    assert re.fullmatch(r"Translated in \d+\.\d+ s\.", text_of(page, "status"))


def test_the_page_says_what_the_model_is(page: Page) -> None:
    page.get_by_text("German", exact=True).wait_for()
    assert text_of(page, "model") == "small"
    assert text_of(page, "configuration").startswith("2 layers, 4 heads, 0.0")
    assert page.locator("#text").get_attribute("lang") == "en"
    assert page.locator("#translation").get_attribute("lang") == "de"


def test_the_translation_is_seen_as_it_comes(page: Page) -> None:
    page.evaluate(
        """() => {
          window.seen = [];
          const output = document.getElementById("translation");
          const look = () => window.seen.push(output.textContent);
          new MutationObserver(look).observe(output, { childList: true });
        }"""
    )
    # Lines come in pieces, which end anywhere.
    pieces = ['{"partial": "Die"}\n{"par', 'tial": "Die alte"}\n', '{"error": "the service stops"}']
    page.evaluate(STREAMED, pieces)
    translate(page, SENTENCE)
    page.get_by_role("alert").get_by_text("the service stops").wait_for()
    assert page.evaluate("seen.filter((text) => text)") == ["Die", "Die alte"]
    assert text_of(page, "translation") == ""  # what is not whole is not left there


def test_another_translation_can_be_chosen(known: Page) -> None:
    with known.expect_request("**/attention") as asked:
        known.get_by_label("Eine alte Katze.").check()
    assert asked.value.post_data_json == {
        "text": "The old cat.",
        "translation": "Eine alte Katze.",
    }
    known.locator("#translation").get_by_text("Eine alte Katze.").wait_for()


def test_scores_are_shown_and_what_differs_from_the_best_is_marked(known: Page) -> None:
    assert known.locator(".score").all_inner_texts() == ["−0.25", "−1.50", "−2.75"]
    assert known.locator("#translations mark").all_inner_texts() == ["Eine", "schläft"]
    shares = known.locator(".bar").evaluate_all(
        "all => all.map((bar) => Number(bar.style.getPropertyValue('--share')))"
    )
    assert shares == pytest.approx([1, 0.2865, 0.0821], abs=1e-3)


def test_very_long_translations_are_shown_without_marks(known: Page) -> None:
    texts = ["ein Hund " * 40_000, "eine Katze " * 40_000]
    best, other = ({"text": text.strip(), "score": -1.0} for text in texts)
    known.unroute("**/stream")
    answer = {"translations": [{**best, "alternatives": [other]}]}
    known.route("**/stream", lambda route: route.fulfill(json=answer))
    translate(known, "A long one.")
    known.get_by_text("Translated in").wait_for()
    known.locator("#translations li").nth(1).wait_for()
    assert known.locator("#translations mark").count() == 0


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
def test_nothing_is_asked_for_without_a_text(page: Page, text: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.method))
    translate(page, text)
    page.get_by_text("There is nothing to translate yet").wait_for()
    assert "POST" not in asked
    assert page.locator("#text").evaluate("input => input === document.activeElement")


def test_a_text_that_is_too_long_is_told_before_it_is_sent(page: Page) -> None:
    page.locator("#text").fill("a" * CHARACTERS)
    assert text_of(page, "too-long") == ""
    page.locator("#text").fill("a" * 10_000)
    assert text_of(page, "too-long") == (
        f"The server takes texts of up to {LIMIT} characters; this one has 10,000."
    )
    assert page.locator("#text").get_attribute("aria-invalid") == "true"
    with page.expect_response("**/stream") as told:
        page.locator("#text").press("Control+Enter")
    sentence = told.value.json()["error"]
    assert LIMIT in sentence or str(CHARACTERS) in sentence
    page.get_by_role("alert").get_by_text(sentence).wait_for()
    assert len(page.locator("#text").input_value()) == 10_000


def test_characters_are_counted_as_the_server_does(page: Page) -> None:
    page.locator("#text").fill("🐕 runs")
    assert text_of(page, "count") == f"6 of {LIMIT}"


def test_a_long_text_is_translated_in_parts_and_the_server_says_why_it_has_no_pictures(
    page: Page,
) -> None:
    with page.expect_response("**/attention") as told:
        translate(page, f"{SENTENCE} " * 16)
    sentence = told.value.json()["error"]
    page.locator("#no-pictures").get_by_text(sentence).wait_for()
    assert text_of(page, "no-pictures") == f"{sentence[0].upper()}{sentence[1:]}."
    assert not page.locator("#pictures").is_visible()
    assert text_of(page, "translation")


def test_text_from_right_to_left_stands_so(page: Page) -> None:
    text = "החתול ישן, and the dog runs."
    translate(page, text)
    page.get_by_role("grid").wait_for()
    direction = "element => getComputedStyle(element).direction"
    assert page.locator("#text").evaluate(direction) == "rtl"
    words = page.locator("#lines .columns .text")
    assert words.all_inner_texts()[:3] == ["החתול", "ישן", ","]
    assert [word.evaluate(direction) for word in words.all()][:2] == ["rtl", "rtl"]
    assert words.nth(4).evaluate(direction) == "ltr"


def test_text_is_never_markup(page: Page) -> None:
    text = "<img src=x onerror=alert(1)><b>bold</b> &amp;"
    page.route("**/stream", lambda route: route.fulfill(json=answer_of(text)))
    translate(page, text)
    page.get_by_role("grid").wait_for()
    assert text_of(page, "translation") == text
    assert page.locator("main b, main img").count() == 0


def answer_of(text: str) -> dict[str, Any]:
    return {"translations": [{"text": text, "score": None, "alternatives": []}]}


def test_an_unreachable_server_is_told_and_the_text_is_kept(
    page: Page, model: Path, settings: dict[str, Any]
) -> None:
    with serving(model) as address:
        page.goto(address)
        page.get_by_text("small").wait_for()
    translate(page, SENTENCE)
    alert = page.get_by_role("alert")
    alert.get_by_text("The server cannot be reached.").wait_for()
    assert page.locator("#text").input_value() == SENTENCE
    # It is there again.
    page.route("**/stream", lambda route: route.fulfill(json=TRANSLATIONS))
    alert.get_by_role("button", name="Try again").click()
    page.locator("#translation").get_by_text("Die alte Katze.").wait_for()
    assert not alert.is_visible()


@pytest.mark.parametrize(
    "end", ['controller.error(new TypeError("network"))', "controller.close()"]
)
def test_a_connection_that_breaks_off_is_told(page: Page, end: str) -> None:
    page.evaluate(STREAMED.replace("controller.close()", end), ['{"partial": "Die"}\n'])
    translate(page, SENTENCE)
    page.get_by_role("alert").get_by_text("The connection broke off").wait_for()
    assert page.locator("#text").input_value() == SENTENCE


def test_an_answer_of_another_program_is_told(page: Page) -> None:
    page.route("**/stream", lambda route: route.fulfill(body="<html>It works!</html>"))
    translate(page, SENTENCE)
    page.get_by_role("alert").get_by_text("is not what this page understands").wait_for()


def test_an_error_without_a_sentence_is_told_by_its_status(page: Page) -> None:
    page.route("**/stream", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    translate(page, SENTENCE)
    page.get_by_role("alert").get_by_text("status 502").wait_for()


def test_a_second_request_takes_the_place_of_the_first(page: Page) -> None:
    held: list[Route] = []
    page.route("**/stream", lambda route: held.append(route))
    translate(page, "The first one.")
    page.get_by_text("Translating …").wait_for()
    with page.expect_event("requestfailed") as failed:
        translate(page, "The second one.")
    assert failed.value.post_data_json["text"] == "The first one."
    page.wait_for_timeout(100)
    assert page.locator("body.busy").count() == 1  # the end of the first is not that of the second
    assert not page.get_by_role("alert").is_visible()
    held[-1].fulfill(json=answer_of("Das zweite."))
    page.locator("#translation").get_by_text("Das zweite.").wait_for()
    wait_until_idle(page)


def test_a_choice_takes_the_place_of_a_translation(known: Page) -> None:
    known.unroute("**/stream")
    known.route("**/stream", lambda route: None)  # which never answers
    translate(known, "Another one.")
    known.get_by_text("Translating …").wait_for()
    known.get_by_label("Eine alte Katze.").check()
    wait_until_idle(known)
    assert text_of(known, "status") == ""
    assert text_of(known, "translation") == "Eine alte Katze."


def test_what_was_broken_off_is_not_left_there(known: Page) -> None:
    known.evaluate(STREAMED.replace("else controller.close();", ""), ['{"partial": "Ein"}\n'])
    translate(known, "Another one.")
    known.locator("#translation").get_by_text("Ein", exact=True).wait_for()
    translate(known, "")
    assert text_of(known, "translation") == "Die alte Katze."
    assert "stale" in known.locator("#translation").get_attribute("class")


def test_a_newer_choice_aborts_the_attention_of_the_older(known: Page) -> None:
    held: list[Route] = []
    known.unroute("**/attention")
    known.route("**/attention", lambda route: held.append(route))
    known.get_by_label("Eine alte Katze.").check()
    known.wait_for_timeout(50)
    with known.expect_event("requestfailed") as failed:
        known.get_by_label("Die alte Katze schläft.").check()
    assert failed.value.post_data_json["translation"] == "Eine alte Katze."
    assert text_of(known, "translation") == "Die alte Katze schläft."


def test_a_translation_of_another_text_than_the_typed_one_looks_so(known: Page) -> None:
    assert "stale" not in (known.locator("#translation").get_attribute("class") or "")
    known.locator("#text").fill("The old cat sleeps.")
    assert "stale" in known.locator("#translation").get_attribute("class")
