"""Models on disk: what is written comes back, and anything else is refused in one sentence."""

import json
import os
import pickle
import re
import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from autograd import using
from npformer import (
    Batch,
    Tokenizer,
    TokenizerPair,
    Transformer,
    TransformerConfig,
    Translator,
    UserError,
)
from npformer.checkpoint import (
    load_arrays,
    load_config,
    load_model,
    load_tokenizers,
    parameter_arrays,
    save_arrays,
    save_config,
    save_model,
    save_weights,
)

CONFIG = TransformerConfig(vocab_size=11, layers=1, d_model=4, d_ff=6, heads=2)
BATCH = Batch.of([[3, 4], [5]], [[6], [7, 8, 9]], begin_id=1, end_id=2)

on_disk = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A model directory without a tokenizer."""
    save_model(tmp_path / "model", Transformer(CONFIG, seed=5))
    return tmp_path / "model"


def older(directory: Path) -> Path:
    """A model directory as it was written before weights knew the files beside them."""
    weights = directory / "model.safetensors"
    save_arrays(weights, load_arrays(weights)[0], {})
    return directory


def edit_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    values = json.loads(path.read_text())
    values["model"] |= changes
    path.write_text(json.dumps(values, indent=2) + "\n")


def refusal(path: Path) -> str:
    """What `load_model` says, in one line."""
    with pytest.raises(UserError) as error:
        load_model(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# What is written comes back


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
def test_arrays_come_back_bit_by_bit(
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


def test_a_transposed_array_comes_back_as_it_was(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3).T
    save_arrays(tmp_path / "a", {"a": values}, {})
    np.testing.assert_array_equal(load_arrays(tmp_path / "a")[0]["a"], values)


@pytest.mark.parametrize("share", ["all", "target", "none"])
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_a_model_comes_back_as_it_was(tmp_path: Path, share: Any, norm: Any) -> None:
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


def test_a_model_can_be_written_and_read_from_another_array_library(saved: Path) -> None:
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


# Anything else is refused


@given(st.data())
@settings(on_disk, max_examples=100)
def test_a_file_cut_short_anywhere_is_refused(saved: Path, data: st.DataObject) -> None:
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
    place = data.draw(st.integers(0, header - 1) | st.integers(header, len(whole) - 1))
    altered = bytearray(whole)
    altered[place] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(altered)
        # White space for white space, say, alters nothing.
        if place < header and _says_the_same(path, whole):
            return
        refusal(saved)
    finally:
        path.write_bytes(whole)


def _says_the_same(path: Path, whole: bytes) -> bool:
    try:
        found, expected = safetensors.numpy.load_file(path), safetensors.numpy.load(whole)
    except Exception:
        return False
    header = path.read_bytes()[8 : 8 + int.from_bytes(whole[:8], "little")]
    about = json.loads(header)
    same = json.loads(whole[8 : 8 + len(header)])
    return about == same and all(np.array_equal(found[n], expected[n]) for n in expected)


def test_a_byte_too_many_is_refused(saved: Path) -> None:
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


def test_types_that_numpy_lacks_are_refused_as_foreign(saved: Path) -> None:
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


class Bomb:
    """What unpickling must not set off."""

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
    assert marker.exists()  # it was live


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(saved: Path, file: str) -> None:
    (saved / file).unlink()
    assert file in refusal(saved)
    (saved / file).mkdir()
    assert file in refusal(saved)


def test_a_configuration_cut_short_anywhere_is_refused(saved: Path) -> None:
    path = saved / "config.json"
    whole = path.read_bytes().rstrip()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"config\.json is not valid JSON"):
            load_config(saved)


@given(st.data())
@settings(on_disk, max_examples=200)
def test_an_altered_configuration_never_gives_another_error(
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
        ({"version": "1"}, "format version '1'"),
        ({"version": None}, "format version None"),
        ({"version": True}, "format version True"),
        ({"version": 1.0}, "format version 1.0"),
        ({"model": None}, "no settings of the model"),
        ({"model": [1]}, "no settings of the model"),
        ({"model": {}}, "vocab_size must be given"),
        ({"model": {"vocab_size": "11"}}, "vocab_size must be a whole number"),
        ({"model": {"vocab_size": 11, "d_modle": 4}}, "d_modle is no setting"),
        ({"model": {"vocab_size": 11, "norm": []}}, "norm must be one of"),
    ],
)
def test_a_configuration_that_is_not_ours_is_refused(
    saved: Path, change: dict[str, Any], message: str
) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message) as error:
        load_config(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [[], 3, "text", None])
def test_json_that_is_no_configuration_is_refused(saved: Path, values: Any) -> None:
    (saved / "config.json").write_text(json.dumps(values))
    assert "was not written by npformer" in refusal(saved)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"layers": 2}, "lacks the parameter 'decoder.1."),
        ({"vocab_size": 12}, r"'embedding' has shape \[12, 4\] and not \[11, 4\]"),
        ({"norm": "pre"}, "lacks the parameter 'decoder.norm"),
    ],
)
def test_parameters_of_another_model_are_refused(
    saved: Path, tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    stranger = tmp_path / "stranger"
    save_model(
        stranger,
        Transformer(TransformerConfig.from_dict({**CONFIG.to_dict(), **other})),
    )
    expected = message.replace("lacks", "has in addition")
    shutil.copy(older(stranger) / "model.safetensors", saved)
    with pytest.raises(UserError, match=f"is of another model.*{expected}"):
        load_model(saved)


# The files of a directory are of one model


def tokenizer(word: str = "b") -> Tokenizer:
    return Tokenizer.train([f"a {word}", f"{word} a {word}"], 263, byte_fallback=True)


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


def test_a_whole_directory_comes_back(complete: Path) -> None:
    found = Translator.load(complete)
    assert found.tokenizers.source.model == tokenizer("b").model
    assert found.tokenizers.target.model == tokenizer("c").model


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 4, "d_k": 2, "d_v": 2},
        {"positions": "concatenated"},
        {"position_spacing": "d/2-1"},
        {"norm_epsilon": 1e-5},
        {"decoder_start": "zero"},
        {"dropout": 0.2},
    ],
)
def test_a_configuration_altered_in_what_no_shape_tells_is_refused(
    complete: Path, change: dict[str, Any]
) -> None:
    edit_config(complete)
    Translator.load(complete)
    edit_config(complete, **change)
    message = refusal(complete)
    assert (
        f"{complete / 'config.json'} is not the file that model.safetensors was written" in message
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "source.spm"])
def test_a_file_that_may_not_be_read_is_named(complete: Path, name: str) -> None:
    (complete / name).chmod(0)
    with pytest.raises(UserError, match=f"{re.escape(name)}.*Permission denied"):
        Translator.load(complete)


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
def test_other_tokenizers_than_the_models_are_refused(
    complete: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(complete)
    with pytest.raises(UserError, match=message):
        load_tokenizers(complete)


def test_a_directory_from_before_checksums_is_accepted(complete: Path) -> None:
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
    "about",
    [{"configs": 3}, {"configs": {}}, {"configs": [[]]}, {"configs": []}, {"configs": None}],
)
def test_checksums_of_other_types_are_refused(saved: Path, about: dict[str, Any]) -> None:
    weights = saved / "model.safetensors"
    save_arrays(weights, load_arrays(weights)[0], about)
    refusal(saved)


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


class Killed(BaseException):
    """What ends a process between two of its acts."""


@pytest.mark.parametrize("moment", range(5))
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new(
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
def test_a_configuration_is_replaced_without_a_moment_that_does_not_fit(
    complete: Path, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run does that is resumed with another dropout."""
    model, tokenizers = load_model(complete), load_tokenizers(complete)
    edit_config(complete, smoothing=0.1)  # in another spelling than ours
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
    """Have the process killed before it puts the file of this number into its place."""
    replace, count = os.replace, iter(range(99))

    def killed(source: Any, target: Any) -> None:
        if next(count) == moment:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)


