"""Saving and loading a model: nothing is lost, and a killed save leaves an intact model."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from autograd import using
from npformer import Transformer, TransformerConfig, Translator, checkpoint
from npformer.checkpoint import (
    load_arrays,
    load_model,
    load_tokenizers,
    parameter_arrays,
    save_arrays,
    save_config,
    save_model,
    save_weights,
)
from tests.npformer.directories import BATCH, edit_config, older, on_disk, refusal

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


# Saving and loading


@given(
    st.dictionaries(
        text.filter(lambda name: name not in ("", "__metadata__")),
        st.sampled_from([np.float32, np.float64, np.int32, np.uint8]).flatmap(
            lambda dtype: arrays(
                dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)
            )
        ),
        max_size=4,
    ),
    st.dictionaries(text.map("x".__add__), text, max_size=3),
)
@on_disk
def test_arrays_are_loaded_bit_by_bit_as_they_were_saved(
    tmp_path: Path, values: dict[str, np.ndarray], about: dict[str, str]
) -> None:
    save_arrays(tmp_path / "a", values, about)
    found, metadata = load_arrays(tmp_path / "a")
    assert metadata == about
    assert found.keys() == values.keys()
    for name in values:
        assert found[name].dtype == values[name].dtype
        assert found[name].shape == values[name].shape
        assert found[name].tobytes() == values[name].tobytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, value: float) -> None:
    save_arrays(tmp_path / "a", {}, {"best": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_arrays(tmp_path / "a", {}, {"best": value})
    assert load_arrays(tmp_path / "a") == ({}, {"best": 1.0})


@given(st.data())
def test_a_file_has_the_bytes_that_safetensors_itself_writes(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    dtypes = st.sampled_from([np.dtype(name) for name in checkpoint._DTYPES.values()])
    values = data.draw(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            dtypes.flatmap(lambda d: arrays(d, array_shapes(min_dims=0, min_side=0, max_side=3))),
            max_size=6,
        )
    )
    values.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("a") / "a"
    save_arrays(path, values, {"ä": [1, "é"]})
    with safetensors.safe_open(path, "numpy") as file:
        metadata = file.metadata()
    assert path.read_bytes() == safetensors.numpy.save(values, metadata=metadata)


def test_an_array_of_another_byte_order_is_saved(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a", {"a": np.arange(3, dtype=">f4")}, {})
    np.testing.assert_array_equal(load_arrays(tmp_path / "a")[0]["a"], [0, 1, 2])


def test_a_transposed_array_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3).T
    save_arrays(tmp_path / "a", {"a": values}, {})
    np.testing.assert_array_equal(load_arrays(tmp_path / "a")[0]["a"], values)


@pytest.mark.parametrize("share", ["all", "target", "none"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_model_is_loaded_as_it_was_saved(tmp_path: Path, share: Any, norm: Any) -> None:
    config = TransformerConfig(
        vocab_size=11,
        layers=2,
        d_model=4,
        d_ff=6,
        heads=2,
        d_k=3,
        positions="learned",
        norm=norm,
        share_embeddings=share,
    )
    model = Transformer(config, seed=9)
    save_model(tmp_path, model)
    again = load_model(tmp_path)
    assert again.config == config
    for name, values in parameter_arrays(again).items():
        np.testing.assert_array_equal(values, model.parameters()[name].numpy(), err_msg=name)
    np.testing.assert_array_equal(again.logits(BATCH).numpy(), model.logits(BATCH).numpy())
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_a_model_can_be_saved_and_loaded_with_another_array_library(saved: Path) -> None:
    expected = load_model(saved).logits(BATCH).numpy()
    with using("strict"):
        model = load_model(saved)
        save_model(saved, model)
        assert not isinstance(model.parameters()["embedding"].value, np.ndarray)
        np.testing.assert_allclose(model.logits(BATCH).numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(load_model(saved).logits(BATCH).numpy(), expected)


def test_other_programs_can_read_the_parameters(saved: Path) -> None:
    found = safetensors.numpy.load_file(saved / "model.safetensors")
    assert found["embedding"].shape == (11, 4)


class Killed(BaseException):
    """Stands for a kill between two operations."""


@pytest.mark.parametrize("moment", range(5))
def test_a_killed_save_leaves_the_old_or_the_new_model(
    complete: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = load_model(complete)
    new = Transformer(old.config, seed=8)
    tokenizers = load_tokenizers(complete)
    die_before_replacing(moment, monkeypatch)
    with pytest.raises(Killed):  # noqa: PT012
        save_model(complete, new, tokenizers)
        raise Killed
    found = Translator.load(complete).model.parameters()["embedding"].numpy()
    expected = new if moment > 3 else old
    np.testing.assert_array_equal(found, expected.parameters()["embedding"].numpy())


@pytest.mark.parametrize("moment", range(4))
def test_a_model_is_loadable_at_every_moment_while_its_configuration_is_replaced(
    complete: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens when a run is resumed with another dropout rate."""
    model, tokenizers = load_model(complete), load_tokenizers(complete)
    edit_config(complete, smoothing=0.1)  # formatted in another way than npformer does
    (complete / "config.json").write_bytes((complete / "config.json").read_bytes() + b"\n")
    older(complete)
    config = TransformerConfig.from_dict({**model.config.to_dict(), "dropout": 0.4})
    parameters = parameter_arrays(model)
    die_before_replacing(moment, monkeypatch)
    with pytest.raises(Killed):  # noqa: PT012
        save_weights(complete, parameters, config, tokenizers, or_present_config=True)
        save_config(complete, config)
        save_weights(complete, parameters, config, tokenizers)
        raise Killed
    monkeypatch.undo()
    assert load_model(complete).config.dropout == (0.4 if moment > 1 else 0.1)
    if moment == 3:
        edit_config(complete, dropout=0.1)
        assert "is not the file" in refusal(complete)


def die_before_replacing(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the process before it renames file number `moment` into place."""
    replace, count = os.replace, iter(range(99))

    def killed(source: Any, target: Any) -> None:
        if next(count) == moment:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
