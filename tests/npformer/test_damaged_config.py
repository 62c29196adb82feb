"""A config.json that npformer did not write is refused at once with one line."""

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import Translator, UserError
from npformer.checkpoint import load_config
from tests.npformer.directories import edit_config, older, on_disk, refusal


def test_a_truncated_configuration_is_refused(saved: Path) -> None:
    path = saved / "config.json"
    whole = path.read_bytes().rstrip()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
            load_config(saved)


@given(st.data())
@settings(on_disk, max_examples=200)
def test_an_altered_configuration_is_valid_or_refused_with_one_line(
    saved: Path, data: st.DataObject
) -> None:
    path = saved / "config.json"
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[data.draw(st.integers(0, len(whole) - 1))] = data.draw(
        st.integers(0, 255) | st.sampled_from(b' "{}[]:,0123456789-.e')
    )
    message = ""
    try:
        path.write_bytes(altered)
        load_config(saved)
    except UserError as error:
        message = str(error)
    finally:
        path.write_bytes(whole)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "was not written by npformer"),
        ({"format": None, "model_type": "marian"}, "`npformer import` can make a model of one"),
        ({"version": "1"}, "format version '1'"),
        ({"version": None}, "format version None"),
        ({"version": True}, "format version True"),
        ({"version": 1.0}, "format version 1.0"),
        ({"model": None}, "no settings of the model"),
        ({"model": [1]}, "no settings of the model"),
        ({"model": {}}, "vocab_size must be given"),
        ({"model": {"vocab_size": "11"}}, "vocab_size must be a whole number"),
        ({"model": {"vocab_size": 11, "d_modle": 4}}, "d_modle is not a setting"),
        ({"model": {"vocab_size": 11, "norm": []}}, "norm must be one of"),
    ],
)
def test_a_configuration_of_another_program_or_version_is_refused(
    saved: Path, change: dict[str, Any], message: str
) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message) as error:
        load_config(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [[], 3, "text", None])
def test_json_without_an_object_is_refused(saved: Path, values: Any) -> None:
    (saved / "config.json").write_text(json.dumps(values))
    assert "was not written by npformer" in refusal(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 4, "d_k": 2, "d_v": 2},
        {"positions": "concatenated"},
        {"position_spacing": "d/2-1"},
        {"first_position": 2},
        {"norm_epsilon": 1e-5},
        {"decoder_start": "zero"},
        {"dropout": 0.2},
    ],
)
def test_a_change_that_keeps_all_shapes_is_refused(complete: Path, change: dict[str, Any]) -> None:
    edit_config(complete)
    Translator.load(complete)
    edit_config(complete, **change)
    message = refusal(complete)
    assert (
        f"{complete / 'config.json'} is not the file that model.safetensors was written" in message
    )


@given(st.data())
@settings(on_disk, max_examples=100)
def test_a_configuration_altered_anywhere_is_refused(saved: Path, data: st.DataObject) -> None:
    path = saved / "config.json"
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(altered)
        assert "config.json" in refusal(saved) or "model." in refusal(saved)
    finally:
        path.write_bytes(whole)


# Refusing takes neither time nor memory


@pytest.mark.parametrize(
    "change",
    [
        {"layers": 10_000},
        {"d_ff": 10_000_000},
        {"d_ff": (1 << 31) - 1},
        {"vocab_size": (1 << 31) - 1},
        {"d_model": (1 << 31) - 2, "heads": 2},
        {"positions": "learned", "max_length": (1 << 31) - 1},
        {"d_k": (1 << 31) - 1},
    ],
)
@pytest.mark.parametrize("has_checksums", [True, False])
def test_sizes_are_compared_with_the_weights_before_memory_is_allocated(
    saved: Path, change: dict[str, Any], has_checksums: bool
) -> None:
    if not has_checksums:
        older(saved)
    edit_config(saved, **change)
    tracemalloc.start()
    started = time.monotonic()
    try:
        message = refusal(saved)
        assert time.monotonic() - started < 5
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert ("is not the file" if has_checksums else "belongs to another model") in message


@pytest.mark.parametrize("value", [1 << 31, (1 << 63) - 1])
@pytest.mark.parametrize("name", ["layers", "vocab_size", "max_length", "d_k"])
def test_sizes_beyond_32_bits_are_refused(saved: Path, name: str, value: int) -> None:
    edit_config(saved, **{name: value})
    assert f"model.{name} must be at most 2147483647; it is {value}" in refusal(saved)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"format":' * 100_000,
        b'{"format": "npformer", "format": "npformer"}',
        b'{"format": "npformer", "version": 1, "model": {"vocab_size": 9223372036854775808}}',
        b'{"format": "npformer", "version": 1, "model": {"vocab_size": 11, "dropout": NaN}}',
        b'{"format": "npformer", "version": 1, "model": {"vocab_size": 11, "dropout": 1e999}}',
        b'{"format": "\xff"}',
        b"\xff\xfe{\0}\0",
        b"",
    ],
)
def test_ambiguous_or_invalid_json_is_refused(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    assert "config.json is not valid JSON" in refusal(saved)


def test_a_message_about_a_long_value_is_short(saved: Path) -> None:
    for change in ({"norm": "x" * 1_000_000}, {"x" * 1_000_000: 1}, {"heads": [1] * 1_000_000}):
        path = saved / "config.json"
        whole = path.read_bytes()
        edit_config(saved, **change)
        assert len(refusal(saved)) < 1000
        path.write_bytes(whole)
