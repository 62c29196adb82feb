"""`npformer import`: what it writes, and what it refuses in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Translator, UserError
from npformer.formats.exporting import export_model
from npformer.formats.importing import import_model
from npformer.vocabulary import Vocabulary
from tests.formats.foreign import marian_model
from tests.formats.refusals import edit_arrays, edit_json
from train.__main__ import main


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model of transformers."""
    directory = tmp_path_factory.mktemp("marian")
    marian_model(directory, ends=-3.0)
    return directory


@pytest.fixture
def damaged(given: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(given, tmp_path / "theirs")


def test_the_command_makes_a_model_that_translates(given: Path, tmp_path: Path, capfd: Any) -> None:
    out = tmp_path / "ours"
    assert main(["import", str(given), "--out", str(out)]) == 0
    assert "2 + 2 layers, d_model 16" in capfd.readouterr().err
    assert {p.name for p in out.iterdir()} == {
        *("config.json", "README.md", "model.safetensors", "source.spm", "target.spm"),
        *("source.vocab.json", "target.vocab.json"),
    }
    text = "the dog sleeps."
    found = Translator.load(out).translate([text, "", "  "])
    assert found[0].text
    assert [t.text for t in found[1:]] == ["", ""]
    assert main(["import", str(given), "--out", str(out)]) == 0  # replaces it
    assert Translator.load(out).translate([text])[0] == found[0]


def test_the_length_of_sentences_comes_in_and_goes_out(damaged: Path, tmp_path: Path) -> None:
    assert import_model(damaged, tmp_path / "ours").longest == 63  # of 64 positions
    edit_json(damaged / "tokenizer_config.json", model_max_length=40)
    assert import_model(damaged, tmp_path / "ours").longest == 39
    export_model(tmp_path / "ours", tmp_path / "out", "marian")
    again = import_model(tmp_path / "out", tmp_path / "again")
    assert (again.longest, again.max_length) == (39, 64)
    edit_json(damaged / "tokenizer_config.json", model_max_length=10**30)  # no limit
    assert import_model(damaged, tmp_path / "ours").longest == 63


def test_a_card_says_what_is_known_of_the_original(damaged: Path, tmp_path: Path) -> None:
    (damaged / "README.md").write_text(
        "---\nlanguage:\n- fi\n- en\nlicense: cc-by-4.0\n---\n# opus\n"
    )
    import_model(damaged, tmp_path / "ours")
    text = (tmp_path / "ours" / "README.md").read_text()
    assert text.startswith(
        "---\nlanguage:\n- fi\n- en\nlicense: cc-by-4.0\nlibrary_name: npformer\n"
    )
    assert "It was imported from Hugging Face's Marian" in text
    edit_json(damaged / "tokenizer_config.json", source_lang="en", target_lang="ROMANCE")
    import_model(damaged, tmp_path / "ours")
    assert "language:\n- en\n- fi\nlicense" in (tmp_path / "ours" / "README.md").read_text()
    (damaged / "README.md").write_text("# No front matter\n")
    import_model(damaged, tmp_path / "ours")
    assert "license:" not in (tmp_path / "ours" / "README.md").read_text()


def test_a_foreign_directory_is_not_overwritten(given: Path, damaged: Path) -> None:
    before = sorted(damaged.iterdir())
    with pytest.raises(UserError, match="give another --out"):
        import_model(given, damaged)
    assert sorted(damaged.iterdir()) == before


def test_an_altered_vocabulary_is_refused(given: Path, tmp_path: Path) -> None:
    import_model(given, tmp_path / "ours")
    path = tmp_path / "ours" / "target.vocab.json"
    path.write_text(path.read_text().replace('"begin_id": ', '"begin_id": 1'))
    with pytest.raises(UserError, match="altered, or belongs to another"):
        Translator.load(tmp_path / "ours")
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        Translator.load(tmp_path / "ours")


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"model_type": "t5"}, "only 'marian' can be imported"),
    "pre-norm": ({"normalize_before": True}, "normalize_before = True"),
    "a norm of embeddings": ({"normalize_embedding": True}, "normalize_embedding"),
    "gelu": ({"activation_function": "gelu"}, "activation_function 'gelu' is not supported"),
    "heads": ({"decoder_attention_heads": 2}, "encoder_attention_heads is 4 and decoder_"),
    "a width that does not fit": ({"d_model": 20}, r"has the shape \[\d+, 16\]"),
    "more layers": ({"encoder_layers": 3}, "lacks the array 'model.encoder.layers.2"),
    "fewer layers": ({"encoder_layers": 1}, "has the array 'model.encoder.layers.1"),
    "a word for a number": ({"d_model": "16"}, "d_model must be a whole number"),
    "a number for a flag": ({"scale_embedding": 1}, "scale_embedding must be true or false"),
    "a huge vocabulary": (
        {"vocab_size": 2**31 - 1, "decoder_vocab_size": 2**31 - 1},
        "has the shape",
    ),
    "a larger vocabulary": ({"vocab_size": 100, "decoder_vocab_size": 100}, "has the shape"),
    "a smaller vocabulary": (
        {"vocab_size": 50, "decoder_vocab_size": 50},
        "suppressed_ids must be",
    ),
    "an end elsewhere": ({"eos_token_id": 1}, "</s> has the id 0 there"),
    "a start outside": ({"decoder_start_token_id": 4000}, "begin_id is 4000"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_configuration_that_does_not_fit_is_refused(
    name: str, damaged: Path, tmp_path: Path, capfd: Any
) -> None:
    changes, message = SETTINGS[name]
    for file in ("config.json", "generation_config.json"):
        own = json.loads((damaged / file).read_text())
        chosen = (
            changes if file == "config.json" else {k: v for k, v in changes.items() if k in own}
        )
        edit_json(damaged / file, **chosen)
    with pytest.raises(UserError, match=message) as error:
        import_model(damaged, tmp_path / "ours")
    assert "\n" not in str(error.value)
    assert str(error.value).count(f"{damaged}/config.json") < 2
    assert str(damaged) in str(error.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "file", ["config.json", "vocab.json", "model.safetensors", "source.spm", "target.spm"]
)
def test_missing_and_truncated_files_are_refused(file: str, damaged: Path, tmp_path: Path) -> None:
    path = damaged / file
    whole = path.read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 3, None):
        path.unlink(missing_ok=True)
        if size is not None:
            path.write_bytes(whole[:size])
        with pytest.raises(UserError) as error:
            import_model(damaged, tmp_path / "ours")
        assert "\n" not in str(error.value)
        assert str(damaged) in str(error.value)


