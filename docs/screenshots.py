"""Take the pictures of the page that the README shows.

    make demo
    python -m docs.screenshots --model runs/demo/model

They come from a real browser and a real service; see `docs/browser.py` for what must be installed.
Another machine has other fonts, so the bytes differ; what is shown does not.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from docs.browser import browser, missing, serving
from docs.source import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SENTENCE = "The old dog that sees the children wants to help them because he is tired."


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the page in the README.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/figures")
    options = parser.parse_args()
    if reason := missing():
        sys.exit(f"docs.screenshots: {reason}")
    with serving(options.model) as address, browser() as chromium:
        for name, take in (("page", light), ("page-heads", dark), ("page-phone", phone)):
            picture = take(chromium, address)
            path = options.out / f"{name}.png"
            path.write_bytes(fewer_colours(picture))
            print(f"{path}: {path.stat().st_size / 1024:.0f} kB")


def light(chromium: Browser, address: str) -> bytes:
    """The translations, and what the verb of the translation looks at."""
    with translated(chromium, address, width=1120, scheme="light", scale=1.5) as page:
        choose(page, layer="2", head="Mean")
        hover(page, "will")
        bottom = page.locator("#lines").evaluate(
            "e => e.closest('figure').getBoundingClientRect().bottom"
        )
        return shot(page, 0, bottom + 24)


def dark(chromium: Browser, address: str) -> bytes:
    """What each head of the encoder makes of a pronoun, and the overview, in the dark."""
    with translated(chromium, address, width=1120, scheme="dark", scale=1.5) as page:
        choose(page, kind="Encoder self-attention", layer="2", head="All")
        hover(page, "that")
        top = page.locator("#attention-title").bounding_box()
        bottom = page.locator("#overview").bounding_box()
        assert top is not None
        assert bottom is not None
        return shot(page, top["y"] - 24, bottom["y"] + bottom["height"] + 24)


def phone(chromium: Browser, address: str) -> bytes:
    """One of these heads, at a phone's width."""
    with translated(chromium, address, width=360, scheme="light", scale=2) as page:
        choose(page, kind="Encoder self-attention", layer="2", head="1")
        hover(page, "that")
        box = page.locator(".telling").bounding_box()
        assert box is not None
        return shot(page, box["y"] - 12, box["y"] + 748)


@contextmanager
def translated(
    chromium: Browser, address: str, width: int, scheme: str, scale: float
) -> Iterator[Page]:
    """The page with a translation and its attention, as high as it is long."""
    context = chromium.new_context(
        viewport={"width": width, "height": 2600},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=scale,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(address)
    page.locator("#text").fill(SENTENCE)
    page.get_by_role("button", name="Translate").click()
    page.get_by_role("grid").wait_for()
    yield page
    context.close()


def choose(page: Page, **names: str) -> None:
    for group, name in names.items():
        page.locator(f"#{group}s").get_by_label(name, exact=True).check()


def hover(page: Page, word: str) -> None:
    page.locator("#lines .rows").get_by_text(word, exact=True).first.hover()


def shot(page: Page, top: float, bottom: float) -> bytes:
    """The page between two heights."""
    size = page.viewport_size
    assert size is not None
    return page.screenshot(clip={"x": 0, "y": top, "width": size["width"], "height": bottom - top})


def fewer_colours(png: bytes) -> bytes:
    """The same picture with a palette, which takes less than half the bytes."""
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        palette = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
        palette.save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
