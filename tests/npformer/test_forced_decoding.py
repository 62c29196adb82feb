"""Given translations get the scores, tokens and alignments that a search gives them."""

from typing import Any

import numpy as np
import pytest

from autograd import using
from npformer import Batch, Ensemble, SearchSettings, Tokenizer, TokenizerPair, Translator
from npformer.vocabulary import Vocabulary
from tests.npformer.test_translator import LINES, make_translator
from train.cli.pairs import Pairs
from train.evaluation import likelihood


def that_ends(**changes: Any) -> Translator:
    """A random model whose end token is about as likely as the likeliest others."""
    made = make_translator(share_embeddings="none", **changes)
    parameters = made.model.parameters()
    parameters["decoder.1.feed_forward.norm.bias"].assign(2.0)
    projection = parameters["projection"].numpy()
    projection[made.tokenizers.target.end_id] = 0.38
    parameters["projection"].assign(projection)
    return made


one = that_ends()
both = Translator(Ensemble([one.model, that_ends(d_ff=20).model], [2, 1]), one.tokenizers)


@pytest.mark.parametrize("translator", [one, both], ids=["one model", "an ensemble"])
@pytest.mark.parametrize(
    "search",
    [
        {"beam": 1},
        {"beam": 4, "alternatives": 4, "penalty": "power", "coverage_penalty": 0.3},
        {"beam": 4, "groups": 2, "alternatives": 4, "min_length": 3, "no_repeat_ngram": 2},
        {"sampling": True, "alternatives": 4, "temperature": 0.5, "penalty": "none"},
    ],
    ids=["greedy", "beam", "groups", "sampling"],
)
def test_scores_equal_those_of_forced_decoding(
    translator: Translator, search: dict[str, Any]
) -> None:
    target = translator.tokenizers.target
    of_score = {k: v for k, v in search.items() if k in ("penalty", "coverage_penalty")}
    compared = 0
    translations = translator.translate(LINES, extra_length=8, **search)
    for line, best in zip(LINES, translations, strict=True):
        for t in best.ranked:
            if t.tokens[-1:] != ("</s>",):
                continue  # cut at its limit
            ids = [target._processor.piece_to_id(piece) for piece in t.tokens[:-1]]
            source = translator.tokenizers.source.encode(line)
            [found] = translator.scored([source], [ids], SearchSettings(**of_score))
            assert (found.text, found.tokens) == (t.text, t.tokens)
            assert found.score == pytest.approx(t.score, rel=1e-4, abs=1e-5)
            np.testing.assert_allclose(found.token_log_p, t.token_log_p, atol=1e-4)
            compared += 1
    assert compared


def test_a_source_ends_with_the_end_of_its_own_vocabulary() -> None:
    both = one.tokenizers.target
    source = Tokenizer(both.model, Vocabulary(both.pieces(range(300)), 1, 0, 2))
    apart = Translator(one.model, TokenizerPair(source, both))
    ended = [
        (line, t)
        for line, t in zip(LINES, apart.translate(LINES, extra_length=8), strict=True)
        if t.tokens[-1:] == ("</s>",)
    ]
    assert ended
    for line, t in ended:
        pieces = {piece: i for i, piece in enumerate(both.pieces(range(300)))}
        ids = [[pieces[piece] for piece in t.tokens[:-1]]]
        chosen = SearchSettings()
        [found] = apart.scored([source.encode(line)], ids, chosen, attention=True)
        assert found.score == pytest.approx(t.score, rel=1e-4)
        assert (found.source_pieces[-1], found.predicted_pieces[-1]) == ("<unk>", "</s>")
        assert Pairs(apart, [line], [t.text]).batch([0]).source.tokens[-1] == 0


def test_given_lines_are_scored_in_order() -> None:
    targets = ["Ein Hund.", "", *LINES[2:]]
    found = one.score(LINES, targets, penalty="none", alignment="mean", attention=True)
    assert [t.text for t in found] == targets
    for t, source, target in zip(found, LINES, targets, strict=True):
        ids = [one.tokenizers.source.encode(source)], [one.tokenizers.target.encode(target)]
        nll = likelihood(one.model, [Batch.of(*ids, begin_id=1, end_id=2)]).nll_sum
        assert t.score == t.log_p == pytest.approx(-nll, rel=1e-5)
        assert len(t.alignment) == len(target.split())
        assert t.attention is not None
    with pytest.raises(ValueError, match="shorter"):
        one.score(LINES, targets[:2])


def test_another_array_library_gives_the_same_scores() -> None:
    expected = one.score(LINES, LINES, coverage_penalty=0.2)
    other = that_ends()
    with using("strict"):
        other.model.to("strict")
        found = other.score(LINES, LINES, coverage_penalty=0.2)
    assert [t.score for t in found] == pytest.approx([t.score for t in expected], rel=1e-5)
