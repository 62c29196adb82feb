"""The pictures of attention: what is chosen, what is followed, and that all show the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.page.answers import ATTENTION

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

# Alpha of each pixel of a picture: how much ink a weight gets.
INK = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  return Array.from({ length: height }, (_, row) =>
    Array.from({ length: width }, (_, column) => data[4 * (row * width + column) + 3]));
}"""
LEFT_EDGE = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(2, 0, 1, canvas.height);
  return Array.from({ length: canvas.height }, (_, row) => data[4 * row + 3]);
}"""
COLOUR = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let most = 3;
  for (let i = 3; i < data.length; i += 4) if (data[i] > data[most]) most = i;
  return [...data.subarray(most - 3, most)];
}"""


def ink(canvas: Locator) -> np.ndarray:
    return np.array(canvas.evaluate(INK)) / 255


def expected(weights: Any) -> np.ndarray:
    return np.asarray(weights) ** 0.65


def pieces_of(page: Page) -> None:
    page.get_by_label("Pieces").check()


def choose(page: Page, **names: str) -> None:
    """Choose by the words on the page: kind, layer, head."""
    for group, name in names.items():
        page.locator(f"#{group}s").get_by_label(name, exact=True).check()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("encoder", "Encoder self-attention"),
        ("decoder", "Decoder self-attention"),
        ("cross", "Cross-attention"),
    ],
)
def test_each_kind_layer_and_head_has_its_heat_map(known: Page, kind: str, name: str) -> None:
    pieces_of(known)
    choose(known, kind=name)
    for layer in (0, 1):
        for head in (0, 1, 2):
            choose(known, layer=str(layer + 1), head=str(head + 1))
            weights = ATTENTION[kind][layer][head]
            found = ink(known.locator("#heat-map canvas"))
            np.testing.assert_allclose(found, expected(weights), atol=0.005)
            assert known.locator("#title").inner_text() == f"Layer {layer + 1}, head {head + 1}"


def test_the_mean_of_heads_is_theirs(known: Page) -> None:
    pieces_of(known)
    choose(known, layer="2", head="Mean")
    weights = np.mean(ATTENTION["cross"][1], axis=0)
    found = ink(known.locator("#heat-map canvas"))
    np.testing.assert_allclose(found, expected(weights), atol=0.005)


def test_all_heads_are_stripes_of_a_cell(known: Page) -> None:
    pieces_of(known)
    choose(known, layer="2", head="All")
    stripes = np.stack(ATTENTION["cross"][1], axis=-1).reshape(6, 18)
    found = ink(known.locator("#heat-map canvas"))
    np.testing.assert_allclose(found, expected(stripes), atol=0.005)


def test_the_overview_has_every_layer_and_head_and_picks_one(known: Page) -> None:
    pieces_of(known)
    choose(known, kind="Encoder self-attention")
    cells = known.get_by_role("gridcell")
    assert cells.count() == 8
    for layer in (0, 1):
        for head in (0, 1, 2):
            cell = known.get_by_role("gridcell", name=f"Layer {layer + 1}, head {head + 1}")
            found = ink(cell.locator("canvas"))
            np.testing.assert_allclose(
                found, expected(ATTENTION["encoder"][layer][head]), atol=0.005
            )
    known.get_by_role("gridcell", name="Layer 2, head 3").click()
    assert known.locator("#title").inner_text() == "Layer 2, head 3"
    assert known.locator("#layers").get_by_label("2", exact=True).is_checked()
    assert known.locator("#heads").get_by_label("3", exact=True).is_checked()
    assert known.locator('[aria-selected="true"]').get_attribute("aria-label") == "Layer 2, head 3"
    choose(known, head="Mean")
    selected = known.locator('[aria-selected="true"]')
    assert selected.get_attribute("aria-label") == "Layer 2, mean of all heads"


def test_a_word_that_is_followed_shows_its_weights_and_the_others_fade(known: Page) -> None:
    choose(known, layer="1", head="2")
    word = known.locator("#lines .rows .word").nth(1)
    word.hover()
    # alte: 0.05 for each piece, and 0.7 more for the one after it, which is the first of "cat".
    assert known.locator("#caption").inner_text() == (
        "To write alte, the model looks at cat 80 %, The 5 %, old 5 %, . 5 %."
    )
    weights = known.locator("#lines .columns .weight").all_inner_texts()
    assert weights == ["5 %", "5 %", "80 %", "5 %", "5 %"]
    faint = known.locator("#lines .rows .word.faint .text").all_inner_texts()
    assert faint == ["Die", "Katze", ".", "end"]
    assert known.locator("#heat-map .rows .followed").inner_text() == "alte"
    assert known.locator("#heat-map .band.row").is_visible()
    known.mouse.move(0, 0)
    assert known.locator(".faint").count() == 0
    assert known.locator("#caption").inner_text().startswith("Which words of your sentence")


def test_a_word_that_is_looked_at_can_be_followed(known: Page) -> None:
    choose(known, layer="1", head="1")
    known.locator("#lines .columns .word").nth(0).hover()
    assert known.locator("#caption").inner_text() == (
        "The is looked at by Die 75 %, alte 5 %, Katze 5 %, . 5 %."
    )
    assert known.locator("#heat-map .columns .followed").inner_text() == "The"


