"""`npformer export --format ctranslate2`: CTranslate2 computes what our model computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import Packed, SearchSettings, Translator, UserError, search
from npformer.formats.exporting import export_model
from npformer.formats.importing import import_model
from tests.formats.fairseq_peer import write_fairseq
from tests.formats.foreign import lines, marian_model
from tests.formats.joeynmt_peer import write_joeynmt
from tests.formats.network import Shape
from tests.formats.test_export_marian import (
    DIFFERENT_TOKENS,
    batch_of,
    saved,
    saved_with_special_ids,
)

ctranslate2 = pytest.importorskip("ctranslate2", reason="exported models are compared with it")

EXTRA = 10  # tokens more than the source
MODELS: dict[str, tuple[bool, dict[str, Any]]] = {
    "the paper's": (False, {}),
    "pre-norm": (False, {"norm": "pre", "norm_epsilon": 0.01, "decoder_layers": 1}),
    "Marian's": (
        False,
        {
            "activation": "swish",
            "positions": "concatenated",
            "output_bias": True,
            "suppressed_ids": (1,),
            "scale_embeddings": False,
        },
    ),
    "two vocabularies": (
        True,
        {"share_embeddings": "target", "position_spacing": "d/2-1", "first_position": 2},
    ),
    "nothing shared": (True, {"share_embeddings": "none", "positions": "learned"}),
    "tensor2tensor's": (False, {"decoder_start": "zero"}),
}


def exported(ours: Translator, directory: Path) -> Any:
    assert export_model(directory / "ours", directory / "theirs", "ctranslate2") == []
    return ctranslate2.Translator(
        str(directory / "theirs"), compute_type="float32", intra_threads=1
    )


def check_scores(ours: Translator, theirs: Any, suppressed: tuple[int, ...] | None = None) -> None:
    """The log-probability of each token of given translations is the same.

    suppressed: the tokens that have none there, by default those of our model.
    """
    if suppressed is None:
        suppressed = ours.model.config.suppressed_ids
    batch = batch_of(ours)
    logits = ours.model.logits(batch).value.astype(np.float64)
    logits[:, list(suppressed)] = -np.inf
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    rows = np.arange(len(log_p))
    expected = log_p[rows, batch.target_output.tokens]
    sources = [ours.tokenizers.source.pieces(ids[:-1]) for ids in batch.source]
    targets = [ours.tokenizers.target.pieces(ids[:-1]) for ids in batch.target_output]
    found = [score for s in theirs.score_batch(sources, targets) for score in s.log_probs]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_probabilities_agree(name: str, tmp_path: Path) -> None:
    separate, changes = MODELS[name]
    ours = saved(tmp_path / "ours", separate, **changes)
    check_scores(ours, exported(ours, tmp_path))


@pytest.mark.parametrize("name", MODELS)
def test_translations_are_the_same(name: str, tmp_path: Path) -> None:
    """Greedily, and with a beam of 4 and the penalty that CTranslate2 has, n^α.

    Beams differ where CTranslate2 returns what has reached the limit without an end.
    """
    separate, changes = MODELS[name]
    ours = saved(tmp_path / "ours", separate, **changes)
    theirs = exported(ours, tmp_path)
    tokenizer, end = ours.tokenizers.target, ours.tokenizers.target.end_id
    sources = ours.tokenizers.source.encode_lines(lines(12, seed=5))
    packed = Packed.of([[*ids, ours.tokenizers.source.end_id] for ids in sources])
    for beam in (1, 4):
        settings = SearchSettings(
            beam=beam, penalty="power", length_penalty=0.5, extra_length=EXTRA
        )
        found = search(ours.model, packed, settings, tokenizer.begin_id, end)
        same = 0
        for ids, (best, *_) in zip(sources, found, strict=True):
            their = theirs.translate_batch(
                [ours.tokenizers.source.pieces(ids)],
                beam_size=beam,
                length_penalty=0.5,
                min_decoding_length=0,  # as a rule, it forbids an end at first
                max_decoding_length=len(ids) + EXTRA,
                return_scores=True,
            )[0]
            limit, length = len(ids) + EXTRA, len(their.hypotheses[0])
            if tokenizer.pieces(best.ids) == their.hypotheses[0]:
                assert best.score == pytest.approx(their.scores[0], abs=1e-4)
                same += 1
            else:  # ours prefers what has ended, and drops what has not
                assert beam > 1
                assert length == limit or best.score > their.scores[0]
        assert same >= (12 if beam == 1 else 3)


def test_sentences_may_be_as_long_as_those_of_training(tmp_path: Path) -> None:
    ours = saved(tmp_path / "ours", longest=99)  # with sinusoids, and a max_length of 64
    theirs = exported(ours, tmp_path)
    source = ours.tokenizers.source.pieces([5] * 99)
    [found] = theirs.score_batch([source], [source])
    assert len(found.log_probs) == 100


IMPORTED: dict[str, Callable[[Path], Any]] = {
    "OPUS-MT": marian_model,
    "fairseq": lambda path: write_fairseq(path, Shape(pre=True)),
    "fairseq, two vocabularies": lambda path: write_fairseq(
        path, Shape(shared="target", joined=False, learned=True, scaled=False)
    ),
    "JoeyNMT": lambda path: write_joeynmt(path, Shape(shared="none"), swish=True),
}


@pytest.mark.parametrize("name", IMPORTED)
def test_an_imported_model_is_exported(name: str, tmp_path: Path) -> None:
    IMPORTED[name](tmp_path / "foreign")
    import_model(tmp_path / "foreign", tmp_path / "ours")
    ours = Translator.load(tmp_path / "ours")
    check_scores(ours, exported(ours, tmp_path))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"d_v": 5}, "d_k = 4 and d_v = 5"),
        ({"attention_window": 3}, "attention_window = 3"),
        ({"activation": "gelu"}, "activation = 'gelu'"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_name(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    saved(tmp_path / "ours", **changes)
    with pytest.raises(UserError, match=f"CTranslate2 cannot hold a model with {named}"):
        export_model(tmp_path / "ours", tmp_path / "theirs", "ctranslate2")
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize("changes", DIFFERENT_TOKENS, ids=str)
def test_vocabularies_with_different_special_tokens_are_refused(
    changes: dict[str, int], tmp_path: Path
) -> None:
    saved_with_special_ids(tmp_path / "ours", **changes)
    what = "the end" if "end_id" in changes else "unknown words"
    with pytest.raises(UserError, match=f"cannot hold vocabularies with two tokens for {what}"):
        export_model(tmp_path / "ours", tmp_path / "theirs", "ctranslate2")
    assert not (tmp_path / "theirs").exists()
