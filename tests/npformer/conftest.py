"""Model directories that tests may damage."""

from pathlib import Path

import pytest

from npformer import TokenizerPair, Transformer, TransformerConfig
from npformer.checkpoint import save_model
from tests.npformer.directories import CONFIG, tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model directory without a tokenizer."""
    save_model(tmp_path / "model", Transformer(CONFIG, seed=5))
    return tmp_path / "model"


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A model directory with tokenizers, one for each language."""
    source, target = tokenizer("b"), tokenizer("c")
    config = TransformerConfig(
        vocab_size=target.vocab_size,
        source_vocab_size=source.vocab_size,
        share_embeddings="target",
        layers=1,
        d_model=8,
        d_ff=6,
        heads=2,
    )
    save_model(tmp_path / "complete", Transformer(config), TokenizerPair(source, target))
    return tmp_path / "complete"
