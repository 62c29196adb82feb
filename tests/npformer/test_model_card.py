"""Model cards: front matter that is YAML, Markdown that stays whole, and files left to users."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from npformer import Tokenizer, TokenizerPair, Transformer, TransformerConfig, Translator, UserError
from npformer.checkpoint import parameter_arrays
from npformer.model_card import (
    CARD,
    LANGUAGE,
    LICENSE,
    ModelCard,
    code,
    is_own,
    languages_and_license,
    table,
    write_card,
)
from npformer.model_directory import write_model

BOTH = Tokenizer.train(["a b", "b a b"], 263)
CONFIG = TransformerConfig(vocab_size=BOTH.vocab_size, layers=1, d_model=8, d_ff=6, heads=2)
MODEL = parameter_arrays(Transformer(CONFIG, seed=3))


def front_matter(text: str) -> dict[str, object]:
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head)


@given(
    st.lists(st.from_regex(LANGUAGE, fullmatch=True)),
    st.none() | st.from_regex(LICENSE, fullmatch=True),
)
def test_the_front_matter_says_in_yaml_what_was_given(
    languages: list[str], license: str | None
) -> None:
    found = front_matter(ModelCard("", languages=languages, license=license).text(CONFIG, 1))
    assert found.get("language", []) == list(dict.fromkeys(languages))
    assert found.get("license") == license
    assert found["pipeline_tag"] == "translation"
    assert found["library_name"] == "npformer"


@pytest.mark.parametrize("language", ["no", "de"])
def test_norwegian_is_a_language_and_not_false(language: str) -> None:
    text = ModelCard("", language, language).text(CONFIG, 1)
    assert front_matter(text)["language"] == [language]


@given(st.text(st.characters(codec=None)))
def test_any_text_stays_code_in_a_line(text: str) -> None:
    [paragraph] = MarkdownIt().parse(f"a {code(text)} b")[1:-1]
    assert paragraph.children is not None
    kinds = [child.type for child in paragraph.children]
    if text.strip():
        assert kinds == ["text", "code_inline", "text"]
        shown = paragraph.children[1].content
        assert shown.strip() == "".join(c if c.isprintable() else "\ufffd" for c in text).strip()
    code(text).encode()  # lone surrogates, as names of files have them, are replaced


def test_a_table_is_a_table() -> None:
    rows = [("heads", 8), ("vocab_size", 37_000), ("dropout", 0.1), ("bias", True)]
    html = MarkdownIt().enable("table").render(table(("setting", "value"), rows))
    assert html.count("<tr>") == 5
    assert all(f"<td>{value}</td>" in html for value in ("8", "37,000", "0.1", "yes"))


def test_a_card_is_written_again_until_somebody_changes_it(tmp_path: Path) -> None:
    assert write_card(tmp_path, ModelCard("One.").text(CONFIG, 1))
    os.chmod(tmp_path / CARD, 0o444)
    assert write_card(tmp_path, ModelCard("Two.").text(CONFIG, 1))
    path = tmp_path / CARD
    assert "Two." in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    text = path.read_text()
    for changed in (
        text.replace("Two.", "Mine."),
        text + "\n",
        text[:-1],
        text.rpartition("<!--")[0],
        text.replace("\n", "\r\n"),
        "# Mine\n",
        "",
    ):
        os.chmod(path, 0o644)
        path.write_bytes(changed.encode())
        assert not is_own(path)
        assert not write_card(tmp_path, ModelCard("Three.").text(CONFIG, 1))
        assert path.read_bytes() == changed.encode()


def a_link(path: Path) -> None:
    write_card(path.parent / "elsewhere", ModelCard("Mine.").text(CONFIG, 1))
    path.symlink_to("elsewhere/README.md")


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("put", [Path.mkdir, a_link, a_link_to_nothing, a_pipe])
def test_what_is_no_plain_file_is_left_alone(tmp_path: Path, put: object) -> None:
    (tmp_path / "elsewhere").mkdir()
    put(tmp_path / CARD)  # type: ignore[operator]
    before = os.lstat(tmp_path / CARD)
    assert not write_card(tmp_path, ModelCard("Ours.").text(CONFIG, 1))
    assert os.lstat(tmp_path / CARD) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [CARD, "elsewhere"]


def write(out: Path, origin: str) -> None:
    write_model(out, CONFIG, MODEL, TokenizerPair(BOTH, BOTH), ModelCard(origin))


def test_a_model_is_replaced_with_its_card(tmp_path: Path) -> None:
    write(tmp_path / "model", "One.")
    write(tmp_path / "model", "Two.")
    text = (tmp_path / "model" / CARD).read_text()
    assert "Two." in text
    assert f"{sum(np.size(a) for a in MODEL.values()):,} parameters" in text
    Translator.load(tmp_path / "model")


def test_a_card_of_the_users_survives_the_replacement_of_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "model"
    write(out, "One.")
    assert not caplog.records
    (out / CARD).write_text("# Mine\n")
    write(out, "Two.")
    assert (out / CARD).read_text() == "# Mine\n"
    [record] = caplog.records
    assert f"{out / CARD} is not as npformer wrote it, and is kept" in record.getMessage()
    Translator.load(out)


@pytest.mark.parametrize("put", [Path.mkdir, a_link])
def test_a_model_with_something_else_in_place_of_the_card_is_not_replaced(
    tmp_path: Path, put: object
) -> None:
    out = tmp_path / "model"
    write(out, "One.")
    (out / CARD).unlink()
    (out / "elsewhere").mkdir()
    put(out / CARD)  # type: ignore[operator]
    with pytest.raises(UserError, match=r"more than a model: 'README\.md'; give another"):
        write(out, "Two.")


@pytest.mark.parametrize(
    ("head", "languages", "license"),
    [
        (
            "language:\n- en\n- de\ntags:\n- translation\n\nlicense: apache-2.0\n",
            "en de",
            "apache-2.0",
        ),
        ("license: 'cc-by-4.0' # as the data\nlanguage: [\"en\", no]\n", "en no", "cc-by-4.0"),
        ("language: fi\nlicense:\n  - mit\n", "fi", "mit"),
        ("license: [mit, apache-2.0]\n", "", None),
        ("license: see the file LICENSE\nlanguage: English\n", "", None),
        ("model-index:\n- license: mit\n  language:\n  - en\n", "", None),
        ("other:\n  license: mit\n", "", None),
        ("license: |\n  mit\n", "", None),
        ("", "", None),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_a_card_of_another_program_says_is_read(
    tmp_path: Path, head: str, languages: str, license: str | None, end: str
) -> None:
    text = f"---\n{head}---\n\n### opus-mt\n\nlicense: gpl\n".replace("\n", end)
    (tmp_path / CARD).write_bytes(text.encode())
    assert languages_and_license(tmp_path) == (tuple(languages.split()), license)


@pytest.mark.parametrize(
    "content", [b"", b"# A model\n", b"---\nlicense: mit\n", b"\xff---\nlicense: mit\n---\n"]
)
def test_a_card_without_front_matter_says_nothing(tmp_path: Path, content: bytes) -> None:
    assert languages_and_license(tmp_path) == ((), None)
    (tmp_path / CARD).write_bytes(content)
    assert languages_and_license(tmp_path) == ((), None)


@given(st.text())
def test_no_front_matter_is_an_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    directory = tmp_path_factory.getbasetemp()
    (directory / CARD).write_text(f"---\n{text}\n---\n", encoding="utf-8", newline="")
    languages, license = languages_and_license(directory)
    assert all(LANGUAGE.fullmatch(language) for language in languages)
    assert license is None or LICENSE.fullmatch(license)
