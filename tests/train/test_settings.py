"""Settings of a run: invalid ones are refused; others change a preset."""

import dataclasses
import math
import re
from typing import Any

import pytest

from npformer import TransformerConfig
from tests.train.runs import refusal
from train.__main__ import main
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
        *({name: -1} for name in ("samples", "patience", "keep_every", "checkpoint_minutes")),
        {"checkpoint_minutes": math.inf},
        {"ema": -0.1},
        {"ema": 0.99999999999},
        {"best_by": "ter"},
        {"tensorboard": 1},
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


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"best_by": "bleu"}, "give bleu_every, or best_by loss"),
        ({"best_by": "chrf"}, "give bleu_every, or best_by loss"),
        ({"patience": 3}, "patience needs best_by"),
    ],
)
def test_settings_that_need_others_are_refused_without_them(
    values: dict[str, Any], problem: str
) -> None:
    assert problem in refusal(lambda: TrainSettings(**values))


def test_checkpoints_may_be_saved_by_minutes_only() -> None:
    assert TrainSettings(checkpoint_every=0, checkpoint_minutes=10).checkpoint_every == 0
    wrong = {"checkpoint_every": -1, "checkpoint_minutes": 10}
    assert "checkpoint_every must be" in refusal(lambda: TrainSettings(**wrong))


@pytest.mark.parametrize("longest", [0, -5])
def test_a_length_that_cannot_be_is_refused_though_the_corpus_has_longer_sentences(
    longest: int,
) -> None:
    chosen = settings_from_dict({"model": {"longest": longest}})
    assert refusal(lambda: chosen.transformer_config(9, longest=30)).startswith("model.longest")


def test_settings_of_an_earlier_version_keep_their_meaning() -> None:
    model = {"smoothing_spread": "others", "decoder_start": "symbol"}
    config = settings_from_dict({"model": model}).transformer_config(9)
    assert (config.smoothing_over, config.decoder_start) == ("others", "token")


def test_settings_change_a_preset() -> None:
    chosen = settings_from_dict({"model": {"preset": "tiny", "dropout": 0.2}})
    config = chosen.transformer_config(50)
    expected = TransformerConfig.preset("tiny", vocab_size=50, dropout=0.2)
    assert config == expected
    separate = chosen.transformer_config(50, source_vocab_size=40)
    assert (separate.source_vocab_size, separate.share_embeddings) == (40, "target")


def test_the_help_describes_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = capsys.readouterr().out
    options = words[words.index("--init_from INIT_FROM\n") :].split("\n  --")
    described = {option.split()[0].removeprefix("--"): option for option in options}
    for setting in dataclasses.fields(TrainSettings):
        if setting.name != "model":
            about = " ".join(described[setting.name].split()).rpartition("(type")[0]
            assert re.search(r"[a-z]{2,} [a-z]{2,}", about), setting.name
