"""Transformers of JoeyNMT, imported, compute what JoeyNMT does; what we cannot is refused."""

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

from npformer import Packed, SearchSettings, Tokenizer, Translator, search
from npformer.formats.importing import import_model
from npformer.sentencepiece_model import Kind, SentencePieceModel, restricted
from tests.formats.foreign import lines
from tests.formats.joeynmt_peer import joeynmt_logits, write_joeynmt
from tests.formats.network import Shape, State, logits_of_pairs, own_pieces, shapes, spm
from tests.formats.refusals import edit_arrays, refusal
from tests.pages import blocks, text_of
from train.__main__ import main

SENTENCES = [*lines(4, seed=7), "a", "the caXt Ж runs"]
UNKNOWN, PAD, BEGIN, END = range(4)


@pytest.fixture(scope="module")
def given_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("joeynmt") / "theirs"
    write_joeynmt(directory, Shape(shared="target", joined=False, pre=True))
    return directory


@pytest.fixture
def damaged(given_directory: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(given_directory, tmp_path / "theirs")


def imported(directory: Path) -> Translator:
    import_model(directory, directory.parent / "ours")
    return Translator.load(directory.parent / "ours")


@given(
    shape=shapes(), swish=st.booleans(), tied=st.sampled_from([None, True]), seed=st.integers(0, 99)
)
@settings(max_examples=8, deadline=None)
def test_logits_are_those_of_joeynmt(
    shape: Shape, swish: bool, tied: bool | None, seed: int
) -> None:
    if shape.shared != "none" or not shape.joined:
        tied = None
    with tempfile.TemporaryDirectory() as directory:
        theirs = Path(directory, "theirs")
        state = write_joeynmt(theirs, shape, seed, swish=swish, tied=tied)
        for source, target, found in logits_of_pairs(imported(theirs), SENTENCES):
            expected = joeynmt_logits(state, shape, source, target, swish=swish)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_a_token_at_a_time_is_the_same(tmp_path: Path) -> None:
    """Greedy search, which begins with <s> and never chooses it, nor the padding."""
    shape = Shape(scaled=False)
    state = write_joeynmt(tmp_path / "theirs", shape)
    ours = imported(tmp_path / "theirs")
    sources = [[*ids, END] for ids in ours.tokenizers.source.encode_lines(SENTENCES)]
    chosen = SearchSettings(beam=1, max_length=12)
    found = search(ours.model, Packed.of(sources), chosen, BEGIN, END)
    for source, [best] in zip(sources, found, strict=True):
        ids = [BEGIN]
        while len(ids) <= 12 and ids[-1] != END:
            logits = joeynmt_logits(state, shape, source, ids)[-1]
            logits[[BEGIN, PAD]] = -np.inf
            ids.append(int(logits.argmax()))
        assert best.ids == [i for i in ids[1:] if i != END]


def test_the_command_tells_what_it_has_read(
    given_directory: Path, tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "ours"
    assert main(["import", str(given_directory), "--out", str(out)]) == 0
    assert "2 + 1 layers, d_model 12" in capfd.readouterr().err
    ours = Translator.load(out)
    assert ours.translate(["", "the dog."])[0].text == ""
    assert ours.longest_source == 100  # that it was trained with
    card = (out / "README.md").read_text()
    assert "# Transformer for translation, en to de\n" in card
    assert "It was imported from JoeyNMT;" in card


def test_text_is_divided_only_into_known_pieces(tmp_path: Path) -> None:
    """A vocabulary that was counted in a corpus lacks pieces of the SentencePiece model."""
    write_joeynmt(tmp_path / "theirs", Shape(shared="target", joined=False))
    path = tmp_path / "theirs" / "src_vocab.txt"
    whole = path.read_text().splitlines()
    kept = [piece for i, piece in enumerate(whole) if i < 4 or i % 3]
    path.write_text("\n".join(kept) + "\n")

    def shorten(arrays: State) -> None:
        arrays["src_embed.lut.weight"] = arrays["src_embed.lut.weight"][: len(kept)]

    edit_arrays(tmp_path / "theirs" / "best.safetensors", shorten)
    tokenizer = imported(tmp_path / "theirs").tokenizers.source
    found = [p for text in SENTENCES for p in tokenizer._processor.encode(text, out_type=str)]
    assert all(piece in kept or len(piece) == 1 for piece in found)
    assert any(
        piece not in kept and len(piece) > 1
        for text in SENTENCES
        for piece in Tokenizer(spm("source"))._processor.encode(text, out_type=str)
    )
    assert tokenizer.encode_lines(SENTENCES[:1]) == [
        [
            kept.index(p) if p in kept else UNKNOWN
            for p in tokenizer._processor.encode(text, out_type=str)
        ]
        for text in SENTENCES[:1]
    ]


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_a_restricted_model_keeps_all_else(algorithm: Any) -> None:
    model = Tokenizer.train(lines(400), 56, algorithm=algorithm, byte_fallback=False).model
    before = SentencePieceModel.of(model).pieces
    assert restricted(model, {piece.text for piece in before}) == model
    known = {piece.text for piece in before[::2]}
    for one, other in zip(
        before, SentencePieceModel.of(restricted(model, known)).pieces, strict=True
    ):
        gone = one.kind is Kind.NORMAL and len(one.text) > 1 and one.text not in known
        assert other == one._replace(kind=Kind.UNUSED if gone else one.kind)


def test_the_vocabulary_begins_with_the_special_tokens(tmp_path: Path) -> None:
    """Whether the file has them or not; and one that the training was given serves, too."""
    write_joeynmt(tmp_path / "theirs", Shape())
    before = imported(tmp_path / "theirs").tokenizers
    for side in ("src", "trg"):
        path = tmp_path / "theirs" / f"{side}_vocab.txt"
        tokens = path.read_text().splitlines()
        path.unlink()
    (tmp_path / "theirs" / "sp.vocab").write_text("\n".join([*tokens[4:], "</s>"]) + "\n")
    after = imported(tmp_path / "theirs").tokenizers
    assert before.shared
    assert after.sha256 == before.sha256
    assert after.source.pieces(range(4)) == ["<unk>", "<pad>", "<s>", "</s>"]
    assert own_pieces(spm("both")) == after.source.pieces(range(4, after.source.vocab_size))


def test_one_name_of_a_matrix_suffices(tmp_path: Path) -> None:
    """As safetensors leaves out the others when it is asked to save a model."""
    write_joeynmt(tmp_path / "theirs", Shape())
    before = imported(tmp_path / "theirs").model.parameters()
    names = ["src_embed.lut.weight", "trg_embed.lut.weight"]
    path = tmp_path / "theirs" / "best.safetensors"
    edit_arrays(path, lambda arrays: [arrays.pop(name) for name in names])
    after = imported(tmp_path / "theirs").model.parameters()
    for name, parameter in before.items():
        np.testing.assert_array_equal(after[name].numpy(), parameter.numpy())


@pytest.fixture
def checkpointed(damaged: Path) -> Path:
    """A copy with the checkpoint of a training in place of the safetensors."""
    torch = pytest.importorskip("torch", reason="it writes checkpoints")
    state = load_file(damaged / "best.safetensors")
    (damaged / "best.safetensors").unlink()
    model = {name: torch.from_numpy(array) for name, array in state.items()}
    moments = {
        i: {"step": torch.tensor(7.0), "exp_avg": torch.zeros_like(tensor)}
        for i, tensor in enumerate(model.values())
    }
    group = {"lr": 1e-4, "betas": (0.9, 0.98), "foreach": None, "params": list(moments)}
    checkpoint = {
        "model_state": model,
        "optimizer_state": {"state": moments, "param_groups": [group]},
        "scaler_state": {"scale": 65536.0, "_growth_tracker": 0},
        "scheduler_state": None,
        "train_iter_state": torch.Generator().get_state(),
        "stats_state": {"epochs": 1, "steps": 7, "best_ckpt_score": -float("inf")},
    }
    torch.save(checkpoint, damaged / "7.ckpt")
    (damaged / "best.ckpt").symlink_to("7.ckpt")
    (damaged / "latest.ckpt").symlink_to("7.ckpt")
    return damaged


def test_a_checkpoint_is_read_as_the_training_left_it(checkpointed: Path, tmp_path: Path) -> None:
    """And without PyTorch; see `test_state_dict` for what is refused."""
    torch = pytest.importorskip("torch")
    state = torch.load(checkpointed / "best.ckpt")["model_state"]
    import_model(checkpointed, tmp_path / "ours")
    found = Translator.load(tmp_path / "ours").model.parameters()
    np.testing.assert_array_equal(
        found["encoder.0.feed_forward.inner.weight"].numpy(),
        state["encoder.layers.0.feed_forward.pwff_layer.0.weight"].numpy().T,
    )


def test_what_a_checkpoint_must_not_hold_is_refused(checkpointed: Path) -> None:
    torch = pytest.importorskip("torch")
    path = checkpointed / "7.ckpt"
    whole = torch.load(path)
    torch.save({**whole, "stats_state": Path("/")}, path)
    refusal(checkpointed, "it names 'pathlib.*', which a state dict does not need")
    torch.save({**whole, "stats_state": {1 << 20: 0}}, path)
    refusal(checkpointed, "it has a int as a key")
    torch.save(whole["model_state"], path)
    refusal(checkpointed, "it holds no dict of tensors")
    torch.save(whole, path, _use_new_zipfile_serialization=False)
    refusal(checkpointed, "it was written before PyTorch 1.6")
    (checkpointed / "best.ckpt").unlink()
    refusal(checkpointed, r"holds 2 files \*.ckpt \(7.ckpt, latest.ckpt\)")
    for name in ("7.ckpt", "latest.ckpt"):
        (checkpointed / name).unlink()
    refusal(checkpointed, "holds no checkpoint, and no weights in safetensors")


def test_the_lines_of_the_page_make_safetensors(
    checkpointed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = import_model(checkpointed, tmp_path / "before")
    monkeypatch.chdir(checkpointed)
    exec(blocks("python", text_of("docs/importing.md"))[1], {})
    for path in checkpointed.glob("*.ckpt"):
        path.unlink()
    assert import_model(checkpointed, tmp_path / "after") == before


def edited(directory: Path, before: str, after: str, count: int = 1) -> None:
    """Replace the last `count` occurrences in the configuration."""
    path = directory / "config.yaml"
    parts = path.read_text().rsplit(before, count)
    assert len(parts) == count + 1
    path.write_text(after.join(parts))


def test_a_first_version_normalises_before_layers(damaged: Path, tmp_path: Path) -> None:
    before = import_model(damaged, tmp_path / "named")
    edited(damaged, '        layer_norm: "pre"\n', "", 2)
    assert import_model(damaged, tmp_path / "unnamed") == before
    assert before.norm == "pre"


def test_unknown_words_can_be_ruled_out(damaged: Path, tmp_path: Path) -> None:
    assert import_model(damaged, tmp_path / "ours").suppressed_ids == (BEGIN, PAD)
    edited(damaged, "    beam_size: 5\n", "    generate_unk: False\n")
    assert import_model(damaged, tmp_path / "ours").suppressed_ids == (BEGIN, PAD, UNKNOWN)


SETTINGS: dict[str, tuple[str, str, int, str]] = {
    "recurrent": ('type: "transformer"', 'type: "recurrent"', 2, "encoder.type = 'recurrent'"),
    "a residual factor": (
        "        activation",
        "        alpha: 2.0\n        activation",
        1,
        "model.decoder.alpha = 2.0 is not supported",
    ),
    "gelu": ('"relu"', '"gelu"', 2, "activation = 'gelu' is not supported, only relu and swish"),
    "activations": ('"relu"', '"swish"', 1, "encoder.activation is 'relu' and model.decoder"),
    "norms": ('"pre"', '"post"', 1, "encoder.layer_norm is 'pre' and model.decoder.layer_norm 'po"),
    "post-norm": ('"pre"', '"post"', 2, "'decoder.layer_norm.bias', which such a model has no"),
    "another norm": ('"pre"', '"sandwich"', 2, "layer_norm = 'sandwich' is not supported, only"),
    "heads": ("num_heads: 3", "num_heads: 4", 1, "num_heads is 3 and model.decoder.num_heads 4"),
    "a size": ("ff_size: 20", "ff_size: 21", 1, "ff_size is 21, and the arrays of the model have"),
    "layers": ("num_layers: 1", "num_layers: 2", 1, "num_layers is 2, and the arrays of the model"),
    "scales": ("scale: True", "scale: False", 1, "encoder.embeddings.scale is True and model"),
    "tied": ("tied_embeddings: False", "tied_embeddings: True", 1, "the two vocabularies differ"),
    "an unknown setting": (
        "        activation",
        "        gated: True\n        activation",
        1,
        "a model with model.decoder.gated = True is not supported",
    ),
    "another tokenizer": (
        '"sentencepiece"',
        '"subword-nmt"',
        1,
        "data.trg.tokenizer_type = 'subword-nmt' is not supported, only 'sentencepiece'",
    ),
    "words": ('level: "bpe"', 'level: "word"', 1, "data.trg.level = 'word' is not supported"),
    "lower case": (
        "lowercase: False",
        "lowercase: True",
        1,
        "data.trg.lowercase = True is not supported; give it text that is so already",
    ),
    "normalised": ("normalize: False", "normalize: True", 1, "data.trg.normalize = True"),
    "Moses": ('"none"', '"moses"', 1, "data.trg.tokenizer_cfg.pretokenizer = 'moses'"),
    "prompts": (
        "        eos_id: 3\n",
        '        eos_id: 3\n        sep_token: "<sep>"\n',
        1,
        "data.special_symbols.sep_token = '<sep>' is not supported",
    ),
    "language tags": (
        "        eos_id: 3\n",
        '        eos_id: 3\n        lang_tags: ["<de>"]\n',
        1,
        "lang_tags = ",
    ),
    "another id": ("pad_id: 1", "pad_id: 0", 1, "pad_id is 0, and the token has the id 1"),
    "an alias": ("use_cuda: False", "use_cuda: &a 1\nother: *a", 1, "aliases are not supported"),
    "no YAML": ("use_cuda: False", "use_cuda: [", 1, "is not YAML: "),
    "no date": ("use_cuda: False", "use_cuda: 2001-13-41", 1, "is not YAML: "),
    "nested deeply": ("use_cuda: False", "use_cuda: " + "[" * 1500, 1, "is nested too deeply"),
    "a section for a number": ("num_heads: 3", "num_heads: {}", 2, "num_heads is missing"),
    "a word for a number": ("num_heads: 3", "num_heads: three", 2, "must be a whole number; it is"),
    "a name of no file": (
        'model_file: "elsewhere/trg',
        'model_file: "elsewhere/\\0trg',
        1,
        "cannot read the tokenizer .*: no file can have this name",
    ),
    "no model file": (
        "model_file:",
        "other_file:",
        1,
        "data.trg.tokenizer_cfg.model_file is missing",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_cannot_be_computed_is_refused_by_name(name: str, damaged: Path) -> None:
    before, after, count, message = SETTINGS[name]
    edited(damaged, before, after, count)
    refusal(damaged, message)


@pytest.mark.parametrize("content", ["", "[]", "words"])
def test_a_configuration_of_something_else_is_refused(content: str, damaged: Path) -> None:
    (damaged / "config.yaml").write_text(content)
    refusal(damaged, "config.yaml holds no configuration of JoeyNMT's")


@pytest.mark.parametrize(
    "file", ["config.yaml", "best.safetensors", "src_vocab.txt", "trg_vocab.txt", "src.model"]
)
def test_missing_and_truncated_files_are_refused(file: str, damaged: Path) -> None:
    path = damaged / file
    whole = path.read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 3, None):
        path.unlink(missing_ok=True)
        if size is not None:
            path.write_bytes(whole[:size])
        refusal(damaged)


def test_vocabularies_that_do_not_fit_are_refused(damaged: Path) -> None:
    path = damaged / "src_vocab.txt"
    whole = path.read_text()
    path.write_text(whole + "more\n")
    refusal(damaged, "does not fit the model: it makes 55 tokens with the special ones, and .src_")
    path.write_bytes(whole.encode() + b"\xff\n")
    refusal(damaged, "is not UTF-8")


ARRAYS: dict[str, tuple[Callable[[State], Any], str]] = {
    "not finite": (lambda a: a["encoder.layer_norm.bias"].fill(np.nan), "not finite"),
    "one more": (
        lambda a: a.update({"decoder.gate.weight": np.ones(12, np.float32)}),
        "'decoder.gate.weight', which such a model has no place",
    ),
    "one less": (
        lambda a: a.pop("decoder.layers.0.src_trg_att.k_layer.bias"),
        "lacks the array 'decoder.layers.0.src_trg_att.k_layer.bias'",
    ),
    "another shape": (
        lambda a: a.update({"decoder.layers.0.x_layer_norm.bias": np.ones(7, np.float32)}),
        r"has the shape \[7\]",
    ),
    "an output of its own": (
        lambda a: a["decoder.output_layer.weight"].__iadd__(1),
        "different numbers, and the configuration says that they are one matrix",
    ),
    "other positions": (
        lambda a: a["encoder.pe.pe"].__iadd__(0.1),
        "encoder.pe.pe holds other numbers than JoeyNMT's sines and cosines",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_that_do_not_fit_are_refused(name: str, damaged: Path) -> None:
    change, message = ARRAYS[name]
    edit_arrays(damaged / "best.safetensors", change)
    refusal(damaged, message)
