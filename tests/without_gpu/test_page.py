"""The page about the stand-ins mentions each of them, its links exist, and its examples run."""

import re
from pathlib import Path

import pytest

from tests.without_gpu import emulator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = (HERE / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_files_that_are_mentioned_exist():
    linked = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE)
    named = re.findall(r"(?:tests|autograd|benchmarks)/[\w/]+\.py", PAGE)
    missing = [name for name in linked if not (HERE / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []
    assert len(linked) > 5
    assert len(named) > 10


def test_every_section_that_is_linked_exists():
    sections = {
        re.sub(r"[^\w ]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^## (.*)", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) == sections


def test_every_stand_in_is_mentioned():
    files = [path.name for path in HERE.iterdir() if path.suffix in (".py", ".h", ".cpp")]
    stand_ins = [name for name in files if not name.startswith(("test_", "__init__", "build"))]
    assert len(stand_ins) > 5
    assert [name for name in stand_ins if f"]({name})" not in PAGE] == []


@pytest.mark.skipif(
    emulator.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
)
@pytest.mark.parametrize("example", EXAMPLES, ids=["strict arrays", "emulator"])
def test_examples_run(example, capsys):
    exec(compile(example, "an example of README.md", "exec"), {})
    for expected in re.findall(r"print\(.*\)  # (implicit .*)", example):
        assert expected in capsys.readouterr().out
