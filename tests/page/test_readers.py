"""Readers with a keyboard alone, with a phone, or with a program that reads the page aloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.page.conftest import translate

if TYPE_CHECKING:
    from playwright.sync_api import Page

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3


def focused(page: Page) -> str:
    """What has the focus: its id, or that of what it is in."""
    return page.evaluate("document.activeElement.id || document.activeElement.closest('[id]').id")


def has_ring(page: Page) -> bool:
    return page.evaluate(
        """() => {
          const active = document.activeElement;
          const drawn = active.matches("input[type=radio]") ? active.nextElementSibling : active;
          const { outlineStyle, outlineWidth } = getComputedStyle(drawn);
          return outlineStyle !== "none" && parseFloat(outlineWidth) > 0;
        }"""
    )


def test_the_tab_key_stops_once_in_each_group_and_the_focus_is_seen(known: Page) -> None:
    known.locator("#text").focus()
    stops = []
    while True:
        known.keyboard.press("Tab")
        if known.evaluate("document.activeElement === document.body"):
            break
        stops.append(focused(known))
        if stops[-1] == "theme":
            break
        own = known.evaluate("document.activeElement.closest('#translations') !== null")
        assert own or has_ring(known), stops
    groups = ["translations", "kinds", "layers", "heads", "units", "lines", "heat-map", "overview"]
    # The field's button has no id of its own.
    assert [stop for stop in stops if stop in groups] == groups
    assert len(stops) <= len(groups) + 2


def test_everything_can_be_done_with_the_keyboard_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "theme"
    page.keyboard.press("Space")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Tab")
    assert focused(page) == "text"
    page.keyboard.type("A dog runs.")
    page.keyboard.press("Control+Enter")
    page.get_by_role("grid").wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert focused(page) == "translations"
    with page.expect_response("**/attention"):
        page.keyboard.press("ArrowDown")
    assert page.locator("#translations input").nth(1).is_checked()
    page.keyboard.press("Tab")
    assert focused(page) == "kinds"
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Decoder self-attention").is_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#title").inner_text().startswith("Layer 2")
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.locator("#title").inner_text() == "Layer 2, head 2"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Pieces").is_checked()


def test_words_are_followed_with_the_arrow_keys(known: Page) -> None:
    known.locator("#units input:checked").focus()
    known.keyboard.press("Tab")
    caption = known.locator("#caption")
    assert caption.inner_text().startswith("To write Die")
    known.keyboard.press("ArrowDown")
    assert caption.inner_text().startswith("To write alte")
    known.keyboard.press("ArrowLeft")
    assert caption.inner_text().startswith("old is looked at by")
    known.keyboard.press("PageDown")
    assert caption.inner_text().startswith("end is looked at by")
    known.keyboard.press("ArrowDown")
    assert caption.inner_text().startswith("end is looked at by")
    known.keyboard.press("Enter")
    known.keyboard.press("Tab")
    known.keyboard.press("Tab")
    assert caption.inner_text().startswith("end is looked at by")  # it stays
    known.keyboard.press("Escape")
    assert caption.inner_text().startswith("Which words")


def test_the_heat_map_is_walked_with_the_arrow_keys(known: Page) -> None:
    known.get_by_label("Pieces").check()
    known.locator("#layers").get_by_label("1", exact=True).check()
    known.locator("#heads").get_by_label("1", exact=True).check()
    cells = known.get_by_role("application")
    known.locator("#lines .rows .word").nth(0).focus()
    known.keyboard.press("Tab")
    assert cells.evaluate("cells => cells === document.activeElement")
    caption = known.locator("#caption")
    assert caption.inner_text() == "▁Die looks at ▁The with 75 %."
    for key, sentence in (
        ("ArrowDown", "▁alte looks at ▁The with 5 %."),
        ("ArrowRight", "▁alte looks at ▁old with 75 %."),
        ("End", "▁alte looks at end with 5 %."),
        ("ArrowRight", "▁alte looks at end with 5 %."),
        ("PageDown", "end looks at end with 75 %."),
        ("Home", "end looks at ▁The with 5 %."),
    ):
        known.keyboard.press(key)
        assert caption.inner_text() == sentence
    known.keyboard.press("Enter")
    known.keyboard.press("Tab")
    assert known.locator("#caption").inner_text() == "end looks at ▁The with 5 %."


def test_what_scrolls_under_a_resting_pointer_is_not_followed(known: Page) -> None:
    known.set_viewport_size({"width": 1280, "height": 420})
    known.locator("#lines .rows .word").nth(1).hover()
    known.get_by_role("application").focus()
    before = known.evaluate("scrollY")
    known.keyboard.press("PageDown")
    known.wait_for_timeout(300)
    assert known.evaluate("scrollY") != before
    assert known.locator("#caption").inner_text().startswith("end looks at The")
    known.locator("#lines .rows .word").nth(2).hover()  # a pointer that moves is
    assert known.locator("#caption").inner_text().startswith("To write Katze")


def test_layers_and_heads_are_picked_with_the_arrow_keys(known: Page) -> None:
    known.locator('#overview [tabindex="0"]').focus()
    for key, title in (
        ("ArrowRight", "Layer 1, head 1"),
        ("ArrowDown", "Layer 2, head 1"),
        ("End", "Layer 2, head 3"),
        ("ArrowDown", "Layer 2, head 3"),
        ("Home", "Layer 2, mean of all heads"),
    ):
        known.keyboard.press(key)
        assert known.locator("#title").inner_text() == title
        chosen = known.evaluate("document.activeElement.getAttribute('aria-selected')")
        assert chosen == "true"


def test_a_program_that_reads_aloud_finds_roles_and_names(known: Page) -> None:
    for role, name in (
        ("textbox", "English"),
        ("button", "Translate"),
        ("switch", "Dark"),
        ("group", "Attention"),
        ("group", "Layer"),
        ("group", "Head"),
        ("radio", "Cross-attention"),
        ("grid", "All layers and heads"),
        ("gridcell", "Layer 1, mean of all heads"),
        ("rowheader", "Layer 2"),
        ("columnheader", "Mean"),
        ("application", "Weights of 5 by 5 words; arrow keys move"),
        ("heading", "What it looked at"),
    ):
        assert known.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    assert known.locator("html").get_attribute("lang") == "en"
    statuses = known.get_by_role("status").evaluate_all("all => all.map((each) => each.id)")
    assert {"caption", "no-pictures", "too-long"} <= {*statuses}
    assert (
        known.locator("canvas:not([aria-hidden] *):not([aria-hidden]):not(#heat-map *)").count()
        == 0
    )


class TestOnAPhone:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}

    def overflow(self, page: Page) -> int:
        return page.evaluate("document.documentElement.scrollWidth - innerWidth")

    def test_nothing_scrolls_sideways_but_the_boxes(self, page: Page) -> None:
        assert self.overflow(page) <= 0
        translate(page, "Two girls sing in the garden, and a dog runs.")
        page.get_by_role("grid").wait_for()
        for kind in ("Encoder self-attention", "Decoder self-attention", "Cross-attention"):
            for unit in ("Pieces", "Words"):
                page.get_by_label(kind).check()
                page.get_by_role("radio", name=unit).check()
                assert self.overflow(page) <= 0
        page.get_by_label("Pieces").check()
        scrolls = "box => box.scrollWidth > box.clientWidth"
        assert page.locator("#heat-map").evaluate(scrolls)

    def test_very_long_words_break_or_end_in_dots(self, page: Page) -> None:
        translate(page, LONG)
        page.locator("body:not(.busy)").wait_for()
        assert self.overflow(page) <= 0

    def test_a_touched_word_is_followed(self, known: Page) -> None:
        known.locator("#lines .rows .word").nth(2).tap()
        assert known.locator("#caption").inner_text().startswith("To write Katze")
        known.locator("#lines .rows .word").nth(2).tap()
        assert known.locator("#caption").inner_text().startswith("Which words")

    def test_the_picture_stays_under_the_finger(self, known: Page) -> None:
        word = known.locator("#lines .rows .word").nth(2)
        word.scroll_into_view_if_needed()
        before = word.bounding_box()
        word.tap()
        assert word.bounding_box() == before

    def test_fields_can_be_touched(self, known: Page) -> None:
        """At least 24 by 24 pixels, WCAG 2.2, 2.5.8."""
        for each in known.locator("button:visible, .radio:visible, #overview .cell:visible").all():
            box = each.bounding_box()
            assert min(box["width"], box["height"]) >= 24, each.inner_text()


class TestWhereMotionIsNotWanted:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"reduced_motion": "reduce"}

    def test_nothing_moves(self, known: Page) -> None:
        duration = "element => getComputedStyle(element).transitionDuration"
        assert known.locator("#lines .word").first.evaluate(duration) == "0s"
