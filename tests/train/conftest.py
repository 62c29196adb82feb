"""Small corpora: one that tests only read, and one for each test that modifies it."""

from pathlib import Path

import pytest

from tests.train.small_corpus import PAIRS, VALID, make_corpus, write
from train.corpora.corpus import Corpus
from train.corpora.preparation import prepare


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    """Files: train and valid, source and target."""
    return [
        write(tmp_path / "train.en", [source for source, _ in PAIRS]),
        write(tmp_path / "train.de", [target for _, target in PAIRS]),
        write(tmp_path / "valid.en", [source for source, _ in VALID]),
        write(tmp_path / "valid.de", [target for _, target in VALID]),
    ]


@pytest.fixture
def prepared(texts: list[Path], tmp_path: Path) -> Corpus:
    """A corpus for this test only, prepared from `texts`."""
    return prepare(*texts, tmp_path / "corpus", vocab_size=300)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus to train on, which no test modifies."""
    return make_corpus(tmp_path_factory.mktemp("corpus"))
