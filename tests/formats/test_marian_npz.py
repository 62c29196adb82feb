"""Marian's own models: CTranslate2, which reads them too, computes the same."""

import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Tokenizer, Translator, UserError
from npformer.formats.importing import import_model
from npformer.formats.marian import _yaml_ids
from npformer.positions import sinusoids
from tests.formats.foreign import sentencepiece, vocabulary
from tests.formats.test_export_ctranslate2 import check_scores

SETTINGS_NAME = "special:model.yml"
D, D_FF, HEADS, LAYERS, DECODER_LAYERS = 16, 24, 4, 2, 1
SETTINGS = f"""\
dim-emb: {D}
dim-vocabs:
  - 58101
enc-depth: {LAYERS}
dec-depth: {DECODER_LAYERS}
transformer-decoder-autoreg: self-attention
transformer-dim-ffn: {D_FF}
transformer-ffn-activation: swish
transformer-guided-alignment-layer: last
transformer-heads: {HEADS}
transformer-no-projection: false
transformer-postprocess: dan
transformer-postprocess-emb: d
transformer-postprocess-top: ""
transformer-preprocess: ""
transformer-tied-layers:
  []
type: transformer
"""
PRE = {
    "transformer-preprocess": "n",
    "transformer-postprocess": "da",
    "transformer-postprocess-top": "n",
}


def settings(**changes: str) -> str:
    text = SETTINGS
    for name, value in changes.items():
        text = re.sub(f"^{name}: .*$", f"{name}: {value}", text, flags=re.MULTILINE)
    return text


def arrays(size: int, source_size: int | None, output: str, norm: str) -> dict[str, np.ndarray]:
    """Random parameters by Marian's names. source_size: of a vocabulary of its own."""
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, scale: float = 0.4) -> None:
        found[name] = (rng.standard_normal(shape) * scale).astype(np.float32)

    def add_norm(name: str) -> None:
        suffix = "_pre" if norm == "pre" and "top" not in name else ""
        add(f"{name}_ln_bias{suffix}", 1, D)
        add(f"{name}_ln_scale{suffix}", 1, D)
        found[f"{name}_ln_scale{suffix}"] += 1

    if source_size is None:
        add("Wemb", size, D)
    else:
        add("encoder_Wemb", source_size, D)
        add("decoder_Wemb", size, D)
    if output:
        add(f"decoder_ff_logit_out_{output}", *((D, size) if output == "W" else (size, D)))
    add("decoder_ff_logit_out_b", 1, size)
    for side, layers in (("encoder", LAYERS), ("decoder", DECODER_LAYERS)):
        for i in range(1, layers + 1):
            for part in ("self", "context")[: 1 + (side == "decoder")]:
                for letter in "qkvo":
                    add(f"{side}_l{i}_{part}_W{letter}", D, D)
                    add(f"{side}_l{i}_{part}_b{letter}", 1, D)
                add_norm(f"{side}_l{i}_{part}_Wo")
            for number, shape in (("1", (D, D_FF)), ("2", (D_FF, D))):
                add(f"{side}_l{i}_ffn_W{number}", *shape)
                add(f"{side}_l{i}_ffn_b{number}", 1, shape[1])
            add_norm(f"{side}_l{i}_ffn_ffn")
        if norm == "pre":
            add_norm(f"{side}_top")
    return found


def yaml_of(ids: dict[str, int]) -> str:
    return "".join(f"{json.dumps(piece, ensure_ascii=False)}: {i}\n" for piece, i in ids.items())