def test_lines_are_drawn_between_words_with_weights(known: Page) -> None:
    pieces_of(known)
    choose(known, kind="Decoder self-attention", layer="1", head="1")
    weights = np.array(ATTENTION["decoder"][0][0])
    canvas = known.locator("#lines canvas.some")
    for row in range(6):
        known.locator("#lines .rows .word").nth(row).hover()
        found = np.array(canvas.evaluate(LEFT_EDGE))
        middles = [round((i + 0.5) * len(found) / 6) for i in range(6)]
        left = [found[y - 2 : y + 3].max() / 255 for y in middles]
        np.testing.assert_array_equal(np.array(left) > 0.05, weights[row] > 0.01)
    known.mouse.move(0, 0)
    assert not any(canvas.evaluate(LEFT_EDGE))
    assert any(known.locator("#lines canvas.all").evaluate(LEFT_EDGE))


def test_a_cell_under_the_pointer_is_told(known: Page) -> None:
    choose(known, layer="2", head="1")
    cells = known.get_by_role("application")
    box = cells.bounding_box()
    cells.hover(position={"x": box["width"] * 1.5 / 5, "y": box["height"] * 0.5 / 5})
    assert known.locator("#caption").inner_text() == "Die looks at old with 75 %."
    assert known.locator("#heat-map .cursor").is_visible()


def test_a_clicked_word_stays_followed_until_escape(known: Page) -> None:
    word = known.locator("#lines .rows .word").nth(2)
    word.click()
    known.mouse.move(0, 0)
    assert known.locator("#lines .followed .text").inner_text() == "Katze"
    choose(known, layer="2", head="3")
    assert known.locator("#caption").inner_text().startswith("To write Katze")
    known.keyboard.press("Escape")
    assert known.locator(".followed").count() == 0


def test_marks_stand_for_the_ends_of_a_sentence(known: Page) -> None:
    assert known.locator("#lines .mark .text").all_inner_texts() == ["end", "end"]
    choose(known, kind="Decoder self-attention")
    assert known.locator("#lines .columns .text").all_inner_texts() == [
        "start", "Die", "alte", "Katze", ".",
    ]  # fmt: skip


def test_the_attention_of_a_real_model_is_shown(page: Page) -> None:
    page.locator("#text").fill("A dog runs.")
    with page.expect_response("**/attention") as told:
        page.locator("#text").press("Control+Enter")
    page.get_by_role("grid").wait_for()
    pieces_of(page)
    choose(page, layer="2", head="4")
    answer = told.value.json()
    found = ink(page.locator("#heat-map canvas"))
    np.testing.assert_allclose(found, expected(answer["cross"][1][3]), atol=0.005)
    rows = page.locator("#lines .rows .text").all_inner_texts()
    assert len(rows) == len(answer["predicted"])


# In the dark


def colours(page: Page) -> tuple[str, list[int]]:
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    return background, page.locator("#heat-map canvas").evaluate(COLOUR)


def lightness(rgb: Any) -> float:
    return float(np.mean([int(part) for part in rgb]))


def test_the_reader_can_switch_to_the_dark_and_back(known: Page) -> None:
    switch = known.get_by_role("switch", name="Dark")
    assert switch.get_attribute("aria-checked") == "false"
    light, light_ink = colours(known)
    switch.click()
    dark, dark_ink = colours(known)
    assert switch.get_attribute("aria-checked") == "true"
    assert lightness(light[4:-1].split(",")) > 240
    assert lightness(dark[4:-1].split(",")) < 30
    assert lightness(dark_ink) > lightness(light_ink) + 50  # drawn anew, for that background
    known.reload()
    assert known.evaluate("document.documentElement.dataset.theme") == "dark"
    switch.click()
    assert known.evaluate("document.documentElement.dataset.theme") == "light"


class TestWhereTheSystemIsDark:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"color_scheme": "dark"}

    def test_so_is_the_page(self, known: Page) -> None:
        background, drawn = colours(known)
        assert lightness(background[4:-1].split(",")) < 30
        assert lightness(drawn) > 120
        assert known.get_by_role("switch").get_attribute("aria-checked") == "true"

    def test_it_follows_the_system(self, known: Page) -> None:
        known.emulate_media(color_scheme="light")
        background, drawn = colours(known)
        assert lightness(background[4:-1].split(",")) > 240
        assert lightness(drawn) < 120


CONTRAST = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) => {
      const part = v / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const probe = document.body.appendChild(document.createElement("i"));
  const of = (name) => {
    probe.style.color = `var(${name})`;
    return luminance(getComputedStyle(probe).color);
  };
  const pairs = [["--ink", "--paper"], ["--ink", "--card"], ["--soft", "--paper"],
    ["--soft", "--card"], ["--on-accent", "--accent"], ["--on-accent", "--ink-of-heads"],
    ["--warning", "--wash"], ["--warning", "--card"], ["--ink", "--marked"]];
  return pairs.map(([a, b]) => {
    const [x, y] = [of(a), of(b)];
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(page: Page, scheme: str) -> None:
    """At least 4.5 : 1, WCAG 2.2, 1.4.3."""
    page.emulate_media(color_scheme=scheme)
    assert min(page.evaluate(CONTRAST)) >= 4.5
