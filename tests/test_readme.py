"""What README and the docstrings show works as it stands there."""

import configparser
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autograd
from autograd import check_gradients
from benchmarks import table
from train.__main__ import _underscored, build_parser
from train.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def words_of(line: str) -> list[str]:
    """The words of a shell line after `npformer`, up to a redirection or a comment."""
    words = shlex.split(line, comments=True)[1:]
    return words[: next((i for i, word in enumerate(words) if word in "<>|"), len(words))]


SELF_CONTAINED = [block for block in blocks("python") if "Translator.load" not in block]
COMMAND_LINES = [
    line for block in blocks("sh") for line in block.split("\n") if line.startswith("npformer ")
]


@pytest.mark.parametrize("code", SELF_CONTAINED, ids=lambda code: code.split("\n")[-2])
def test_a_python_block_runs(code: str) -> None:
    """With a small model for the base one, whose 60 million parameters take their time."""
    found: dict[str, Any] = {}
    exec(compile(code.replace('preset("base"', 'preset("tiny"'), "README.md", "exec"), found)
    parameters = [v for v in found.values() if isinstance(v, autograd.Parameter)]
    if "model" in found:
        parameters += found["model"].parameters().values()
    assert parameters
    assert all(np.isfinite(p.grad).all() for p in parameters)


@pytest.mark.parametrize("code", blocks("python"))
def test_a_python_block_is_python(code: str) -> None:
    compile(code, "README.md", "exec")


def test_the_readme_has_blocks_of_each_kind() -> None:
    assert len(SELF_CONTAINED) >= 2
    assert len(COMMAND_LINES) >= len(COMMANDS)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_line_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where its configuration files are
    words = words_of(line)
    assert build_parser().parse_args(_underscored(words)).subcommand in (*COMMANDS, None)


def test_every_command_is_shown() -> None:
    shown = {words_of(line)[0] for line in COMMAND_LINES}
    assert shown == set(COMMANDS)


def test_the_setting_that_is_given_as_a_flag_is_one() -> None:
    [flag] = re.findall(r"`(--model\.[^`]*)`", README)
    options = build_parser().parse_args(["train", "--data=d", "--out=o", *flag.split()])
    assert options.train.model.d_model == 256


def test_every_file_that_is_mentioned_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    names = re.findall(r"(?<![\w./:-])[\w./-]+\.(?:py|yaml|md|cfg|toml)\b", README)
    assert "npformer/config.py" in names
    for name in {*links, *names}:
        among_tests = "/" not in name and any(ROOT.glob(f"tests/**/{name}"))
        assert among_tests or (ROOT / name).exists(), name


def test_every_make_target_that_is_mentioned_exists() -> None:
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    mentioned = re.findall(r"^make ([a-z]+)", README, re.MULTILINE)
    assert mentioned
    assert set(mentioned) <= set(rules)


def test_every_extra_that_is_mentioned_exists() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    known = setup["options.extras_require"]
    mentioned = re.findall(r"pip install '\.\[([\w,]+)\]'", README)
    assert mentioned
    assert {extra for extras in mentioned for extra in extras.split(",")} <= set(known)


def test_the_example_of_the_engine_says_what_it_gives() -> None:
    example = inspect.getdoc(autograd).split("\n\n", 1)[1]
    found: dict[str, Any] = {}
    exec(example, found)
    promised = re.search(r"# (array\(.*\))$", example)[1]
    np.testing.assert_array_equal(found["w"].grad, eval(promised, {"array": np.array}))


def test_the_example_of_the_checker_passes() -> None:
    [example] = re.findall(r"^ *(check_gradients\(.*\))$", check_gradients.__doc__, re.MULTILINE)
    exec(example, {"check_gradients": check_gradients, "np": np})


def tables_of(text: str) -> list[str]:
    """Tables in Markdown, one after another."""
    return re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)


@pytest.mark.parametrize("name", table.DOCUMENTS)
def test_the_tables_say_what_was_measured(name: str) -> None:
    for table_of in table.DOCUMENTS[name]:
        lines = table_of()
        assert len(lines) > 2
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "\n".join(lines) in text, f"paste what `python -m benchmarks.table {name}` prints"


def test_the_readme_has_no_other_tables(capsys: pytest.CaptureFixture[str]) -> None:
    table.main([])
    assert tables_of(README) == tables_of(capsys.readouterr().out)


def test_every_result_of_a_speed_is_in_a_table() -> None:
    """A file that no table takes would be a figure that nobody sees."""
    printed = "\n".join("\n".join(t()) for tables in table.DOCUMENTS.values() for t in tables)
    for backend in ("numpy", "cupy"):
        for results in table.load(backend).values():
            for result in results:
                for ratio in result.get("speedup", {}).values():
                    assert f"| {ratio:.2f} (" in printed, result
