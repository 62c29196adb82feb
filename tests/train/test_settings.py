"""Settings of a run: invalid ones are refused; others change a preset."""

from typing import Any

import pytest

from npformer import TransformerConfig
from tests.train.runs import refusal
from train.settings import TrainSettings, settings_from_dict


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: 0} for name in ("max_steps", "batch_tokens", "accumulate", "log_every")),
        *({name: 0} for name in ("validate_every", "checkpoint_every", "keep_checkpoints")),
        {"bleu_beam": 0},
        {"bleu_beam": 1001},
        {"accumulate": 10_001},
        *({name: -1} for name in ("max_minutes", "clip_norm", "bleu_every", "peak_rate", "seed")),
    ],
)
def test_a_setting_that_cannot_work_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    assert refusal(lambda: TrainSettings(**wrong)).startswith(f"{name} must")


@pytest.mark.parametrize(
    ("values", "name"),
    [({"max_step": 3}, "max_step"), ({"model": {"layer": 3}}, "model.layer")],
)
def test_an_unknown_setting_is_named(values: dict[str, Any], name: str) -> None:
    assert refusal(lambda: settings_from_dict(values)) == f"there is no setting {name}"


def test_settings_change_a_preset() -> None:
    chosen = settings_from_dict({"model": {"preset": "tiny", "dropout": 0.2}})
    config = chosen.transformer_config(50)
    expected = TransformerConfig.preset("tiny", vocab_size=50, dropout=0.2)
    assert config == expected
    separate = chosen.transformer_config(50, source_vocab_size=40)
    assert (separate.source_vocab_size, separate.share_embeddings) == (40, "target")
