"""What docs/translating.md shows runs, and it has every option of the search."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.npformer.test_translator import make_translator, save
from tests.pages import blocks, lines_of, text_of
from train.__main__ import main
from train.cli.parser import build_parser
from train.cli.words import underscored

PAGE = text_of("docs/translating.md")
LINES = ["A dog runs.", "", "Two girls sing in the garden."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translating")
    for name, changes in (("model", {}), ("another", {"d_ff": 20})):
        made = make_translator(longest=25, **changes)
        save(folder / name, made.model, made.tokenizers)
    for name in ("source", "reference"):
        (folder / f"{name}.txt").write_text("\n".join(LINES) + "\n")
    (folder / "begun.txt").write_text("Yes.\n\nTwo\n")
    text = [f"--source={folder}/source.txt", f"--target={folder}/reference.txt"]
    assert main(["shortlist", f"--model={folder}/model", *text]) == 0
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", lines_of("npformer", PAGE))
def test_a_command_runs(line: str, capfdbinary: Any) -> None:
    words = shlex.split(line)[1:]
    assert main(words) == 0
    assert capfdbinary.readouterr().out.count(b"\n") >= 2 or words[0] == "shortlist"


@pytest.mark.usefixtures("here")
def test_the_python_blocks_run_one_after_another(capfd: Any) -> None:
    found: dict[str, Any] = {}
    for code in blocks("python", PAGE):
        exec(compile(code, "docs/translating.md", "exec"), found)
    assert len(found["found"].alignment) == len(found["found"].text.split())
    assert capfd.readouterr().out.count("\n") >= 4


def test_every_flag_of_translate_is_on_the_page() -> None:
    commands = build_parser()._subcommands_action._name_parser_map
    flags = {
        flag
        for action in commands["translate"]._actions
        for flag in action.option_strings
        if flag.startswith("--") and flag != "--help"
    }
    shown = {word.replace("-", "_") for word in PAGE.replace("`", " ").split()}
    missing = {flag for flag in flags if flag.replace("-", "_") not in shown}
    assert not missing


@pytest.mark.usefixtures("here")
def test_the_commands_for_other_programs_run_or_are_understood() -> None:
    for line in lines_of("npformer", text_of("docs/importing.md")):
        words = shlex.split(line)[1:]
        if words[0] == "export":
            assert main(words) == 0
        else:
            build_parser().parse_args(underscored(words))
