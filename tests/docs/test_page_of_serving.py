"""What docs/serving.md shows runs, and it has every limit, route and metric."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields

import pytest

from npformer.service.limits import Limits
from tests.npformer.test_translator import make_translator, save
from tests.pages import lines_of, text_of
from tests.service.running import Service, running
from train.cli.parser import build_parser
from train.cli.words import underscored

PAGE = text_of("docs/serving.md")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = make_translator()
    directory = save(tmp_path_factory.mktemp("serving") / "model", made.model, made.tokenizers)
    with running(made, directory) as found:
        yield found


@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples call curl")
@pytest.mark.parametrize("line", lines_of("curl", PAGE))
def test_an_example_is_answered(line: str, service: Service) -> None:
    words = shlex.split(line.replace("localhost:8000", f"localhost:{service.port}"))
    ran = subprocess.run([*words, "--fail-with-body"], capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout
    if "/metrics" in line:
        assert b"npformer_requests_total" in ran.stdout
    else:
        answer = json.loads(ran.stdout.splitlines()[-1])
        assert "error" not in answer


@pytest.mark.parametrize("line", lines_of("npformer", PAGE))
def test_a_command_line_is_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    assert build_parser().parse_args(underscored(words)).subcommand == words[0]


def test_the_table_has_every_limit_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", PAGE, re.MULTILINE)
    assert {name: float(value.replace(",", "")) for name, value in rows} == {
        limit.name: limit.default for limit in fields(Limits)
    }


def test_every_flag_of_serve_is_on_the_page() -> None:
    commands = build_parser()._subcommands_action._name_parser_map
    of_model = {"--model", "--ensemble", "--ensemble_weights", "--weights"}
    of_model |= {"--backend", "--precision", "--help"}
    for action in commands["serve"]._actions:
        for flag in action.option_strings:
            if flag.startswith("--") and flag not in of_model and "--limit_" not in flag:
                assert flag.replace("_", "-") in PAGE, flag


def test_every_route_and_metric_is_on_the_page(service: Service) -> None:
    for path in service.get("/openapi.json").json()["paths"]:
        assert path in PAGE or path == "/static/{name}", path
    told = service.get("/metrics").body.decode()
    for name in re.findall(r"^# TYPE (\w+) ", told, re.MULTILINE):
        assert f"`{name}`" in PAGE or name.endswith("_created"), name
