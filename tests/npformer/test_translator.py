"""The Translator: one line of output for any line of input."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import using
from npformer import (
    Tokenizer,
    TokenizerPair,
    Transformer,
    TransformerConfig,
    Translation,
    Translator,
    UserError,
)
from npformer.checkpoint import save_model
from npformer.hypotheses import Hypothesis

LINES = ["A dog runs.", "Two girls sing in the garden.", "Zwei Mädchen singen im Garten.", "Yes."]
ODD = [
    "one\x85line",
    "one\u2028line",
    "one\u2029line",
    "\tone\tline\t",
    "one\x00line",
    "one\x0bline\x0c",
    "one\x1cline\x1dtoo\x1e",
    "one\rline",
    "one\nline",
    "one\r\nline",
    "🐕 runs 🏃‍♀️",
    "\u202eright to left",
    "e\u0301 \ufb01 Å",
    "\ufeffmark",
    "lone \ud800 surrogate",
    "日本語の文",
]


def tokenizer(vocab_size: int = 300) -> Tokenizer:
    return Tokenizer.train(LINES, vocab_size)


def make_translator(**changes: Any) -> Translator:
    """A model with random parameters, large enough to translate lines differently."""
    config = TransformerConfig(
        **{"vocab_size": 300, "layers": 2, "d_model": 16, "d_ff": 16, "heads": 2, **changes}
    )
    model = Transformer(config, seed=0)
    rng = np.random.default_rng(1)
    for parameter in model.parameters().values():
        parameter.assign(parameter.numpy() + 0.4 * rng.standard_normal(parameter.shape))
    both = tokenizer()
    return Translator(model, TokenizerPair(both, both))


translator = make_translator()


def save(directory: Path, model: Transformer, tokenizers: TokenizerPair) -> Path:
    save_model(directory, model)
    tokenizers.save(directory)
    return directory


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "model", translator.model, translator.tokenizers)


# One line of output for each line of input


@given(st.permutations([*LINES, "", " ", *ODD[:4]]), st.sampled_from([1, 2]))
@settings(max_examples=10)
def test_translations_are_in_the_order_of_the_lines(lines: list[str], beam: int) -> None:
    found = translator.translate(lines, beam=beam, extra_length=5)
    assert len(found) == len(lines)
    for line, translation in zip(lines, found, strict=True):
        (alone,) = translator.translate([line], beam=beam, extra_length=5)
        assert translation.text == alone.text
        assert translation.score == pytest.approx(alone.score, rel=1e-4)
    assert len({t.text for t in found}) > 3


@pytest.mark.parametrize("line", ["", " ", "   ", "\t", "\u3000", "\xa0"])
def test_the_translation_of_a_blank_line_is_empty(line: str) -> None:
    for attention in (False, True):
        found = translator.translate([line, "Yes.", line], attention=attention, extra_length=5)
        assert found[0] == found[2] == Translation("", 0.0)
        assert found[1].text
    assert translator.translate([line, line]) == [Translation("", 0.0)] * 2


def test_no_lines_give_no_translations() -> None:
    assert translator.translate([]) == []


def test_a_line_with_unusual_characters_gives_one_line() -> None:
    found = translator.translate(ODD, extra_length=30)
    assert len(found) == len(ODD)
    for translation in found:
        assert len(translation.text.splitlines()) == 1
        translation.text.encode()  # it is valid UTF-8


@given(st.lists(st.text(max_size=12), max_size=4))
def test_any_line_gives_one_line(lines: list[str]) -> None:
    found = translator.translate(lines, beam=2, extra_length=3)
    assert len(found) == len(lines)
    assert all(len(t.text.splitlines()) <= 1 for t in found)


def test_a_string_in_place_of_a_list_of_lines_is_refused() -> None:
    with pytest.raises(TypeError, match="prefixes are a list"):
        translator.translate(["a", "b"], prefixes="ab")
    with pytest.raises(TypeError, match="score takes lists of lines"):
        translator.score("ab", "cd")
    with pytest.raises(TypeError, match="list of lines"):
        translator.translate("A dog runs.")


@pytest.mark.parametrize("batch_tokens", [1, 30, 100_000])
def test_translations_do_not_depend_on_the_size_of_batches(batch_tokens: int) -> None:
    lines = [*LINES, *LINES[:2], ""]
    expected = translator.translate(lines, extra_length=5)
    found = translator.translate(lines, extra_length=5, batch_tokens=batch_tokens)
    assert [t.text for t in found] == [t.text for t in expected]


def test_progress_counts_every_line_including_blank_ones() -> None:
    done: list[int] = []
    translator.translate([*LINES, ""], extra_length=2, batch_tokens=60, progress=done.append)
    assert sum(done) == len(LINES) + 1
    assert len(done) > 1


def test_alternatives_follow_the_best_translation() -> None:
    (found,) = translator.translate(LINES[:1], beam=4, alternatives=3, extra_length=5)
    assert 1 <= len(found.alternatives) <= 2
    scores = [found.score, *(t.score for t in found.alternatives)]
    assert scores == sorted(scores, reverse=True)
    (best,) = translator.translate(LINES[:1], beam=4, extra_length=5)
    assert best.text == found.text
    assert best.alternatives == ()


def test_alternatives_have_different_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    both = translator.tokenizers.target
    byte = {piece: i for i, piece in enumerate(both.pieces(range(both.vocab_size)))}
    other = [byte[f"<0x{b:02X}>"] for b in b"Yes."]  # another segmentation
    ids = [both.encode("Yes."), other, both.encode("dog"), other, both.encode("A dog"), [4]]
    asked = []

    def search(*arguments: Any, **options: Any) -> list[list[Hypothesis]]:
        asked.append(arguments[2].alternatives)
        return [[Hypothesis(list(each), -float(i)) for i, each in enumerate(ids)]]

    monkeypatch.setattr("npformer.sentence_translator.search", search)
    [found] = translator.translate(["Yes."], beam=6, alternatives=3)
    assert [(t.text, t.score) for t in found.ranked] == [("Yes.", 0), ("dog", -2), ("A dog", -4)]
    assert asked == [6]  # enough for three texts


def test_tokens_and_their_log_probabilities_make_up_a_translation() -> None:
    both = translator.tokenizers.target
    for found in translator.translate(LINES, alternatives=4, extra_length=5):
        for t in found.ranked:
            assert len(t.tokens) == len(t.token_log_p)
            without_end = [piece for piece in t.tokens if piece != "</s>"]
            assert both._processor.decode_pieces(without_end) == t.text
            assert t.log_p == pytest.approx(t.score * ((5 + len(t.tokens)) / 6) ** 0.6)


def test_settings_of_the_search_are_checked_before_any_work() -> None:
    with pytest.raises(ValueError, match="beam must be 1 to 1,000"):
        translator.translate(LINES, beam=0)
    with pytest.raises(TypeError, match="beams"):
        translator.translate(LINES, beams=4)


def test_another_array_library_gives_the_same_translations() -> None:
    other = make_translator()
    with using("strict"):
        other.model.to("strict")
        found = other.translate(LINES, extra_length=5, attention=True)
    expected = translator.translate(LINES, extra_length=5, attention=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.text == theirs.text
        np.testing.assert_allclose(ours.attention.cross, theirs.attention.cross, atol=1e-5)


# Attention maps


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("beam", [1, 3])
def test_attention_maps_cover_the_tokens_of_source_and_target(norm: Any, beam: int) -> None:
    layers, heads = 2, 2
    attentive = make_translator(norm=norm, positions="learned", max_length=80)
    plain = attentive.translate([*LINES, ""], beam=beam, extra_length=6)
    found = attentive.translate([*LINES, ""], beam=beam, extra_length=6, attention=True)
    assert found[-1].attention is None
    for line, translation, expected in zip(LINES, found, plain, strict=False):
        assert translation.text == expected.text
        maps, source, target = (
            translation.attention,
            translation.source_pieces,
            translation.target_pieces,
        )
        assert maps is not None
        n, m = len(source), len(target)
        assert maps.encoder.shape == (layers, heads, n, n)
        assert maps.decoder.shape == (layers, heads, m, m)
        assert maps.cross.shape == (layers, heads, m, n)
        for weights in (maps.encoder, maps.decoder, maps.cross):
            assert (weights >= 0).all()
            np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
        ahead = np.triu(np.ones((m, m), bool), k=1)
        assert (maps.decoder[:, :, ahead] == 0).all()
        assert (maps.decoder[:, :, ~ahead] > 0).all()

        both = attentive.tokenizers.source
        assert source == (*both.pieces(both.encode(line)), "</s>")
        assert target[0] == "<s>"
        assert expected.attention is None
        assert expected.source_pieces == ()


def test_attention_maps_do_not_depend_on_other_sentences() -> None:
    together = translator.translate(LINES, attention=True, extra_length=5)
    for line, translation in zip(LINES, together, strict=True):
        (alone,) = translator.translate([line], attention=True, extra_length=5)
        for kind in ("encoder", "decoder", "cross"):
            np.testing.assert_allclose(
                getattr(translation.attention, kind), getattr(alone.attention, kind), atol=1e-5
            )


# Loading


def test_a_loaded_translator_gives_the_same_translations(saved: Path) -> None:
    lines = [*LINES, *ODD, ""]
    assert Translator.load(saved).translate(lines, extra_length=4) == translator.translate(
        lines, extra_length=4
    )
    assert Translator.load(str(saved)).tokenizers.shared


def test_languages_may_have_separate_vocabularies(tmp_path: Path) -> None:
    pair = TokenizerPair(tokenizer(290), tokenizer(300))
    config = TransformerConfig(
        vocab_size=300,
        source_vocab_size=290,
        layers=1,
        d_model=8,
        d_ff=8,
        heads=2,
        share_embeddings="target",
    )
    directory = save(tmp_path / "model", Transformer(config, seed=1), pair)
    found = Translator.load(directory).translate(LINES, extra_length=3)
    assert found == Translator(Transformer(config, seed=1), pair).translate(LINES, extra_length=3)


def refusal(directory: Path) -> str:
    with pytest.raises(UserError) as error:
        Translator.load(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert f"no model directory {tmp_path / 'missing'}" in refusal(tmp_path / "missing")
    (tmp_path / "file").touch()
    assert f"no model directory {tmp_path / 'file'}" in refusal(tmp_path / "file")
    assert "is not a model directory: config.json cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.spm"])
def test_an_incomplete_model_is_refused(saved: Path, file: str) -> None:
    whole = (saved / file).read_bytes()
    for end in (0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 2):
        (saved / file).write_bytes(whole[:end])
        assert file in refusal(saved)
    (saved / file).unlink()
    assert file in refusal(saved)


def test_a_tokenizer_of_another_model_is_refused(saved: Path) -> None:
    tokenizer(301).save(saved / "tokenizer.spm")
    message = refusal(saved)
    assert "tokenizer has 301 tokens, the model 300; they do not belong together" in message


def test_an_incomplete_pair_of_tokenizers_is_refused(saved: Path) -> None:
    shutil.move(saved / "tokenizer.spm", saved / "source.spm")
    assert "target.spm" in refusal(saved)


def test_a_model_of_nan_is_an_error() -> None:
    broken = make_translator()
    broken.model.parameters()["embedding"].assign(np.nan)
    with pytest.raises(
        UserError, match=r"not numbers \(NaN\), so it has no translation of line 1;"
    ):
        broken.translate(["Yes."], beam=4, extra_length=3)
