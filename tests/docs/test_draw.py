"""The figures in docs/figures/ are those that the code makes, and can be read."""

import itertools
import re
from xml.etree import ElementTree

import pytest

from docs import imports
from docs.draw import FIGURES, house, recorded
from docs.draw.svg import Drawing, width_of
from docs.source import ROOT

FOLDER = ROOT / "docs" / "figures"
SVG = "{http://www.w3.org/2000/svg}"
every_figure = pytest.mark.parametrize("name", FIGURES)


def test_there_are_no_others():
    assert {path.name for path in FOLDER.glob("*.svg")} == {f"{name}.svg" for name in FIGURES}


@every_figure
def test_a_figure_is_that_of_the_code(name):
    drawn = FIGURES[name]()
    assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == drawn, (
        "run `python -m docs.fill`"
    )


def extents(text):
    """Left, top, right and bottom of a text element, as wide as it may be."""
    width = width_of(text.text, text.get("class"))
    x = float(text.get("x")) - (width / 2 if text.get("text-anchor") == "middle" else 0)
    y = float(text.get("y"))
    return x, y - 9, x + width, y + 2.5


def apart(a, b):
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def within(a, b):
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


@every_figure
def test_no_text_is_covered_or_cut(name):
    root = ElementTree.parse(FOLDER / f"{name}.svg").getroot()
    page = (0.0, 0.0, float(root.get("width")), float(root.get("height")))
    texts = {text: extents(text) for text in root.iter(f"{SVG}text")}
    boxes = []
    for rectangle in root.iter(f"{SVG}rect"):
        if rectangle.get("class") != "page":
            x, y, width, height = (float(rectangle.get(k)) for k in ("x", "y", "width", "height"))
            boxes.append((x, y, x + width, y + height))
    assert len(texts) > 20
    assert len(boxes) > 10
    for text, place in texts.items():
        assert within(place, page), text.text
        for box in boxes:
            assert apart(place, box) or within(place, box), text.text
    for (text, place), (other, there) in itertools.combinations(texts.items(), 2):
        assert apart(place, there), f"{text.text} covers {other.text}"


@every_figure
def test_a_figure_has_a_text_for_those_who_cannot_see_it(name):
    root = ElementTree.parse(FOLDER / f"{name}.svg").getroot()
    assert len(root.find(f"{SVG}title").text) > 10
    assert len(root.find(f"{SVG}desc").text) > 50


def test_every_colour_has_one_for_dark_pages():
    style = re.search(r"<style>\n(.*)\n</style>", Drawing("", "").svg(1, 1), re.DOTALL)[1]
    light, dark = style.split("@media (prefers-color-scheme: dark) {")
    rules = re.compile(r"^\.(\S+) \{ (fill|stroke): (?:#|none)", re.MULTILINE)
    assert len(rules.findall(light)) > 10
    assert rules.findall(light) == rules.findall(dark)


def test_characters_with_a_meaning_in_svg_are_written_as_such():
    drawing = Drawing("a < b", "c & d")
    drawing.text(0, 0, "<e>", "note")
    root = ElementTree.fromstring(drawing.svg(10, 10))
    assert [root.find(f"{SVG}{tag}").text for tag in ("title", "desc", "text")] == [
        "a < b",
        "c & d",
        "<e>",
    ]


# The architecture and the way of a token id.


def test_a_shape_can_be_read_back_from_its_sizes():
    assert len(recorded.SIZES) == 9  # no two are equal
    config = recorded.CONFIG
    assert recorded.named((config.vocab_size, config.d_model)) == "[vocabulary, d_model]"
    assert recorded.named(()) == "a number"
    with pytest.raises(LookupError, match="a size of 1000 has no name"):
        recorded.named((config.d_model, 1000))


def test_another_model_has_another_architecture(monkeypatch):
    changed = recorded.TransformerConfig.from_dict({**recorded.CONFIG.to_dict(), "layers": 2})
    before = FIGURES["architecture"]()
    monkeypatch.setattr(recorded, "CONFIG", changed)
    after = FIGURES["architecture"]()
    assert "encoder.1.self_attention" not in before
    assert "encoder.1.self_attention" in after


def test_an_operation_that_the_figure_does_not_know_is_an_error(monkeypatch):
    changed = recorded.TransformerConfig.from_dict({**recorded.CONFIG.to_dict(), "norm": "pre"})
    monkeypatch.setattr(recorded, "CONFIG", changed)
    with pytest.raises(LookupError, match="layer_norm has no formula"):
        FIGURES["architecture"]()


# The house.


def test_every_module_stands_in_the_house():
    modules = {
        module.rpartition(".")[2]
        for module, file in imports.modules_in(ROOT).items()
        if file.name != "__init__.py"
    }
    assert {name for names in house.grouped().values() for name in names} == modules


def of_files(folder, monkeypatch, files, groups):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(house, "ROOT", folder)
    monkeypatch.setattr(house, "GROUPS", groups)


FILES = {
    "autograd/__init__.py": "from autograd.a import x",
    "autograd/a.py": "",
    "npformer/b.py": "from autograd import a",
    "train/c.py": "import npformer.b\nfrom autograd import x\ndef f():\n    import train.d",
    "train/d.py": "import train.c",
}
GROUPS = {
    "autograd": {"A": "autograd"},
    "npformer": {"B": "b"},
    "train": {"C": "c", "D": "d"},
}


def test_an_arrow_that_follows_from_others_is_left_out(tmp_path, monkeypatch):
    of_files(tmp_path, monkeypatch, FILES, GROUPS)
    groups = house.grouped()
    assert groups == {"A": ["a"], "B": ["b"], "C": ["c"], "D": ["d"]}
    assert house.arrows(groups) == {"A": set(), "B": {"A"}, "C": {"B"}, "D": {"C"}}


def test_a_module_without_a_group_is_an_error(tmp_path, monkeypatch):
    of_files(tmp_path, monkeypatch, FILES | {"train/e.py": ""}, GROUPS)
    with pytest.raises(LookupError, match=r"train\.e needs a group"):
        house.grouped()


def test_a_group_of_a_module_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    of_files(tmp_path, monkeypatch, FILES, GROUPS | {"npformer": {"B": "b e"}})
    with pytest.raises(LookupError, match=r"there is no module npformer\.e"):
        house.grouped()


def test_groups_in_a_circle_are_an_error(tmp_path, monkeypatch):
    of_files(tmp_path, monkeypatch, FILES | {"train/c.py": "import train.d"}, GROUPS)
    with pytest.raises(LookupError, match="circle"):
        house.arrows(house.grouped())
