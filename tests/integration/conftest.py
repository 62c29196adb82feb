"""Fixtures for the command line: text, a corpus, and a model trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.command_line import TINY, prepare_words, run, text, write


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text files, and the corpus made of them."""
    folder = tmp_path_factory.mktemp("work")
    for name, pairs in text().items():
        write(folder / f"{name}.en", [source for source, _ in pairs])
        write(folder / f"{name}.de", [target for _, target in pairs])
    run(*prepare_words(folder), "--vocab-size", 600, "--out", folder / "corpus")
    return folder


@pytest.fixture(scope="session")
def trained(folder: Path) -> Path:
    """A run of 40 steps."""
    out = folder / "run"
    run("train", "--data", folder / "corpus", "--out", out, *TINY, "--max-steps", 40)
    return out
