"""A shortlist goes to CTranslate2 as its vocabulary map, and restricts it in the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npformer import Packed, Translator, UserError
from npformer.checkpoint import SHORTLIST
from npformer.formats.ctranslate2 import _write_candidates
from npformer.formats.exporting import export_model
from npformer.shortlist import Shortlist
from npformer.shortlist_file import save_shortlist
from npformer.vocabulary import Vocabulary
from tests.npformer.test_translator import LINES, make_translator, save
from train.corpora.sentences import ParallelTokens
from train.shortlists import learn_shortlist


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The directory of a random model, with a shortlist."""
    made = make_translator()
    both = made.tokenizers.target
    ids = both.encode_lines(LINES)
    learned = learn_shortlist(
        ParallelTokens.of(ids, ids[::-1]), made.tokenizers, best=6, frequent=8
    )
    # CTranslate2 always has these three.
    always = np.union1d(learned.always, [both.begin_id, both.end_id, both.unknown_id])
    learned = Shortlist(always.astype(np.int32), learned.of_source, learned.vocab_size)
    save(tmp_path / "model", made.model, made.tokenizers)
    save_shortlist(tmp_path / "model", learned, made.tokenizers, {})
    return tmp_path / "model"


def test_one_sentence_is_translated_alike(model: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2", reason="the exported model is run by it")
    assert export_model(model, model / "theirs", "ctranslate2") == []
    theirs = ctranslate2.Translator(str(model / "theirs"), compute_type="float32", intra_threads=1)
    ours = Translator.load(model)
    for line in LINES:
        source = ours.tokenizers.source.encode(line)
        [found] = theirs.translate_batch(
            [ours.tokenizers.source.pieces(source)],
            beam_size=1,
            length_penalty=0,
            use_vmap=True,
            return_scores=True,
            min_decoding_length=0,
            max_decoding_length=20,
        )
        [expected] = ours.translate(
            [line], beam=1, penalty="none", extra_length=20, shortlist=True, max_length=20
        )
        tokens = [t for t in expected.tokens if t != "</s>"]
        assert found.hypotheses[0] == tokens
        assert found.scores[0] == pytest.approx(expected.log_p, rel=1e-4, abs=1e-4)
        [whole] = ours.translate([line], beam=1, penalty="none", max_length=20)
        assert whole.tokens != expected.tokens


def test_every_line_has_a_token_and_its_candidates(model: Path) -> None:
    export_model(model, model / "theirs", "ctranslate2")
    lines = (model / "theirs" / "vmap.txt").read_text().removesuffix("\n").split("\n")
    found = {key: values.split(" ") for key, values in (line.split("\t") for line in lines)}
    ours = Translator.load(model)
    pieces = ours.tokenizers.target.pieces
    assert found.pop("") == pieces(ours.shortlist.always)
    for i, piece in enumerate(ours.tokenizers.source.pieces(range(300))):
        assert found.pop(piece, []) == pieces(ours.shortlist.of_source[i])
    assert not found


def test_tokens_with_spaces_are_left_out(tmp_path: Path) -> None:
    source = Vocabulary(["a", "b c", "d", "e"], 0, 2, 0)
    target = Vocabulary(["x", "y\t", " z", "w"], 0, 0, 0)
    candidates = Packed.of([[0, 1], [3], [2], [3]])
    shortlist = Shortlist(np.array([0, 2, 3], np.int32), candidates, 4)
    _write_candidates(tmp_path / "vmap.txt", shortlist, source, target)
    assert (tmp_path / "vmap.txt").read_text() == "\tx w\na\tx\ne\tw\n"


def test_a_damaged_one_is_not_exported(model: Path) -> None:
    (model / SHORTLIST).write_bytes((model / SHORTLIST).read_bytes()[:-9])
    with pytest.raises(UserError, match="shortlist"):
        export_model(model, model / "theirs", "ctranslate2")
    assert not (model / "theirs").exists()


def test_without_one_there_is_no_map(model: Path) -> None:
    (model / SHORTLIST).unlink()
    export_model(model, model / "theirs", "ctranslate2")
    assert not (model / "theirs" / "vmap.txt").exists()
