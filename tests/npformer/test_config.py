"""The configuration: the paper's models, their sizes, and invalid settings."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer import Transformer, TransformerConfig, UserError
from npformer.config import PRESETS
from tests.npformer.initial import initial_values

T2T_VOCABULARY = 40_960  # tensor2tensor's padded vocabulary, for which Table 3's sizes are right

PAPER_SIZES = {
    ("base", T2T_VOCABULARY): 65.1,
    ("table3/A/heads=1", T2T_VOCABULARY): 65.1,
    ("table3/A/heads=32", T2T_VOCABULARY): 65.1,
    ("table3/B/d_k=16", T2T_VOCABULARY): 58.0,
    ("table3/B/d_k=32", T2T_VOCABULARY): 60.4,
    ("table3/C/layers=2", T2T_VOCABULARY): 35.7,
    ("table3/C/layers=4", T2T_VOCABULARY): 50.4,
    ("table3/C/layers=8", T2T_VOCABULARY): 79.8,
    ("table3/C/d_model=256", T2T_VOCABULARY): 27.8,  # 27.8487; the paper prints 28
    ("table3/C/d_model=1024", T2T_VOCABULARY): 167.9,
    ("table3/C/d_ff=1024", T2T_VOCABULARY): 52.5,
    ("table3/C/d_ff=4096", T2T_VOCABULARY): 90.3,
    ("base", 37_000): 63.1,
    ("big", 37_000): 214.0,
}

# Table 3 as printed: what each row changes of N = 6, d_model = 512, d_ff = 2048, h = 8,
# d_k = d_v = 64, P_drop = 0.1, ε_ls = 0.1.
TABLE_3: dict[str, dict[str, Any]] = {
    "paper": {},
    "base": {},
    "table3/A/heads=1": {"heads": 1, "d_k": 512, "d_v": 512},
    "table3/A/heads=4": {"heads": 4, "d_k": 128, "d_v": 128},
    "table3/A/heads=16": {"heads": 16, "d_k": 32, "d_v": 32},
    "table3/A/heads=32": {"heads": 32, "d_k": 16, "d_v": 16},
    "table3/B/d_k=16": {"d_k": 16},
    "table3/B/d_k=32": {"d_k": 32},
    "table3/C/layers=2": {"layers": 2},
    "table3/C/layers=4": {"layers": 4},
    "table3/C/layers=8": {"layers": 8},
    "table3/C/d_model=256": {"d_model": 256, "d_k": 32, "d_v": 32},
    "table3/C/d_model=1024": {"d_model": 1024, "d_k": 128, "d_v": 128},
    "table3/C/d_ff=1024": {"d_ff": 1024},
    "table3/C/d_ff=4096": {"d_ff": 4096},
    "table3/D/dropout=0": {"dropout": 0.0},
    "table3/D/dropout=0.2": {"dropout": 0.2},
    "table3/D/smoothing=0": {"smoothing": 0.0},
    "table3/D/smoothing=0.2": {"smoothing": 0.2},
    "table3/E": {"positions": "learned"},
    "table3/big": {"d_model": 1024, "d_ff": 4096, "heads": 16, "dropout": 0.3},
}
BASE = {
    "layers": 6,
    "d_model": 512,
    "d_ff": 2048,
    "heads": 8,
    "d_k": 64,
    "d_v": 64,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "ffn_dropout": 0.0,
    "attention_window": None,
    "smoothing": 0.1,
    "smoothing_over": "vocabulary",
    "norm": "post",
    "norm_epsilon": 1e-6,
    "positions": "interleaved",
    "position_spacing": "d/2",
    "first_position": 0,
    "share_embeddings": "all",
    "decoder_start": "token",
}


def allocated(config: TransformerConfig, layers: int, vocab_size: int) -> int:
    """The parameters of a model like `config` with another depth and vocabulary."""
    values = initial_values(
        dataclasses.replace(config, layers=layers, vocab_size=vocab_size), seed=0
    )
    return sum(v.size for v in values.values())


def count(config: TransformerConfig) -> int:
    """The number of parameters of `config`, extrapolated from one layer and one token.

    (Allocating 214 million random numbers takes too long.)
    """
    least = allocated(config, 1, 1)
    a_layer = allocated(config, 2, 1) - least
    a_token = allocated(config, 1, 2) - least
    return least + (config.layers - 1) * a_layer + (config.vocab_size - 1) * a_token


@pytest.mark.parametrize(("preset", "vocab_size"), PAPER_SIZES)
def test_models_have_as_many_parameters_as_in_the_paper(preset: str, vocab_size: int) -> None:
    config = TransformerConfig.preset(preset, vocab_size=vocab_size)
    digits = 0 if preset == "big" else 1
    assert round(count(config) / 1e6, digits) == PAPER_SIZES[preset, vocab_size]


@given(
    layers=st.integers(1, 3),
    vocab_size=st.integers(1, 20),
    share=st.sampled_from(["all", "target", "none"]),
    positions=st.sampled_from(["interleaved", "learned"]),
    norm=st.sampled_from(["pre", "post"]),
)
def test_parameters_grow_linearly_with_layers_and_vocabulary(
    layers: int, vocab_size: int, share: Any, positions: Any, norm: Any
) -> None:
    config = TransformerConfig(
        vocab_size=vocab_size,
        layers=layers,
        d_model=8,
        d_ff=12,
        heads=2,
        norm=norm,
        max_length=5,
        positions=positions,
        share_embeddings=share,
    )
    model = Transformer(config)
    assert sum(p.size for p in model.parameters().values()) == count(config)


@pytest.mark.parametrize("row", TABLE_3)
def test_rows_of_table_3_differ_from_base_only_as_printed(row: str) -> None:
    config = TransformerConfig.preset(row, vocab_size=100).to_dict()
    expected = {**BASE, **TABLE_3[row]}
    assert {name: config[name] for name in expected} == expected


def test_the_presets_are_table_3_big_and_two_smaller_models() -> None:
    assert set(PRESETS) == {*TABLE_3, "big", "small", "tiny"}
    assert TransformerConfig(vocab_size=9) == TransformerConfig.preset("base", vocab_size=9)
    big = TransformerConfig.preset("big", vocab_size=9)
    assert big == TransformerConfig.preset("table3/big", vocab_size=9)
    assert (big.layers, big.d_k, big.d_v) == (6, 64, 64)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_is_restored_from_json(preset: str) -> None:
    config = TransformerConfig.preset(preset, vocab_size=77, norm="pre", decoder_start="zero")
    again = TransformerConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


@pytest.mark.parametrize("over", ["vocabulary", "others"])
@pytest.mark.parametrize(("start", "now"), [("symbol", "token"), ("zero", "zero")])
def test_a_configuration_with_the_names_of_an_earlier_version_is_read(
    over: str, start: str, now: str
) -> None:
    values = {"vocab_size": 9, "smoothing_spread": over, "decoder_start": start}
    config = TransformerConfig.from_dict(values)
    assert (config.smoothing_over, config.decoder_start) == (over, now)
    assert set(config.to_dict()).isdisjoint({"smoothing_spread"})


def test_a_new_configuration_needs_the_present_names() -> None:
    with pytest.raises(UserError, match=r"model\.decoder_start must be one of token, zero"):
        TransformerConfig(vocab_size=9, decoder_start="symbol")  # type: ignore[arg-type]


def test_widths_of_heads_follow_from_the_changes_to_a_preset() -> None:
    config = TransformerConfig.preset("base", vocab_size=9, d_model=96, heads=3)
    assert (config.d_k, config.d_v) == (32, 32)
    config = TransformerConfig.preset("base", vocab_size=9, d_model=10, heads=3, d_k=2, d_v=5)
    assert (config.d_k, config.d_v) == (2, 5)


WRONG: list[tuple[str, dict[str, Any]]] = [
    *((f"model.{n} must be", {n: 0}) for n in ("vocab_size", "source_vocab_size", "layers")),
    *((f"model.{n} must be", {n: -1}) for n in ("d_model", "d_ff", "heads", "d_k", "d_v")),
    ("model.max_length must be", {"max_length": 0}),
    ("model.layers must be a whole number", {"layers": "6"}),
    ("model.layers must be a whole number", {"layers": 2.5}),
    ("model.layers must be a whole number", {"layers": None}),
    ("model.heads must be a whole number", {"heads": True}),
    ("model.vocab_size must be a whole number", {"vocab_size": None}),
    ("model.first_position must be at least 0", {"first_position": -1}),
    ("model.dropout must be a number", {"dropout": "0.1"}),
    ("model.dropout must be at least 0 and below 1", {"dropout": 1.0}),
    ("model.dropout must be", {"dropout": float("nan")}),
    ("model.attention_dropout must be", {"attention_dropout": -0.1}),
    ("model.ffn_dropout must be", {"ffn_dropout": 2}),
    ("model.attention_window must be at least 1", {"attention_window": 0}),
    ("model.attention_window must be a whole number", {"attention_window": 2.5}),
    ("model.smoothing must be", {"smoothing": 1}),
    ("model.norm_epsilon must be", {"norm_epsilon": -1e-6}),
    ("model.d_model must be divisible by heads", {"d_model": 100}),
    ("model.d_model must be even", {"d_model": 15, "heads": 3}),
    *(
        (f"model.{n} must be one of", {n: "other"})
        for n in (
            "smoothing_over",
            "norm",
            "positions",
            "position_spacing",
            "share_embeddings",
            "initialisation",
            "decoder_start",
        )
    ),
    ("'all' needs one vocabulary", {"source_vocab_size": 50}),
    ("model.d_modle is not a setting", {"d_modle": 512}),
]


@pytest.mark.parametrize(("message", "changes"), WRONG)
def test_an_invalid_setting_is_named_in_one_line(message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError) as error:
        TransformerConfig.preset("base", **{"vocab_size": 100, **changes})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_odd_widths_are_valid_with_learned_positions() -> None:
    assert TransformerConfig(vocab_size=9, d_model=15, heads=3, positions="learned").d_k == 5


def test_the_error_for_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no model preset 'huge'.*base.*table3/E"):
        TransformerConfig.preset("huge", vocab_size=9)


def test_the_vocabulary_must_be_given() -> None:
    with pytest.raises(UserError, match=r"model\.vocab_size must be given"):
        TransformerConfig.preset("base")


def test_a_configuration_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TransformerConfig(vocab_size=9).layers = 3  # type: ignore[misc]
