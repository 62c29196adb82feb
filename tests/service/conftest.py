"""One model and one service for the tests that leave it as it is.

What needs the extra `serve` is imported in the fixtures: without it, the tests are skipped as they
import it themselves, and a file of fixtures cannot be.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from npformer import Translator
from tests.npformer.test_translator import make_translator, save

if TYPE_CHECKING:
    from tests.service.running import Service


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_translator()
    return save(tmp_path_factory.mktemp("service") / "model", made.model, made.tokenizers)


@pytest.fixture(scope="session")
def translator(directory: Path) -> Translator:
    return Translator.load(directory)


@pytest.fixture(scope="session")
def service(translator: Translator, directory: Path) -> Iterator[Service]:
    from npformer.service.languages import Languages
    from tests.service.running import running

    with running(translator, directory, languages=Languages("en", "de")) as found:
        yield found
