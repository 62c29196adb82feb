"""One model and one service for the tests that leave it as it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

for needed in ("starlette", "uvicorn", "h11", "prometheus_client"):
    pytest.importorskip(needed, reason="the service needs the extra serve")

from npformer import Translator
from npformer.service.languages import Languages
from tests.npformer.test_translator import make_translator, save
from tests.service.running import Service, running


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_translator()
    return save(tmp_path_factory.mktemp("service") / "model", made.model, made.tokenizers)


@pytest.fixture(scope="session")
def translator(directory: Path) -> Translator:
    return Translator.load(directory)


@pytest.fixture(scope="session")
def service(translator: Translator, directory: Path) -> Iterator[Service]:
    with running(translator, directory, languages=Languages("en", "de")) as found:
        yield found
