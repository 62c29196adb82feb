"""Transformers of fairseq, imported, compute what fairseq does; what we cannot is refused."""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from npformer import Packed, SearchSettings, Translator, UserError, search
from npformer.formats.importing import import_model
from tests.formats.fairseq_peer import fairseq_logits, write_fairseq
from tests.formats.foreign import lines
from tests.formats.network import Shape, State, logits_of_pairs, own_pieces, shapes, spm
from tests.formats.refusals import edit_arrays, edit_json, refusal
from tests.pages import blocks, text_of
from train.__main__ import main

SENTENCES = [*lines(4, seed=7), "a", "the caXt Ж runs"]


@pytest.fixture(scope="module")
def given_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("fairseq") / "theirs"
    write_fairseq(directory, Shape(shared="target", joined=False))
    return directory


@pytest.fixture
def damaged(given_directory: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(given_directory, tmp_path / "theirs")


def imported(directory: Path) -> Translator:
    import_model(directory, directory.parent / "ours")
    return Translator.load(directory.parent / "ours")


def assert_same_logits(ours: Translator, state: State, shape: Shape) -> None:
    for source, target, found in logits_of_pairs(ours, SENTENCES):
        expected = fairseq_logits(state, shape, source, target)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@given(shape=shapes(learned=True), seed=st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_logits_are_those_of_fairseq(shape: Shape, seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        theirs = Path(directory, "theirs")
        state = write_fairseq(theirs, shape, seed)
        assert_same_logits(imported(theirs), state, shape)


@pytest.mark.parametrize("learned", [False, True])
def test_a_token_at_a_time_is_the_same(learned: bool, tmp_path: Path) -> None:
    """Greedy search, in which the decoder begins with </s> at fairseq's first position."""
    shape = Shape(learned=learned)
    state = write_fairseq(tmp_path / "theirs", shape)
    ours = imported(tmp_path / "theirs")
    end, pad = 2, 1
    sources = [[*ids, end] for ids in ours.tokenizers.source.encode_lines(SENTENCES)]
    chosen = SearchSettings(beam=1, max_length=12)
    found = search(ours.model, Packed.of(sources), chosen, end, end)
    for source, [best] in zip(sources, found, strict=True):
        ids = [end]
        while len(ids) <= 12 and (len(ids) == 1 or ids[-1] != end):
            logits = fairseq_logits(state, shape, source, ids)[-1]
            logits[pad] = -np.inf
            ids.append(int(logits.argmax()))
        assert best.ids == [i for i in ids[1:] if i != end]


def test_the_ids_are_those_of_the_dictionaries(given_directory: Path, tmp_path: Path) -> None:
    import_model(given_directory, tmp_path / "ours")
    tokenizers = Translator.load(tmp_path / "ours").tokenizers
    assert not tokenizers.shared
    for tokenizer, side in ((tokenizers.source, "source"), (tokenizers.target, "target")):
        pieces = ["<s>", "<pad>", "</s>", "<unk>", *own_pieces(spm(side))]
        known = {piece: i for i, piece in enumerate(pieces)}
        divided = tokenizer._processor.encode(SENTENCES, out_type=str)
        expected = [[known.get(piece, 3) for piece in some] for some in divided]
        assert tokenizer.encode_lines(SENTENCES) == expected
        assert any(3 in ids for ids in expected)
        assert tokenizer.vocab_size % 8 == 0


def test_the_command_tells_what_it_has_read(
    given_directory: Path, tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "ours"
    assert main(["import", str(given_directory), "--out", str(out)]) == 0
    assert "2 + 1 layers, d_model 12" in capfd.readouterr().err
    assert Translator.load(out).translate(["", "the dog."])[0].text == ""
    card = (out / "README.md").read_text()
    assert "# Transformer for translation, en to de\n" in card
    assert "It was imported from fairseq;" in card


def test_a_joined_dictionary_makes_one_tokenizer(tmp_path: Path) -> None:
    write_fairseq(tmp_path / "theirs", Shape())
    ours = imported(tmp_path / "theirs")
    assert ours.tokenizers.shared
    assert ours.model.config.source_vocab_size is None


def test_one_name_of_a_matrix_suffices(tmp_path: Path) -> None:
    """As safetensors leaves out the others when it is asked to save a model."""
    write_fairseq(tmp_path / "theirs", Shape())
    before = imported(tmp_path / "theirs").model.parameters()
    names = ["decoder.output_projection.weight", "encoder.embed_tokens.weight"]
    path = tmp_path / "theirs" / "model.safetensors"
    edit_arrays(path, lambda arrays: [arrays.pop(name) for name in names])
    after = imported(tmp_path / "theirs").model.parameters()
    for name, parameter in before.items():
        np.testing.assert_array_equal(after[name].numpy(), parameter.numpy())


def nested(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments in the form of a configuration."""
    task = {name: arguments.pop(name) for name in ("source_lang", "target_lang")}
    model: dict[str, Any] = {"_name": "transformer", "encoder": {}, "decoder": {}}
    for name, value in arguments.items():
        side, _, rest = name.partition("_")
        (model[side] if side in ("encoder", "decoder") else model)[rest or side] = value
    for name in ("arch", "task"):
        model.pop(name, None)
    model |= {
        name: value
        for name, value in arguments.items()
        if not name.startswith(("encoder_", "decoder_", "arch", "task"))
    }
    return {"model": model, "task": {"_name": "translation", **task}, "criterion": {"x": None}}


def test_a_configuration_in_sections_is_read_alike(damaged: Path, tmp_path: Path) -> None:
    before = import_model(damaged, tmp_path / "flat")
    path = damaged / "args.json"
    path.write_text(json.dumps(nested(json.loads(path.read_text()))))
    assert import_model(damaged, tmp_path / "nested") == before


def test_checkpoints_of_early_versions_are_read(damaged: Path, tmp_path: Path) -> None:
    """Queries, keys and values in one matrix, and norms with numbers."""
    import_model(damaged, tmp_path / "new")

    def aged(arrays: State) -> None:
        numbers = {"self_attn": 0, "encoder_attn": 1, "final": 2}
        for name in sorted(arrays):
            stem, _, kind = name.rpartition(".")
            if stem.endswith("attn.q_proj"):
                stem = stem.removesuffix(".q_proj")
                parts = [arrays.pop(f"{stem}.{letter}_proj.{kind}") for letter in "qkv"]
                arrays[f"{stem}.in_proj_{kind}"] = np.concatenate(parts)
            elif stem.endswith("_layer_norm"):
                layer, _, norm = stem.removesuffix("_layer_norm").rpartition(".")
                number = min(numbers[norm], 1) if layer.startswith("encoder") else numbers[norm]
                arrays[f"{layer}.layer_norms.{number}.{kind}"] = arrays.pop(name)
        arrays["decoder.embed_positions.weights"] = np.zeros((7, 12), np.float32)
        del arrays["decoder.output_projection.weight"]

    edit_arrays(damaged / "model.safetensors", aged)
    import_model(damaged, tmp_path / "old")
    new, old = (Translator.load(tmp_path / n).model.parameters() for n in ("new", "old"))
    for name, parameter in new.items():
        np.testing.assert_array_equal(old[name].numpy(), parameter.numpy())


@pytest.mark.parametrize("form", ["args", "cfg"])
def test_the_lines_of_the_page_make_the_directory(
    form: str, damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a checkpoint, in which the early versions kept arguments, and the later ones a cfg."""
    torch = pytest.importorskip("torch", reason="the lines use it")
    before = import_model(damaged, tmp_path / "before")
    path = damaged / "args.json"
    arguments = json.loads(path.read_text())
    state = load_file(damaged / "model.safetensors")
    checkpoint: dict[str, Any] = {
        "model": {name: torch.from_numpy(array) for name, array in state.items()},
        "args": argparse.Namespace(**arguments),
    }
    if form == "cfg":
        values = nested(arguments)
        values["model"] = argparse.Namespace(**values["model"])
        checkpoint |= {"args": None, "cfg": values}
    torch.save(checkpoint, damaged / "checkpoint_best.pt")
    path.unlink()
    (damaged / "model.safetensors").unlink()
    monkeypatch.chdir(damaged)
    exec(blocks("python", text_of("docs/importing.md"))[0], {})
    assert import_model(damaged, tmp_path / "after") == before


ARGUMENTS: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"arch": "lightconv_wmt_en_de"}, "arch = 'lightconv_wmt_en_de' is"),
    "no architecture": ({"arch": None}, "arch is missing"),
    "another task": ({"task": "translation_multi_simple_epoch"}, "task = 'translation_multi"),
    "gelu": ({"activation_fn": "gelu"}, "activation_fn = 'gelu' is not supported"),
    "norms": ({"decoder_normalize_before": True}, "encoder_normalize_before is False and decoder"),
    "pre-norm": (
        {"encoder_normalize_before": True, "decoder_normalize_before": True},
        "lacks the array 'encoder.layer_norm.weight'",
    ),
    "heads": ({"decoder_attention_heads": 4}, "encoder_attention_heads is 3 and decoder_atten"),
    "no heads": ({"encoder_attention_heads": None}, "encoder_attention_heads is missing; it must"),
    "other heads": (
        {"encoder_attention_heads": 5, "decoder_attention_heads": 5},
        "d_model must be divisible by heads",
    ),
    "positions": ({"encoder_learned_pos": True}, "encoder_learned_pos is True and decoder_learned"),
    "a size": ({"decoder_layers": 3}, "decoder_layers is 3, and the arrays of the model have 1"),
    "a width": ({"encoder_ffn_embed_dim": 21}, "encoder_ffn_embed_dim is 21, and the arrays"),
    "a word for a number": ({"encoder_attention_heads": "4"}, "must be a whole number; it is '4'"),
    "a number for a flag": ({"share_all_embeddings": 1}, "share_all_embeddings must be true or"),
    "shared embeddings": ({"share_all_embeddings": True}, "true, and the two dictionaries differ"),
    "no language": ({"source_lang": None}, "source_lang is missing"),
    "a path for a language": ({"source_lang": "../en"}, "source_lang must be a language"),
    "another language": ({"source_lang": "fr"}, "cannot read .*dict.fr.txt"),
    **{
        name: ({name: value}, f"{name} = {value!r}")
        for name, value in {
            "cross_self_attention": True,
            "no_cross_attention": True,
            "adaptive_input": True,
            "char_inputs": True,
            "layernorm_embedding": True,
            "no_token_positional_embeddings": True,
            "no_decoder_final_norm": True,
            "merge_src_tgt_embed": True,
            "encoder_layers_to_keep": "0,1",
            "quant_noise_scalar": 0.5,
            "base_layers": 1,
            "scale_heads": True,
        }.items()
    },
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_cannot_be_computed_is_refused_by_name(name: str, damaged: Path) -> None:
    changes, message = ARGUMENTS[name]
    edit_json(damaged / "args.json", **changes)
    refusal(damaged, message)


@pytest.mark.parametrize(
    "file",
    ["args.json", "model.safetensors", "dict.en.txt", "dict.de.txt", "spm.en.model"],
)
def test_missing_and_truncated_files_are_refused(file: str, damaged: Path) -> None:
    path = damaged / file
    whole = path.read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 3, None):
        path.unlink(missing_ok=True)
        if size is not None:
            path.write_bytes(whole[:size])
        refusal(damaged)


def test_several_candidates_for_a_file_are_refused(damaged: Path) -> None:
    shutil.copy(damaged / "model.safetensors", damaged / "another.safetensors")
    refusal(damaged, r"holds 2 files \*.safetensors \(another.safetensors, model.safetensors\)")
    (damaged / "another.safetensors").unlink()
    (damaged / "spm.en.model").rename(damaged / "one.model")
    refusal(damaged, r"holds no SentencePiece model, .* \(\*.en.model\)")
    (damaged / "spm.de.model").rename(damaged / "other.model")
    refusal(damaged, r"holds 2 files \*.model \(one.model, other.model\)")


DICTIONARIES: dict[str, tuple[Callable[[str], str], str]] = {
    "a line less": (
        lambda text: text[text.index("\n") + 1 :],
        "does not fit the model: it makes 55",
    ),
    "a line more": (lambda text: text + "more 0\n", "does not fit the model: it makes 57"),
    "a token twice": (lambda text: text + text.split("\n")[0], "twice"),
    "a special token": (lambda text: text + "<unk> 1\n", "the token '<unk>' twice"),
    "no count": (lambda text: text + "word\n", r"line 53 is not a token and its count: 'word'"),
    "an empty line": (lambda text: text + "\n", "line 53 is not a token"),
    "no UTF-8": (lambda text: text + "\udcff 1\n", "is not UTF-8"),
}


@pytest.mark.parametrize("name", DICTIONARIES)
def test_dictionaries_that_do_not_fit_are_refused(name: str, damaged: Path) -> None:
    change, message = DICTIONARIES[name]
    path = damaged / "dict.en.txt"
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    refusal(damaged, message)


ARRAYS: dict[str, tuple[Callable[[State], Any], str]] = {
    "not finite": (lambda a: a["encoder.layers.0.fc1.bias"].fill(np.nan), "not finite"),
    "one more": (
        lambda a: a.update({"encoder.layernorm_embedding.weight": np.ones(12, np.float32)}),
        "'encoder.layernorm_embedding.weight', which such a model has no place",
    ),
    "one less": (
        lambda a: a.pop("decoder.layers.0.encoder_attn.k_proj.bias"),
        "lacks the array 'decoder.layers.0.encoder_attn.k_proj.bias'",
    ),
    "no embedding": (
        lambda a: a.pop("encoder.embed_tokens.weight"),
        "lacks the array 'encoder.embed_tokens.weight'",
    ),
    "another shape": (
        lambda a: a.update({"decoder.layers.0.fc2.weight": np.ones((12, 21), np.float32)}),
        r"has the shape \[12, 21\]",
    ),
    "no matrix": (
        lambda a: a.update({"decoder.embed_tokens.weight": np.ones(3, np.float32)}),
        "has 1 dimensions, not 2",
    ),
    "an output of its own": (
        lambda a: a["decoder.output_projection.weight"].__iadd__(1),
        "different numbers, and the configuration says that they are one matrix",
    ),
    "integers": (
        lambda a: a.update({"encoder.layers.0.fc1.bias": np.zeros(20, np.int32)}),
        "holds int32",
    ),
    "old matrices that cannot be divided": (
        lambda a: a.update({"encoder.layers.0.self_attn.in_proj_bias": np.zeros(7, np.float32)}),
        "'encoder.layers.0.self_attn.in_proj_bias', which such",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_refused(name: str, damaged: Path) -> None:
    change, message = ARRAYS[name]
    edit_arrays(damaged / "model.safetensors", change)
    refusal(damaged, message)


def test_learned_positions_are_as_many_as_both_sides_have(tmp_path: Path) -> None:
    shape = Shape(learned=True, positions=30)
    state = write_fairseq(tmp_path / "theirs", shape)

    def shorten(arrays: State) -> None:
        arrays["decoder.embed_positions.weight"] = arrays["decoder.embed_positions.weight"][:22]

    edit_arrays(tmp_path / "theirs" / "model.safetensors", shorten)
    ours = imported(tmp_path / "theirs")
    assert ours.model.config.max_length == 20
    learned = state["encoder.embed_positions.weight"]
    np.testing.assert_array_equal(
        ours.model.parameters()["source_positions"].numpy(), learned[2:22]
    )
    with pytest.raises(UserError, match="40 tokens, more than the 19"):
        ours.translate([" ".join(["house"] * 40)], long_lines="refuse")