ARRAYS: dict[str, tuple[Callable[[dict[str, np.ndarray]], Any], str]] = {
    "not finite": (lambda a: a["final_logits_bias"].fill(np.nan), "not finite"),
    "integers": (
        lambda a: a.update(final_logits_bias=a["final_logits_bias"].astype(np.int32)),
        "holds int32",
    ),
    "one more": (lambda a: a.update(extra=np.zeros(3, np.float32)), "'extra', which such a model"),
    "other positions": (
        lambda a: a.update(
            {"model.encoder.embed_positions.weight": np.zeros((64, 16), np.float32)}
        ),
        "holds other numbers than the sines",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_refused(name: str, damaged: Path, tmp_path: Path) -> None:
    change, message = ARRAYS[name]
    edit_arrays(damaged / "model.safetensors", change)
    with pytest.raises(UserError, match=message):
        import_model(damaged, tmp_path / "ours")


@pytest.mark.parametrize("shape", [[1] * 70 + [3], [0, 2**62]])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_shapes_that_numpy_cannot_hold_are_refused(
    shape: list[int], dtype: str, damaged: Path, tmp_path: Path
) -> None:
    size = 0 if 0 in shape else {"F32": 12, "BF16": 6}[dtype]
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    path = damaged / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(UserError, match=r"'a' has the shape .* not supported|lacks the array"):
        import_model(damaged, tmp_path / "ours")


def test_numbers_beyond_float32_are_refused(damaged: Path, tmp_path: Path) -> None:
    def change(arrays: dict[str, np.ndarray]) -> None:
        arrays["final_logits_bias"] = np.full_like(arrays["final_logits_bias"], 1e300, np.float64)

    edit_arrays(damaged / "model.safetensors", change)
    with pytest.raises(UserError, match="not finite"):
        import_model(damaged, tmp_path / "ours")


def test_half_precision_is_read(damaged: Path, tmp_path: Path) -> None:
    import_model(damaged, tmp_path / "whole")
    edit_arrays(
        damaged / "model.safetensors",
        lambda arrays: arrays.update({n: a.astype(np.float16) for n, a in arrays.items()}),
    )
    import_model(damaged, tmp_path / "half")
    whole, half = (Translator.load(tmp_path / n).model.parameters() for n in ("whole", "half"))
    for name, parameter in whole.items():
        expected = parameter.numpy().astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(half[name].numpy(), expected)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"a": 0, "b": 0}, "two tokens with the id 0"),
        ({"a": 0, "b": 9}, "does not fit the model: 'b' has the id 9"),
        ({"a": 0, "b": True}, "'b' has the id True"),
        ({"a": 0, "b": "1"}, "'b' has the id '1'"),
        ({"a": 0, "b\ud800": 1}, "is not text"),
        ({"a": 0, "<unused 1>": 2}, "'<unused 1>' twice"),
        ({"b": 0}, "has no 'a'"),
    ],
)
def test_vocabularies_that_contradict_themselves_are_refused(ids: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Vocabulary.of_ids(ids, 3, begin_id=0, end_id=0, unknown="a")


def test_a_vocabulary_is_restored_from_its_file() -> None:
    vocabulary = Vocabulary.of_ids({"a": 0, "▁ö": 2}, 4, begin_id=3, end_id=1, unknown="a")
    assert Vocabulary.of_json(vocabulary.json, "here") == vocabulary
    assert list(vocabulary.pieces) == ["a", "<unused 1>", "▁ö", "<unused 3>"]
    for content in (b"[]", b"{}", vocabulary.json[:-9], vocabulary.json.replace(b"3", b"4")):
        with pytest.raises(UserError, match="here"):
            Vocabulary.of_json(content, "here")
