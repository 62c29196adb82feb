"""`npformer export --format marian`: transformers computes what our model computes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Batch, Tokenizer, TokenizerPair, Transformer, TransformerConfig, Translator
from npformer.checkpoint import save_model
from npformer.errors import UserError
from npformer.formats.exporting import export_model
from npformer.formats.importing import import_model
from npformer.vocabulary import Vocabulary
from tests.formats.foreign import lines, marian_model, marian_tokenizer, sentencepiece
from tests.npformer.models import lively
from train.__main__ import main

torch = pytest.importorskip("torch", reason="exported models are compared with transformers")
transformers = pytest.importorskip("transformers", reason="exported models are compared with it")

SIZES: dict[str, Any] = {
    "layers": 2,
    "d_model": 16,
    "d_ff": 24,
    "heads": 4,
    "max_length": 64,
    "norm_epsilon": 1e-5,
}
MODELS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "one of many differences": {
        "decoder_layers": 1,
        "activation": "swish",
        "positions": "concatenated",
        "scale_embeddings": False,
        "output_bias": True,
        "suppressed_ids": (1,),
    },
    "target shared": {"share_embeddings": "target"},
    "nothing shared": {"share_embeddings": "none"},
}

DIFFERENT_TOKENS: list[dict[str, int]] = [{"end_id": 5}, {"unknown_id": 5}]


def saved(directory: Path, separate: bool = False, **changes: Any) -> Translator:
    """A random model of ours, and its directory."""
    source = Tokenizer(sentencepiece(1))
    tokenizers = TokenizerPair(source, Tokenizer(sentencepiece(2, 48)) if separate else source)
    size = tokenizers.target.vocab_size
    source_size = source.vocab_size if separate else None
    config = TransformerConfig(
        vocab_size=size, source_vocab_size=source_size, **{**SIZES, **changes}
    )
    model = lively(Transformer(config, seed=3))
    save_model(directory, model, tokenizers)
    return Translator(model, tokenizers)


def saved_with_special_ids(directory: Path, both: bool = False, **special: int) -> list[str]:
    """A model of ours whose target, or both sides, have special tokens of their own.

    Returns the pieces of its vocabulary.
    """
    tokenizer = Tokenizer(sentencepiece(1))
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    ids = {"begin_id": 1, "end_id": 2, "unknown_id": 0}
    target = Tokenizer(tokenizer.model, Vocabulary(pieces, **{**ids, **special}))
    config = TransformerConfig(
        vocab_size=len(pieces), source_vocab_size=len(pieces), share_embeddings="target", **SIZES
    )
    tokenizers = TokenizerPair(target if both else tokenizer, target)
    save_model(directory, Transformer(config, seed=3), tokenizers)
    return pieces


def batch_of(ours: Translator) -> Batch:
    target = ours.tokenizers.target
    return Batch.of(
        ours.tokenizers.source.encode_lines(lines(6)),
        target.encode_lines(lines(6, seed=1)),
        begin_id=target.begin_id,
        end_id=target.end_id,
    )


def check_same_logits(ours: Translator, model: Any) -> None:
    batch = batch_of(ours)
    found = np.split(ours.model.logits(batch).value, batch.target_input.offsets[1:-1])
    for source, target, logits in zip(batch.source, batch.target_input, found, strict=True):
        with torch.no_grad():
            theirs = model(
                input_ids=torch.tensor(source[None].astype(int)),
                decoder_input_ids=torch.tensor(target[None].astype(int)),
            ).logits[0]
        np.testing.assert_allclose(logits, theirs.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "separate"),
    [*((name, False) for name in MODELS), ("target shared", True), ("nothing shared", True)],
)
def test_an_exported_model_computes_the_same(name: str, separate: bool, tmp_path: Path) -> None:
    ours = saved(tmp_path / "ours", separate, **MODELS[name])
    assert export_model(tmp_path / "ours", tmp_path / "theirs", "marian") == []
    model, told = transformers.MarianMTModel.from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not any(told[what] for what in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    check_same_logits(ours, model.eval())

    tokenizer = marian_tokenizer(tmp_path / "theirs")
    text = lines(5, seed=2)
    source, target = ours.tokenizers.source, ours.tokenizers.target
    assert tokenizer(text)["input_ids"] == [[*i, 2] for i in source.encode_lines(text)]
    expected = [[*i, 2] for i in target.encode_lines(text)]
    assert tokenizer(text_target=text)["input_ids"] == expected
    assert tokenizer.batch_decode(expected, skip_special_tokens=True) == text

    import_model(tmp_path / "theirs", tmp_path / "again")
    again = Translator.load(tmp_path / "again")
    batch = batch_of(again)
    np.testing.assert_array_equal(batch.source.tokens, batch_of(ours).source.tokens)
    np.testing.assert_allclose(
        again.model.logits(batch).value, ours.model.logits(batch).value, rtol=0, atol=1e-5
    )
    found = [t.text for t in again.translate(text)]
    assert found == [t.text for t in ours.translate(text)]


@pytest.mark.parametrize("separate", [False, True])
def test_an_imported_model_goes_out_as_it_came(separate: bool, tmp_path: Path) -> None:
    marian_model(tmp_path / "theirs", separate=separate)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    export_model(tmp_path / "ours", tmp_path / "again", "marian")
    before, after = (
        transformers.MarianMTModel.from_pretrained(tmp_path / name) for name in ("theirs", "again")
    )
    assert before.generation_config.bad_words_ids == after.generation_config.bad_words_ids
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name]), name
    for name in ("source.spm", "target.spm"):
        assert (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    for name in ("vocab.json", *["target_vocab.json"] * separate):
        one, other = (json.loads((tmp_path / d / name).read_text()) for d in ("theirs", "again"))
        assert one == other


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "pre"},
        {"decoder_start": "zero"},
        {"positions": "learned"},
        {"position_spacing": "d/2-1"},
        {"first_position": 2},
        {"d_k": 3},
        {"d_v": 5},
        {"attention_window": 3},
        {"activation": "gelu"},
    ],
    ids=str,
)
def test_what_the_format_cannot_hold_is_refused_by_name(
    changes: dict[str, Any], tmp_path: Path, capfd: Any
) -> None:
    saved(tmp_path / "ours", **changes)
    ours, out = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert main(["export", ours, "--format", "marian", "--out", out]) == 2
    ((name, value),) = changes.items()
    message = capfd.readouterr().err
    assert "npformer: error: Hugging Face's Marian cannot hold a model with" in message
    assert f"{name} = {value!r}" in message
    assert not Path(out).exists()


@pytest.mark.parametrize("changes", DIFFERENT_TOKENS, ids=str)
def test_vocabularies_with_different_special_ids_are_refused(
    changes: dict[str, int], tmp_path: Path
) -> None:
    saved_with_special_ids(tmp_path / "ours", **changes)
    with pytest.raises(UserError, match="Hugging Face's Marian cannot hold vocabularies with diff"):
        export_model(tmp_path / "ours", tmp_path / "theirs", "marian")
    assert not (tmp_path / "theirs").exists()


def test_special_tokens_keep_their_names(tmp_path: Path) -> None:
    pieces = saved_with_special_ids(tmp_path / "ours", both=True, end_id=5, unknown_id=6)
    export_model(tmp_path / "ours", tmp_path / "theirs", "marian")
    tokenizer = marian_tokenizer(tmp_path / "theirs")
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == (pieces[5], 5)
    assert (tokenizer.unk_token, tokenizer.unk_token_id) == (pieces[6], 6)


def test_another_epsilon_is_told(tmp_path: Path, capfd: Any) -> None:
    saved(tmp_path / "ours", norm_epsilon=1e-6)
    ours, out = str(tmp_path / "ours"), str(tmp_path / "theirs")
    assert main(["export", ours, "--format", "marian", "--out", out]) == 0
    assert "norm_epsilon is 1e-05 there, in place of 1e-06" in capfd.readouterr().err


def test_positions_reach_as_far_as_the_sentences_of_training(tmp_path: Path) -> None:
    saved(tmp_path / "ours", longest=99)  # with sinusoids, and a max_length of 64
    export_model(tmp_path / "ours", tmp_path / "theirs", "marian")
    config = transformers.MarianConfig.from_pretrained(tmp_path / "theirs")
    assert config.max_position_embeddings == 100
    assert marian_tokenizer(tmp_path / "theirs").model_max_length == 100


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    saved(tmp_path / "ours")
    with pytest.raises(UserError, match="is not empty"):
        export_model(tmp_path / "ours", tmp_path / "ours", "marian")
    with pytest.raises(UserError, match="there is no model directory"):
        export_model(tmp_path / "theirs", tmp_path / "out", "marian")
    with pytest.raises(
        UserError, match="there is no format 'onnx'; choose one of marian, ctranslate2"
    ):
        export_model(tmp_path / "ours", tmp_path / "out", "onnx")
