"""A model.safetensors that npformer did not write is refused with one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import Transformer, TransformerConfig, UserError
from npformer.checkpoint import load_arrays, load_model, parameter_arrays, save_arrays, save_model
from tests.npformer.directories import CONFIG, older, on_disk, refusal


@given(st.data())
@settings(on_disk, max_examples=100)
def test_a_truncated_file_is_refused(saved: Path, data: st.DataObject) -> None:
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    end = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 20))
    try:
        path.write_bytes(whole[:end])
        assert "cannot be read as safetensors" in refusal(saved)
    finally:
        path.write_bytes(whole)


@given(st.data())
@settings(on_disk, max_examples=300)
def test_a_file_altered_anywhere_is_refused(saved: Path, data: st.DataObject) -> None:
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    offset = data.draw(st.integers(0, header - 1) | st.integers(header, len(whole) - 1))
    altered = bytearray(whole)
    altered[offset] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(altered)
        # White space in the header, for instance, may change without any effect.
        if offset < header and _has_the_same_content(path, whole):
            return
        refusal(saved)
    finally:
        path.write_bytes(whole)


def _has_the_same_content(path: Path, whole: bytes) -> bool:
    try:
        found, expected = safetensors.numpy.load_file(path), safetensors.numpy.load(whole)
    except Exception:
        return False
    header = path.read_bytes()[8 : 8 + int.from_bytes(whole[:8], "little")]
    about = json.loads(header)
    same = json.loads(whole[8 : 8 + len(header)])
    return about == same and all(np.array_equal(found[n], expected[n]) for n in expected)


def test_an_additional_byte_is_refused(saved: Path) -> None:
    with open(saved / "model.safetensors", "ab") as file:
        file.write(b"\0")
    assert "cannot be read as safetensors" in refusal(saved)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_safetensors_of_another_program_are_refused(
    saved: Path, metadata: dict[str, str] | None
) -> None:
    values = parameter_arrays(load_model(saved))
    safetensors.numpy.save_file(values, saved / "model.safetensors", metadata)
    assert "was not written by npformer" in refusal(saved)


def test_types_that_numpy_lacks_are_refused(saved: Path) -> None:
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    header += b" " * (-len(header) % 8)
    (saved / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + b"\0" * 4
    )
    assert "was not written by npformer" in refusal(saved)


def test_a_later_format_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(saved)
    monkeypatch.setattr("npformer.checkpoint.VERSION", 2)
    save_model(saved, model)
    monkeypatch.undo()
    assert "has format version 2, and this npformer reads 1" in refusal(saved)
    save_model(saved, model)
    monkeypatch.setattr("npformer.checkpoint.VERSION", 2)
    save_arrays(saved / "model.safetensors", parameter_arrays(model), {})
    monkeypatch.undo()
    assert "has format version 2, and this npformer reads 1" in refusal(saved)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"layers": 2}, "lacks the parameter 'decoder.1."),
        ({"vocab_size": 12}, r"'embedding' has shape \[12, 4\], not \[11, 4\]"),
        ({"norm": "pre"}, "lacks the parameter 'decoder.norm"),
    ],
)
def test_parameters_of_another_model_are_refused(
    saved: Path, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    other_model = tmp_path / "other_model"
    save_model(
        other_model,
        Transformer(TransformerConfig.from_dict({**CONFIG.to_dict(), **other})),
    )
    expected = message.replace("lacks", "also has")
    shutil.copy(older(other_model) / "model.safetensors", saved)
    with pytest.raises(UserError, match=f"belongs to another model.*{expected}"):
        load_model(saved)


@pytest.mark.parametrize(
    "metadata",
    [{"configs": 3}, {"configs": {}}, {"configs": [[]]}, {"configs": []}, {"configs": None}],
)
def test_checksums_of_other_types_are_refused(saved: Path, metadata: dict[str, Any]) -> None:
    weights = saved / "model.safetensors"
    save_arrays(weights, load_arrays(weights)[0], metadata)
    refusal(saved)


@pytest.mark.parametrize(
    "metadata",
    [
        "[" * 100_000,
        "[]",
        "{}",
        "3",
        '{"version": 1}',
        '{"version": 1, "about": []}',
        '{"version": [[]], "about": {}}',
        '{"version": 1, "version": 1, "about": {}}',
    ],
)
def test_weights_with_invalid_metadata_are_refused(saved: Path, metadata: str) -> None:
    arrays, _ = load_arrays(saved / "model.safetensors")
    safetensors.numpy.save_file(arrays, saved / "model.safetensors", {"npformer": metadata})
    refusal(saved)


@pytest.mark.parametrize("version", [True, 1.0, "1"])
def test_weights_whose_version_is_not_a_whole_number_are_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch, version: object
) -> None:
    arrays, metadata = load_arrays(saved / "model.safetensors")
    monkeypatch.setattr("npformer.checkpoint.VERSION", version)
    save_arrays(saved / "model.safetensors", arrays, metadata)
    monkeypatch.undo()
    assert f"has format version {version!r}" in refusal(saved)


def test_a_message_about_weights_is_short(saved: Path) -> None:
    header = json.dumps({"embedding": {"dtype": "a\nb" * 10_000}}).encode()
    path = saved / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert len(refusal(saved)) < 1000


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "C64", "I32"])
def test_weights_of_other_types_are_refused(saved: Path, dtype: str) -> None:
    path = older(saved) / "model.safetensors"
    size = {"BF16": 2, "F8_E4M3": 1, "C64": 8, "I32": 4}[dtype]
    about = {"npformer": json.dumps({"version": 1, "about": {}, "sha256": ""})}
    header = json.dumps(
        {
            "__metadata__": about,
            "embedding": {"dtype": dtype, "shape": [11, 4], "data_offsets": [0, 44 * size]},
        }
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(44 * size))
    assert "model.safetensors" in refusal(saved)