def marian(
    directory: Path, separate: bool = False, output: str = "", norm: str = "post", **changes: str
) -> dict[str, np.ndarray]:
    """Write a directory as Marian leaves it; returns the arrays."""
    directory.mkdir()
    source, target = sentencepiece(1), sentencepiece(2, 48)
    (directory / "source.spm").write_bytes(source)
    (directory / "target.spm").write_bytes(target)
    ids = [vocabulary(source), vocabulary(target)] if separate else [vocabulary(source, target)]
    for vocab in ids:
        del vocab["<pad>"]
    names = ["a.yml", "b.yml"] if separate else ["vocab.yml"]
    for name, vocab in zip(names, ids, strict=True):
        (directory / name).write_text(yaml_of(vocab))
    if separate:
        listed = "".join(f"  - /trained/elsewhere/{name}\n" for name in names)
        (directory / "decoder.yml").write_text(
            f"models:\n  - x.npz\nvocabs:\n{listed}beam-size: 6\n"
        )
    found = arrays(len(ids[-1]), len(ids[0]) if separate else None, output, norm)
    text = settings(**changes, **(PRE if norm == "pre" else {}))
    found["special:model.yml"] = np.frombuffer(text.encode() + b"\0", np.int8)
    np.savez(directory / "model.npz", **found)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"separate": True, "transformer-ffn-activation": "relu"},
        {"norm": "pre", "output": "Wt"},
        {"output": "W"},
    ],
    ids=str,
)
def test_an_imported_model_computes_what_ctranslate2_computes(
    options: dict[str, Any], tmp_path: Path
) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2", reason="it reads Marian's models")
    from ctranslate2.converters import MarianConverter

    found = marian(tmp_path / "theirs", **options)
    import_model(tmp_path / "theirs", tmp_path / "ours")
    ours = Translator.load(tmp_path / "ours")
    # Its converter would take other frequencies, and another epsilon, than Marian.
    found["Wpos"] = sinusoids(64, D, "concatenated", "d/2-1").astype(np.float32)
    np.savez(tmp_path / "converted.npz", **found)
    names = ["a.yml", "b.yml"] if options.get("separate") else ["vocab.yml"]
    MarianConverter(
        str(tmp_path / "converted.npz"), [str(tmp_path / "theirs" / name) for name in names]
    ).convert(str(tmp_path / "converted"))
    config = tmp_path / "converted" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "layer_norm_epsilon": 1e-6}))
    theirs = ctranslate2.Translator(str(tmp_path / "converted"), compute_type="float32")
    assert ours.model.config.suppressed_ids == (ours.tokenizers.target.unknown_id,)
    check_scores(ours, theirs, suppressed=())


