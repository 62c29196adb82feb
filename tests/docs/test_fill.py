"""The pages in docs/ say what their sources say, and read on GitHub as they are meant."""

import ast
import inspect
import re
import sys

import numpy as np
import pytest

from autograd import ops
from autograd.operation import Op
from docs.fill import fill
from docs.gradients_table import gradients_table
from docs.source import ROOT, find

PAGES = sorted((ROOT / "docs").glob("*.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@every_page
def test_a_page_is_filled_in(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text) == text, "run `python -m docs.fill`"


def block(mark, content=""):
    return f"before\n\n<!-- {mark} -->\n{content}<!-- end -->\n\nafter\n"


def test_code_is_that_of_the_symbol():
    filled = fill(block("code: autograd.ops.softmax.vjp", "what was there\n"))
    assert filled.startswith("before\n\n<!-- code: autograd.ops.softmax.vjp -->\n[`autograd/ops/")
    assert filled.endswith("\n```\n<!-- end -->\n\nafter\n")
    assert "what was there" not in filled
    assert "```python\ndef vjp(dy: Array) -> Array:\n    return y * (dy - " in filled
    assert fill(filled) == filled


def test_code_is_shown_in_parts():
    whole = fill(block("code: autograd.ops.layer_norm"))
    assert "@op\ndef layer_norm(" in whole
    assert '"""' in whole
    without = fill(block("code: autograd.ops.layer_norm without docstring"))
    assert re.search(r"@op\ndef layer_norm\(\n.*\n\).*:\n    xp = ", without)
    body = fill(block("code: autograd.ops.layer_norm body"))
    assert "```python\nxp = " in body


def test_a_link_with_a_symbol_leads_to_its_lines():
    filled = fill('see [here](x "autograd.ops.softmax") and [there](y "a title")')
    source = find("autograd.ops.softmax")
    assert filled == f'see [here]({source.link} "autograd.ops.softmax") and [there](y "a title")'
    lines = (ROOT / source.path).read_text(encoding="utf-8").split("\n")
    assert lines[source.first - 1] == "@op"
    assert lines[source.last - 1] == "    return y, vjp"


def test_a_symbol_may_be_a_class_a_method_or_a_value():
    assert find("autograd.Tape").text().startswith("class Tape")
    assert find("autograd.DropoutSite.scale").text().startswith("@property\ndef scale(")
    assert find("npformer.TransformerConfig.d_model").text().startswith("d_model: int")
    assert find("autograd.backend.Array").text().startswith("Array = ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (block("cod: autograd.ops.softmax"), "there is no filler cod"),
        (block("code: autograd.ops.softest"), "autograd.ops.softest: there is no softest in"),
        (block("code: autograd.ops.softmax.jvp"), "there is no jvp in"),
        (block("code: autograd.ops"), "is a module"),
        (block("code: autogrod.ops"), "no module of that name"),
        (block("code: autograd.ops.softmax backwards"), "'backwards' is not a part of code"),
        (block("example: sandmax"), "there is no example sandmax"),
        (block("gradients: autograd.ops sandmax=x"), "no operation sandmax"),
        ("<!-- code: autograd.ops.softmax -->\n", "a mark has no end"),
        ("<!-- end -->\n", "an end no mark"),
        ("<!-- code: autograd.ops.exp -->\n" + block("code: autograd.ops.exp"), "has no end"),
    ],
)
def test_a_mark_that_names_nothing_is_an_error(text, message):
    with pytest.raises(LookupError, match=message):
        fill(text)


def test_the_table_has_every_operation_with_its_own_lines():
    table = gradients_table("autograd.ops", {"matmul": "product"})
    rows = dict(re.findall(r"^\| \[`(\w+)`\]\(\S+\) \| (.*) \|$", table, re.MULTILINE))
    assert {name for name in ops.__all__ if isinstance(getattr(ops, name), Op)} <= rows.keys()
    assert rows["multiply"] == "`x * y` | `dz * y, dz * x`"
    assert rows["exp"] == "`y = xp.exp(x)` | `dy * y`"
    assert rows["reshape"] == "`x.reshape(shape)` | `dy.reshape(x.shape)`"
    assert rows["take"].endswith("`dx = xp.zeros(x.shape, x.dtype); xp.add.at(dx, index, dy)`")
    assert rows["matmul"].endswith("[derived above](#product)")
    assert all(text.strip() for text in rows.values())


SETTINGS = {
    "axes": (1, 0),
    "axis": 1,
    "condition": np.array([[True, False], [False, True]]),
    "dtype": np.float32,
    "index": np.array([1, 1, 0]),
    "max": 1.0,
    "min": 0.5,
    "shape": (4,),
}
ROW = re.compile(r"^\| \[`(\w+)`\]\(\S+\) \| `(.*)` \| `(.*)` \|$", re.MULTILINE)
CELLS = {
    name: (value.replace("\\|", "|"), gradient.replace("\\|", "|"))
    for name, value, gradient in ROW.findall((ROOT / "docs" / "gradients.md").read_text("utf-8"))
}
MORE_THAN_A_LINE = {"max", "min", "power", "split"}  # a helper makes the gradient, or a loop


def result(code, names):
    """The value of a cell of the table: its last expression, or what was assigned last."""
    *statements, last = ast.parse(code).body
    for statement in statements:
        exec(ast.unparse(statement), names)
    if isinstance(last, ast.Expr):
        value = eval(ast.unparse(last), names)
        return names["dx"] if value is None else value
    exec(ast.unparse(last), names)
    return names[ast.unparse(getattr(last, "target", None) or last.targets[0])]


@pytest.mark.parametrize("name", sorted(CELLS.keys() - MORE_THAN_A_LINE))
def test_a_row_of_the_table_computes_what_the_operation_does(name):
    operation = getattr(ops, name)
    parameters = inspect.signature(operation.reference).parameters.values()
    settings = {
        p.name: SETTINGS[p.name]
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.name in SETTINGS
    }
    arrays = np.array([[0.2, 1.3], [0.7, 2.0]]), np.array([[0.9, 0.4], [0.7, 1.1]])
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if positional[0].kind is inspect.Parameter.VAR_POSITIONAL:
        arguments = {positional[0].name: arrays}
    else:
        arrays = arrays[: len(positional)]
        arguments = {p.name: x for p, x in zip(positional, arrays, strict=True)}
    value, vjp = operation.reference(*arrays, **settings)
    dy = np.cos(np.arange(value.size, dtype=value.dtype)).reshape(value.shape)

    names = vars(sys.modules[operation.reference.__module__]).copy()
    names.update({p.name: p.default for p in parameters if p.default is not p.empty})
    names.update(settings, **arguments, xp=np)
    of_value, of_gradient = CELLS[name]
    np.testing.assert_array_equal(result(of_value, names), value)
    gradient = result(of_gradient, names | {"dy": dy.copy(), "dz": dy.copy()})
    np.testing.assert_array_equal(gradient, vjp(dy.copy()))


def test_most_rows_are_run():
    assert len(CELLS.keys() - MORE_THAN_A_LINE) >= 30


def anchors(text):
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@every_page
def test_links_within_a_page_lead_to_a_heading(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors(text)


@every_page
def test_links_to_a_part_of_another_page_lead_to_a_heading(page):
    text = page.read_text(encoding="utf-8")
    for name, anchor in re.findall(r"\]\(([\w./]+\.md)#([^)]*)\)", text):
        assert anchor in anchors((page.parent / name).read_text(encoding="utf-8")), (
            f"{name}#{anchor}"
        )


@every_page
def test_links_to_files_lead_to_one(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\]\((?!http|#)([^)#\s]+)", text):
        assert (page.parent / name).exists(), name


DERIVED = [page for page in PAGES if "$$" in page.read_text(encoding="utf-8")]
every_page_with_mathematics = pytest.mark.parametrize("page", DERIVED, ids=lambda page: page.name)


def test_the_pages_with_mathematics_are_found():
    assert {"gradients.md", "tour.md"} <= {page.name for page in DERIVED}


@every_page_with_mathematics
def test_mathematics_is_left_alone_by_markdown(page):
    """Markdown takes away a backslash before punctuation, and makes lists and emphasis."""
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    displayed = re.findall(r"^\$\$(.*?)\$\$$", prose, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^\$\$.*?\$\$$", "", prose, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"(?<![\w$])\$(\S(?:[^$\n]*\S)?)\$(?![\w$])", rest)
    assert displayed
    assert inline
    assert "$" not in re.sub(r"(?<![\w$])\$(\S(?:[^$\n]*\S)?)\$(?![\w$])", "", rest)
    for formula in [*displayed, *inline]:
        assert not re.search(r"\\[^A-Za-z]|[}\)]_|[*<>|]|_\s|\n\s*([-+=#\d]|$)", formula), formula
        assert formula.count("{") == formula.count("}"), formula
        assert formula.count("\\left") == formula.count("\\right"), formula


@every_page_with_mathematics
def test_names_in_the_text_are_those_of_the_code(page):
    """A name that was changed in the code would otherwise stay in the text."""
    text = page.read_text(encoding="utf-8")
    filled = re.compile(r"^<!-- \w+: [^<>]*-->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
    known = set(re.findall(r"\w+", " ".join(filled.findall(text))))
    prose = filled.sub("", text)
    quoted = [q for q in re.findall(r"`([^`\n]+)`", prose) if "/" not in q and "python" not in q]
    for symbol in re.findall(r'"([\w.]+)"\)', prose):
        known.update(re.findall(r"\w+", f"{symbol} {find(symbol).text()}"))
    for quote in quoted:
        assert set(re.findall(r"\w+", quote)) <= known, quote


@every_page
def test_a_link_is_called_what_it_leads_to(page):
    text = page.read_text(encoding="utf-8")
    for label, symbol in re.findall(r'\[([^\[\]]+)\]\([^()\s]* "([\w.]+)"\)', text):
        *_, name = symbol.split(".")
        if label.startswith("`"):
            assert symbol.endswith(f".{label.strip('`')}"), label
        else:
            assert f" {label}".endswith(f" {name.removeprefix('test_').replace('_', ' ')}"), label
