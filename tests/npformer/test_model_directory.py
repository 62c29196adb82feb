"""A model directory: its files exist, are readable, and belong to one model."""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import TokenizerPair, Translator, UserError
from npformer.checkpoint import load_arrays, load_config, load_model, load_tokenizers, save_arrays
from tests.npformer.directories import edit_config, older, on_disk, refusal, tokenizer


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_nothing_is_ever_unpickled(saved: Path, tmp_path: Path, file: str) -> None:
    marker = tmp_path / "exploded"
    pickled = pickle.dumps(Bomb(marker))
    (saved / file).write_bytes(pickled)
    refusal(saved)
    with open(saved / file, "wb") as out:
        np.save(out, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    refusal(saved)
    assert not marker.exists()
    pickle.loads(pickled)
    assert marker.exists()  # unpickling it would have run it


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(saved: Path, file: str) -> None:
    (saved / file).unlink()
    assert file in refusal(saved)
    (saved / file).mkdir()
    assert file in refusal(saved)


def test_a_configuration_with_the_names_of_an_earlier_version_is_loaded(saved: Path) -> None:
    path = older(saved) / "config.json"
    values = json.loads(path.read_text())
    del values["model"]["smoothing_over"]
    values["model"] |= {"smoothing_spread": "others", "decoder_start": "symbol"}
    path.write_text(json.dumps(values))
    config = load_config(saved)
    assert (config.smoothing_over, config.decoder_start) == ("others", "token")
    load_model(saved)


def test_a_complete_directory_is_loaded(complete: Path) -> None:
    found = Translator.load(complete)
    assert found.tokenizers.source.model == tokenizer("b").model
    assert found.tokenizers.target.model == tokenizer("c").model


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read every file")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "source.spm"])
def test_a_file_without_permission_to_read_is_named(complete: Path, name: str) -> None:
    (complete / name).chmod(0)
    with pytest.raises(UserError, match=f"{re.escape(name)}.*Permission denied"):
        Translator.load(complete)


@given(st.data())
@settings(on_disk, max_examples=50)
def test_a_tokenizer_altered_anywhere_is_refused(complete: Path, data: st.DataObject) -> None:
    path = complete / data.draw(st.sampled_from(["source.spm", "target.spm"]))
    whole = path.read_bytes()
    altered = bytearray(whole)
    altered[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(altered)
        with pytest.raises(UserError, match=f"{path} has been altered") as error:
            Translator.load(complete)
        assert "\n" not in str(error.value)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "source.spm").replace(d / "tokenizer.spm"), "have been altered"),
        (lambda d: shutil.copy(d / "source.spm", d / "tokenizer.spm"), "have been altered"),
        (
            lambda d: shutil.copy(d / "source.spm", d / "target.spm"),
            r"target\.spm has been altered",
        ),
        (lambda d: (d / "source.spm").unlink(), r"source\.spm: No such file"),
        (lambda d: [p.unlink() for p in d.glob("*.spm")], "holds no tokenizer"),
    ],
)
def test_tokenizers_that_do_not_belong_to_the_model_are_refused(
    complete: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(complete)
    with pytest.raises(UserError, match=message):
        load_tokenizers(complete)


def test_a_directory_without_checksums_is_accepted(complete: Path) -> None:
    expected = load_model(complete).parameters()["embedding"].numpy()
    found = Translator.load(older(complete)).model.parameters()["embedding"].numpy()
    np.testing.assert_array_equal(found, expected)
    edit_config(complete, dropout=0.3)
    assert Translator.load(complete).model.config.dropout == 0.3


def test_tokenizers_can_be_added_to_a_model(saved: Path) -> None:
    both = tokenizer()
    TokenizerPair(both, both).save(saved)
    assert load_tokenizers(saved).source.model == both.model


@pytest.mark.parametrize(
    "tokenizers",
    [3, [], {}, {"source.spm": 3, "target.spm": None}, {"../source.spm": "", "target.spm": ""}],
)
def test_checksums_of_tokenizers_of_other_types_are_refused(
    complete: Path, tokenizers: Any
) -> None:
    weights = complete / "model.safetensors"
    arrays, about = load_arrays(weights)
    save_arrays(weights, arrays, {**about, "tokenizers": tokenizers})
    with pytest.raises(UserError, match="altered"):
        load_tokenizers(complete)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "source.spm"])
def test_a_special_file_is_refused_at_once(complete: Path, name: str) -> None:
    path = complete / name
    path.unlink()
    for make in (os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p), huge):
        make(path)
        with pytest.raises(UserError, match=re.escape(name)) as error:
            Translator.load(complete)
        assert "\n" not in str(error.value)
        path.rmdir() if path.is_dir() else path.unlink()


def huge(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 42)
