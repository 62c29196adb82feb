"""A YAML file of settings: its valid contents, and one-line errors for everything else."""

import os
import time
from pathlib import Path

import pytest

from npformer.errors import UserError
from train.settings_file import as_flags, dump_settings, read_settings


def read(folder: Path, text: str | bytes) -> dict[str, object]:
    path = folder / "settings.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_settings(path)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert str(folder / "settings.yaml") in message
    return message


def test_numbers_words_and_nulls_are_read(tmp_path: Path) -> None:
    text = (
        "seed: 010\npeak_rate: 1e-3\nbeta1: .5\nbackend: ~\nmodel:\n  preset: 'tiny'\n  d_k: null\n"
    )
    values = read(tmp_path, "\ufeff# a comment\n" + text)
    assert values == {
        "seed": 10,
        "peak_rate": 0.001,
        "beta1": 0.5,
        "backend": None,
        "model": {"preset": "tiny", "d_k": None},
    }
    assert as_flags(values) == [
        "--seed=10",
        "--peak_rate=0.001",
        "--beta1=0.5",
        "--model.preset=tiny",
    ]


def test_names_of_an_earlier_version_are_read_as_the_present_ones(tmp_path: Path) -> None:
    values = read(tmp_path, "model:\n  smoothing_spread: others\n  decoder_start: symbol\n")
    assert values == {"model": {"smoothing_over": "others", "decoder_start": "token"}}


def test_a_file_may_give_the_precision_without_the_backend(tmp_path: Path) -> None:
    assert read(tmp_path, "precision: bf16\n") == {"precision": "bf16"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no settings"),
        ("# nothing\n", "holds no settings"),
        ("model:\n", "model is empty"),
        ("model: 3\n", "model must hold settings"),
        ("- a\n- b\n", "must hold settings"),
        ("tiny\n", "must hold settings"),
        ("warm_up: 3\n", "there is no setting warm_up"),
        ("model:\n  layer: 3\n", "there is no setting model.layer"),
        ("seed: 1\n\tmax_steps: 2\n", "line 2"),
        ("seed: 1\nmax_steps: 3\nseed: 2\n", "line 3: seed is given twice"),
        ("model:\n  norm: pre\n  norm: pre\n", "line 3: norm is given twice"),
        (b"seed: 1\n# \xff\n", "line 2: byte 0xff is not UTF-8"),
        ("seed: 1\0\n", "is not YAML"),
        ("seed: {\n", "line "),
        ("seed: 1\n---\nseed: 2\n", "another document"),
        ("seed: &x 3\nmax_steps: *x\n", "line 2: *x: settings refer to no others"),
        ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "line 2: *a"),
        ("<<: {seed: 1}\n", "there is no setting <<"),
        ("? [seed]\n: 3\n", "the name of a setting is a word"),
        ("seed: !!python/object:os.system 3\n", "python/object:os.system: settings have no tags"),
        ("seed: !!int abc\n", "line 1: tag:yaml.org,2002:int: settings have no tags"),
        ("seed: !!int ''\n", "settings have no tags"),
        ("seed: !!int 3\n", "settings have no tags"),
        ("peak_rate: !!float abc\n", "settings have no tags"),
        ("seed: !!bool abc\n", "settings have no tags"),
        ("seed: !!timestamp abc\n", "settings have no tags"),
        ("seed: ! 3\n", "settings have no tags"),
        ("!!merge <<: {seed: 1}\n", "settings have no tags"),
        ("model: !!map {layers: 1}\n", "settings have no tags"),
        ("model: {d_model: {a: 1}}\n", "settings are nested once at most"),
        ("seed: " + "[" * 100_000, "settings are nested once at most"),
        ("seed: " + "{a: " * 100_000, "settings are nested once at most"),
        ("#" * (1 << 21), "it is larger than 1,048,576 bytes"),
        ("model:\n  preset: null\n", "model.preset must be a word; it is None"),
        ("checkpoint_every: ~\n", "checkpoint_every must be a whole number; it is None"),
        ("seed: true\n", "seed must be a whole number; it is True"),
        ("max_steps: 1e3\n", "max_steps must be a whole number; it is 1000.0"),
        ("max_minutes: 1:30\n", "max_minutes must be a number; it is '1:30'"),
        ("seed: 2020-99-99\n", "seed must be a whole number"),
        ("peak_rate: .inf\n", "peak_rate must be a number"),
        (f"beta2: {'9' * 400}\n", "beta2 must lie within"),
        (f"beta2: {'9' * 5000}\n", "beta2 must be at least 0 and below 1"),
        (f"warmup: 1{'0' * 400}\n", "warmup must lie within"),
        ("warmup: 0\n", "warmup must be at least 1"),
        ("beta1: 0.99999999999\n", "beta1 must be at least 0 and below 1"),
        ("epsilon: 1e-300\n", "epsilon must be more than 0"),
        ("rate_factor: 1e300\n", "rate_factor must be 0 to 1e+06"),
        ("schedule: linear\n", "schedule must be one of paper, "),
        ("bleu_tokenize: moses\n", "bleu_tokenize must be one of 13a, "),
        ('model:\n  dropout: "0.1"\n', "model.dropout must be a number; it is '0.1'"),
        ("model:\n  heads: 2.0\n", "model.heads must be a whole number; it is 2.0"),
        ("model:\n  norm: middle\n", "model.norm must be one of post, pre"),
    ],
)
def test_an_error_names_the_file_and_the_setting(
    tmp_path: Path, text: str | bytes, problem: str
) -> None:
    start = time.monotonic()
    assert problem in refusal(tmp_path, text)
    assert time.monotonic() - start < 60


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(UserError, match=f"cannot read {path}"):
            read_settings(path)


@pytest.mark.parametrize("word", ["1e-3", "2024", "5.", ".5", "+1E6", "null", "true", "~", "a: #b"])
def test_every_word_is_read_as_it_was_written(tmp_path: Path, word: str) -> None:
    """Directories may be called like numbers; PyYAML writes 1e-3 without quotation marks."""
    path = tmp_path / "settings.yaml"
    values = {"init_from": word, "tensorboard": word, "peak_rate": 1e-6, "seed": 3}
    path.write_text(dump_settings(values))
    assert read_settings(path) == values