# Damage costs neither time nor memory


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
@pytest.mark.parametrize("knows", [True, False])
def test_sizes_are_held_against_the_weights_before_memory_is_asked_for(
    saved: Path, change: dict[str, Any], knows: bool
) -> None:
    if not knows:
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
    assert ("is not the file" if knows else "is of another model") in message


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
def test_json_that_can_be_misread_is_refused(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    assert "config.json is not valid JSON" in refusal(saved)


def test_a_long_value_is_not_repeated_at_length(saved: Path) -> None:
    for change in ({"norm": "x" * 1_000_000}, {"x" * 1_000_000: 1}, {"heads": [1] * 1_000_000}):
        path = saved / "config.json"
        whole = path.read_bytes()
        edit_config(saved, **change)
        assert len(refusal(saved)) < 1000
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "source.spm"])
def test_what_is_no_plain_file_is_refused_at_once(complete: Path, name: str) -> None:
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


@pytest.mark.parametrize(
    "said",
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
def test_weights_that_say_odd_things_of_themselves_are_refused(saved: Path, said: str) -> None:
    arrays, _ = load_arrays(saved / "model.safetensors")
    safetensors.numpy.save_file(arrays, saved / "model.safetensors", {"npformer": said})
    refusal(saved)


@pytest.mark.parametrize("version", [True, 1.0, "1"])
def test_weights_whose_version_is_no_whole_number_are_refused(
    saved: Path, monkeypatch: pytest.MonkeyPatch, version: object
) -> None:
    arrays, about = load_arrays(saved / "model.safetensors")
    monkeypatch.setattr("npformer.checkpoint.VERSION", version)
    save_arrays(saved / "model.safetensors", arrays, about)
    monkeypatch.undo()
    assert f"has format version {version!r}" in refusal(saved)


def test_what_weights_hold_is_not_repeated_at_length(saved: Path) -> None:
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
