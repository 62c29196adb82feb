"""A real browser, a real service, and a page of it for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from docs.browser import browser, missing, serving
from tests.npformer.test_translator import make_translator, save
from tests.page.answers import ATTENTION, TRANSLATIONS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Route

CHARACTERS = 5_000

Faults = list[str]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if reason := missing():
        pytest.skip(f"no real browser here: {reason}")
    with browser() as made:
        yield made


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random parameters, which translates anything to something."""
    made = make_translator(heads=4, longest=80)
    return save(tmp_path_factory.mktemp("page") / "small", made.model, made.tokenizers)


@pytest.fixture(scope="session")
def service(chromium: Browser, model: Path) -> Iterator[str]:
    languages = ("--source-language=en", "--target-language=de")
    with serving(model, f"--limit-characters={CHARACTERS}", *languages) as address:
        yield address


@pytest.fixture
def settings() -> dict[str, Any]:
    """Of the browser, for a test to change: playwright's."""
    return {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}


@pytest.fixture
def page(chromium: Browser, service: str, settings: dict[str, Any]) -> Iterator[Page]:
    """The page, opened. A fault in its scripts, or what its policy forbids, fails the test."""
    context = chromium.new_context(base_url=service, **settings)
    context.set_default_timeout(20_000)
    faults: Faults = []
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if is_fault(said) else None)
    page.goto("/")
    yield page
    context.close()
    assert not faults


def is_fault(said: ConsoleMessage) -> bool:
    """Not that a request was refused: that is part of what is tested."""
    return said.type == "error" and "Failed to load resource" not in said.text


@pytest.fixture
def known(page: Page) -> Page:
    """The page, where a translation and its attention are known to the last digit."""

    def answer(told: dict[str, Any]) -> Any:
        def fulfill(route: Route) -> None:
            route.fulfill(json=told)

        return fulfill

    page.route("**/stream", answer(TRANSLATIONS))
    page.route("**/attention", answer(ATTENTION))
    translate(page, "The old cat.")
    page.get_by_role("grid").wait_for()
    return page


def translate(page: Page, text: str) -> None:
    """Type a text and ask for its translation."""
    page.locator("#text").fill(text)
    page.locator("#text").press("Control+Enter")
