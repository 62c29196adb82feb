"""Directories with small random models, as Hugging Face's transformers writes them."""

import json
import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from npformer import Tokenizer

TEXT = """the a small large red green dog cat house child tree runs sleeps sees finds old window
river mountain quickly never under between morning yesterday singing children houses greener"""
WORDS = TEXT.split()
TAG = ">>de<<"


def lines(count: int, seed: int = 0) -> list[str]:
    """Random sentences."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) + "." for _ in range(count)]


def sentencepiece(seed: int, size: int = 54) -> bytes:
    return Tokenizer.train(lines(400, seed), size, algorithm="unigram", byte_fallback=False).model


def vocabulary(*models: bytes, seed: int = 0) -> dict[str, int]:
    """Ids in another order than SentencePiece's; one piece is left out, and so unknown."""
    pieces: dict[str, None] = {}
    for model in models:
        spm = Tokenizer(model)
        own = [p for p in spm.pieces(range(3, spm.vocab_size)) if p != "▁the"]
        pieces |= dict.fromkeys(own)
    order = list(pieces)
    random.Random(seed).shuffle(order)
    return {p: i for i, p in enumerate(["</s>", "<unk>", TAG, *order, "<pad>"])}


def marian_model(
    directory: Path, *, separate: bool = False, ends: float = 0.0, **changes: Any
) -> Any:
    """Write a model of the Marian architecture to `directory`, and return it.

    ends: added to the bias of the end, so that translations end.
    """
    torch = pytest.importorskip("torch", reason="it makes the models")
    transformers = pytest.importorskip("transformers", reason="it makes the models")
    source, target = sentencepiece(1), sentencepiece(2, 48)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "source.spm").write_bytes(source)
    (directory / "target.spm").write_bytes(target)
    if separate:
        vocab, target_vocab = vocabulary(source), vocabulary(target)
        (directory / "target_vocab.json").write_text(json.dumps(target_vocab))
    else:
        vocab = target_vocab = vocabulary(source, target)
    (directory / "vocab.json").write_text(json.dumps(vocab))
    (directory / "tokenizer_config.json").write_text(json.dumps({"separate_vocabs": separate}))
    pad = target_vocab["<pad>"]
    torch.set_num_threads(1)  # of these small matrices, more only wait for each other
    torch.manual_seed(0)
    settings = {
        "vocab_size": len(vocab),
        "decoder_vocab_size": len(target_vocab),
        "share_encoder_decoder_embeddings": not separate,
        "max_position_embeddings": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "d_model": 16,
        "activation_function": "swish",
        "scale_embedding": True,
        "pad_token_id": pad,
        "decoder_start_token_id": pad,
        "eos_token_id": 0,
        "forced_eos_token_id": None,
        "bad_words_ids": [[pad]],
        "init_std": 0.4,
        "dropout": 0.1,
    }
    bad_words = {**settings, **changes}.pop("bad_words_ids")
    config = transformers.MarianConfig(
        **{k: v for k, v in {**settings, **changes}.items() if k != "bad_words_ids"}
    )
    model = transformers.MarianMTModel(config).eval()
    model.generation_config.bad_words_ids = bad_words
    model.generation_config.renormalize_logits = True
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "layer_norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.final_logits_bias.normal_(0, 0.5)
        model.final_logits_bias[0, 0] += ends
    model.save_pretrained(directory)
    return model


def marian_tokenizer(directory: Path) -> Any:
    """The tokenizer of such a directory, whether or not what it recommends is installed."""
    transformers = pytest.importorskip("transformers", reason="it has the tokenizer")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Recommended: pip install sacremoses", UserWarning)
        return transformers.MarianTokenizer.from_pretrained(directory)