def test_the_length_of_sentences_is_kept(tmp_path: Path) -> None:
    marian(tmp_path / "theirs")
    assert import_model(tmp_path / "theirs", tmp_path / "ours").longest is None
    (tmp_path / "theirs" / "decoder.yml").write_text("vocabs:\n  - vocab.yml\nmax-length: 200\n")
    assert import_model(tmp_path / "theirs", tmp_path / "ours").longest == 199


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "s2s"}, "type = 's2s' is not supported"),
        ({"transformer-ffn-activation": "gelu"}, "transformer-ffn-activation = 'gelu'"),
        ({"transformer-postprocess-emb": "n"}, "transformer-postprocess-emb = 'n'"),
        ({"transformer-decoder-autoreg": "rnn"}, "transformer-decoder-autoreg = 'rnn'"),
        ({"transformer-preprocess": "n"}, "are not supported, only"),
        ({"enc-depth": "x"}, "enc-depth must be a number"),
        ({"enc-depth": "3"}, "lacks the array 'encoder_l3_self_Wq'"),
        ({"dec-depth": "0"}, "decoder_layers must be at least 1"),
        ({"dim-emb": "32"}, r"has the shape"),
    ],
    ids=str,
)
def test_what_cannot_be_computed_is_refused_by_name(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    marian(tmp_path / "theirs", **changes)
    with pytest.raises(UserError, match=message) as error:
        import_model(tmp_path / "theirs", tmp_path / "ours")
    assert "\n" not in str(error.value)


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as error:
        import_model(directory, directory.parent / "ours")
    assert "\n" not in str(error.value)
    assert str(directory) in str(error.value)
    return str(error.value)


def test_a_vocabulary_may_be_a_list_or_sentencepieces_own(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    marian(theirs)
    import_model(theirs, tmp_path / "expected")
    expected = Translator.load(tmp_path / "expected").tokenizers
    ids = sorted(expected.source.vocabulary.ids.items(), key=lambda item: item[1])
    (theirs / "vocab.yml").unlink()
    (theirs / "vocab.txt").write_text("".join(f"{piece}\n" for piece, _ in ids))
    import_model(theirs, tmp_path / "ours")
    assert Translator.load(tmp_path / "ours").tokenizers.sha256 == expected.sha256
    (theirs / "vocab.txt").write_text("</s>\n<unk>\na\na\n")
    assert "line 4 has the token 'a' again" in refusal(theirs)

    (theirs / "vocab.txt").rename(theirs / "vocab.spm")
    assert "not a SentencePiece model" in refusal(theirs)
    spm = sentencepiece(1)  # one model in place of two, with its own ids
    (theirs / "vocab.spm").write_bytes(spm)
    size = Tokenizer(spm).vocab_size
    found = dict(np.load(theirs / "model.npz"))
    new = arrays(size, None, "", "post")
    np.savez(theirs / "model.npz", **new, **{SETTINGS_NAME: found[SETTINGS_NAME]})
    for name in ("source.spm", "target.spm"):
        (theirs / name).unlink()
    import_model(theirs, tmp_path / "ours")
    ours = Translator.load(tmp_path / "ours").tokenizers
    assert ours.source.encode("the old house.") == Tokenizer(spm).encode("the old house.")
    assert ours.source.end_id == ours.target.begin_id == Tokenizer(spm).end_id


def test_a_vocabulary_without_sentencepiece_is_refused(tmp_path: Path) -> None:
    marian(tmp_path / "theirs")
    (tmp_path / "theirs" / "target.spm").unlink()
    assert "has the vocabulary vocab.yml, but no target.spm" in refusal(tmp_path / "theirs")


def test_incomplete_directories_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "theirs"
    marian(directory)
    for name in ("vocab.yml", "source.spm", "model.npz"):
        whole = (directory / name).read_bytes()
        for content in (b"", whole[: len(whole) // 2], None):
            (directory / name).unlink(missing_ok=True)
            if content is not None:
                (directory / name).write_bytes(content)
            refusal(directory)
        (directory / name).write_bytes(whole)
    (directory / "other.vocab.yml").write_text("a: 0\n")
    assert "holds 2 vocabularies" in refusal(directory)
    (directory / "model.npz").rename(directory / "one.npz")
    (directory / "two.npz").write_bytes(b"")
    assert "several models (one.npz, two.npz)" in refusal(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.array([{"b": 1}], object)}, "no .npz file, or it is damaged"),
        ({"a": np.zeros(3)}, "it has no special:model.yml"),
    ],
    ids=["pickled", "no settings"],
)
def test_foreign_archives_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    marian(tmp_path / "theirs")
    np.savez(tmp_path / "theirs" / "model.npz", **content)
    assert message in refusal(tmp_path / "theirs")
    np.savez_compressed(tmp_path / "theirs" / "model.npz", a=np.zeros(1000))
    assert "is compressed" in refusal(tmp_path / "theirs")


@pytest.mark.parametrize(
    "header",
    ["{", "(2", "'''", "{[]: 1}", "  x\n y", "(" * 900]
    + [
        f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
        for descr, shape in [("'<f4'", "(True, 6)"), ("'<f4'", "(-2, -3)"), ("'|O'", "(3,)")]
    ],
)
def test_damaged_headers_are_refused(header: str, tmp_path: Path) -> None:
    marian(tmp_path / "theirs")
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "theirs" / "model.npz", "w") as archive:
        archive.writestr("a.npy", head + bytes(24))
    assert "no .npz file, or it is damaged" in refusal(tmp_path / "theirs")


def test_vocabularies_in_yaml_are_read(tmp_path: Path) -> None:
    text = (
        '</s>: 0\n"<unk>": 1\n\'it\'\'s\': 2\n"a\\"b\\\\": 3\n"\\x07": 4\n"\\u2028": 5\n'
        '":": 6\n? "long\\tkey"\n: 7\n▁x: 8\n\n"\\_": 9\n'
    )
    pieces = ["</s>", "<unk>", "it's", 'a"b\\', "\x07", "\u2028", ":", "long\tkey", "▁x", "\xa0"]
    assert _yaml_ids(text, tmp_path) == {piece: i for i, piece in enumerate(pieces)}
    for wrong in ("a\n", "a: b\n", "a: 0\na: 1\n", "? a\n", "a: -1\n"):
        with pytest.raises(UserError, match="line"):
            _yaml_ids(wrong, tmp_path)
