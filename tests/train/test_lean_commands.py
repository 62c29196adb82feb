"""A command loads what it needs, and not what others need: whoever translates, waits for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from train.cli.commands import COMMANDS
from train.cli.parser import build_parser

NEEDLESS = {
    "translate": "numba sacrebleu rich multiprocessing matplotlib train.settings autograd.cuda.gpu",
    "prepare": "numba matplotlib train.trainer",
    "status": "numba matplotlib",
}


@pytest.mark.parametrize("command", NEEDLESS)
def test_what_others_need_is_not_loaded(command: str) -> None:
    code = (
        "import sys; import train.__main__; from train.cli.parser import build_parser; "
        f"build_parser({command!r}); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert f"train.cli.commands.{COMMANDS[command].module}" in loaded
    assert loaded.isdisjoint(NEEDLESS[command].split())


def test_the_parser_of_one_command_names_all() -> None:
    text = build_parser("status").format_help()
    assert all(f" {name} " in text for name in COMMANDS)
