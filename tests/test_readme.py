"""What README, docs/benchmarks.md and the docstrings show works as it stands there."""

import configparser
import inspect
import re
import shlex
from typing import Any

import numpy as np
import pytest

import autograd
from autograd import check_gradients
from benchmarks import table
from tests.pages import ROOT, blocks, lines_of, text_of
from train.cli.commands import COMMANDS
from train.cli.parser import build_parser
from train.cli.words import underscored

README = text_of("README.md")
BENCHMARKS = text_of("docs/benchmarks.md")
both = pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md"])


def words_of(line: str) -> list[str]:
    """The words of a shell line after `npformer`, up to a redirection or a comment."""
    words = shlex.split(line, comments=True)[1:]
    return words[: next((i for i, word in enumerate(words) if word in "<>|"), len(words))]


SELF_CONTAINED = [block for block in blocks("python", README) if "Translator.load" not in block]
COMMAND_LINES = lines_of("npformer", README)
BENCHMARK_LINES = lines_of("python -m", BENCHMARKS)


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


@pytest.mark.parametrize("code", blocks("python", README))
def test_a_python_block_is_python(code: str) -> None:
    compile(code, "README.md", "exec")


def test_the_readme_has_blocks_of_each_kind() -> None:
    assert len(SELF_CONTAINED) >= 2
    assert len(COMMAND_LINES) >= len(COMMANDS)


@pytest.mark.parametrize("line", COMMAND_LINES + lines_of("npformer", BENCHMARKS))
def test_a_command_line_is_understood(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where its configuration files are
    words = words_of(line)
    assert build_parser(words[0] if words else "").parse_args(underscored(words)).subcommand in (
        *COMMANDS,
        None,
    )


def test_every_command_is_shown() -> None:
    shown = {words_of(line)[0] for line in COMMAND_LINES}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("line", BENCHMARK_LINES)
def test_a_benchmark_is_there_and_has_the_flags(line: str) -> None:
    _, _, module, *words = shlex.split(line, comments=True)
    source = text_of(f"{module.replace('.', '/')}.py")
    if "add_options(" in source:
        source += text_of("benchmarks/gpu_recipe.py")
    for flag in (word for word in words if word.startswith("--")):
        assert f'"{flag}"' in source, flag
    for file in (word for word in words if word.endswith((".md", ".yaml"))):
        assert (ROOT / file).exists(), file


def test_each_benchmark_with_a_result_is_shown() -> None:
    results = [result for found in table.load("numpy").values() for result in found]
    results += [result for found in table.load("cupy").values() for result in found]
    measured = {result["benchmark"] for result in results}
    shown = {shlex.split(line)[2].removeprefix("benchmarks.") for line in BENCHMARK_LINES}
    elsewhere = "".join(map(text_of, ("docs/gpu.md", "docs/scaling.md", "docs/serving.md")))
    assert "training_step" in measured & shown
    for name in measured - shown:
        assert f"`{name} --" in elsewhere or f"-m benchmarks.{name} --" in elsewhere, name


def test_the_setting_that_is_given_as_a_flag_is_one() -> None:
    [flag] = re.findall(r"`(--model\.[^`]*)`", README)
    options = build_parser().parse_args(["train", "--data=d", "--out=o", *flag.split()])
    assert options.train.model.d_model == 256


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md", "docs/performance.md"])
def test_every_file_that_is_mentioned_exists(name: str) -> None:
    text = text_of(name)
    links = re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text)
    names = re.findall(r"(?<![\w./:-])[\w./-]+\.(?:py|yaml|md|cfg|toml)\b", text)
    assert name != "README.md" or "npformer/config.py" in names
    for mentioned in {*links, *names}:
        among_tests = "/" not in mentioned and any(ROOT.glob(f"tests/**/{mentioned}"))
        beside = ((ROOT / name).parent / mentioned).exists()
        assert among_tests or beside or (ROOT / mentioned).exists(), mentioned


@pytest.mark.parametrize("name", ["README.md", "docs/benchmarks.md", "docs/performance.md"])
def test_every_link_to_a_section_leads_to_one(name: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", text_of(name))
    assert links or name != "README.md"
    for file, anchor in links:
        target = (ROOT / name).parent / file if file else ROOT / name
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@both
def test_every_make_target_that_is_mentioned_exists(name: str) -> None:
    rules = re.findall(r"^([a-z/ ]+):", text_of("Makefile"), re.MULTILINE)
    mentioned = re.findall(r"^make ([a-z/]+)", text_of(name), re.MULTILINE)
    assert mentioned
    assert set(mentioned) <= set(" ".join(rules).split())


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
