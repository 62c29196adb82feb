"""All rules of a search together: there is a translation, and it is one that they allow."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from npformer import Ensemble, Packed, SearchSettings, Transformer, TransformerConfig, UserError
from npformer import search as search_for
from tests.npformer.models import BEGIN, END, lively, seeds
from tests.npformer.test_translator import make_translator

VOCABULARY = 7
some_ids = st.lists(st.integers(3, VOCABULARY - 1), max_size=3)

chosen_settings = st.fixed_dictionaries(
    {
        "extra_length": st.integers(1, 8),
        "min_length": st.sampled_from([0, 3, 30]),
        "min_ratio": st.sampled_from([0.0, 1.5]),
        "max_ratio": st.sampled_from([None, 2.0]),
        "no_repeat_ngram": st.sampled_from([0, 1, 2]),
        "coverage_penalty": st.sampled_from([0.0, 0.3]),
        "temperature": st.sampled_from([0.3, 1.0]),
        "top_k": st.sampled_from([0, 1, 3]),
        "top_p": st.sampled_from([0.2, 1.0]),
    }
)
kinds = st.one_of(
    st.sampled_from([{"beam": 1}, {"beam": 3, "alternatives": 2}, {"beam": 4, "groups": 2}]),
    st.just({"sampling": True, "alternatives": 3}),
)


@given(
    st.lists(st.tuples(some_ids, some_ids), min_size=1, max_size=3),
    chosen_settings,
    kinds,
    st.sets(st.integers(3, VOCABULARY - 1)),
    st.booleans(),
    seeds,
)
@settings(max_examples=100)
def test_there_is_a_translation_whatever_the_rules(
    pairs: list[tuple[list[int], list[int]]],
    some: dict[str, Any],
    kind: dict[str, Any],
    suppressed: set[int],
    is_ensemble: bool,
    seed: int,
) -> None:
    sources, prefixes = ([pair[side] for pair in pairs] for side in (0, 1))
    assume(not suppressed & set().union(*prefixes))
    config = TransformerConfig(
        vocab_size=VOCABULARY,
        layers=1,
        d_model=8,
        d_ff=8,
        heads=2,
        share_embeddings="none",
        suppressed_ids=(0, BEGIN, *sorted(suppressed)),
    )
    models = [lively(Transformer(config, seed=seed % 1000 + i)) for i in range(2)]
    model = Ensemble(models) if is_ensemble else models[0]
    chosen = SearchSettings(**{**some, **kind})
    packed = Packed.of([[*source, END] for source in sources])
    found = search_for(model, packed, chosen, BEGIN, END, prefixes=prefixes)

    lengths = np.array([len(source) for source in sources])
    limits = np.maximum(chosen.most_tokens(lengths), [len(prefix) + 1 for prefix in prefixes])
    fewest = np.minimum(chosen.fewest_tokens(lengths), limits - 1)
    usable = VOCABULARY - 3 - len(suppressed)
    for own, prefix, limit, least in zip(found, prefixes, limits, fewest, strict=True):
        assert own
        for hypothesis in own:
            ids = hypothesis.ids
            assert math.isfinite(hypothesis.score)
            assert ids[: len(prefix)] == prefix[: len(ids)]
            assert not {0, BEGIN, END, *suppressed} & set(ids)
            has_ended = len(hypothesis.log_p) > len(ids)
            assert len(ids) + has_ended <= limit
            assert has_ended or len(ids) == limit
            if usable:
                assert not has_ended or len(ids) >= least
            if chosen.no_repeat_ngram == 1 and not prefix and len(ids) <= usable:
                assert len(set(ids)) == len(ids)


def test_a_rule_that_leaves_nothing_gives_way() -> None:
    few = make_translator(suppressed_ids=tuple(range(3, 295)))  # five tokens and the end are left
    for options in ({"beam": 1}, {"beam": 3}, {"sampling": True}):
        [found] = few.translate(["Yes."], min_length=9, no_repeat_ngram=1, **options)
        assert len([piece for piece in found.tokens if piece != "</s>"]) >= 9
        assert math.isfinite(found.score)


def test_a_prefix_that_the_model_never_chooses_is_refused() -> None:
    tokenizer = make_translator().tokenizers.target
    few = make_translator(suppressed_ids=tuple(tokenizer.encode("dog")[:1]))
    with pytest.raises(UserError, match=r"prefix of line 2 has the token .*never chooses"):
        few.translate(["A dog.", "Yes."], prefixes=["", "dog"])


def test_lines_before_a_prefix_that_is_refused_are_translated() -> None:
    tokenizer = make_translator().tokenizers.target
    few = make_translator(suppressed_ids=tuple(tokenizer.encode("dog")[:1]))
    short = make_translator(positions="learned", max_length=9)
    for translator, wrong, fault in (
        (few, "dog", "never chooses"),
        (short, "A dog. " * 9, "learned 9 positions"),
    ):
        found = translator.translate_lines(
            ["Yes.", "Yes.", "Yes."], prefixes=["", wrong, ""], extra_length=2
        )
        assert next(found).tokens
        with pytest.raises(UserError, match=f"prefix of line 2 has .*{fault}"):
            next(found)


def test_the_prefixes_of_a_model_with_suppressed_tokens_may_have_others() -> None:
    tokenizer = make_translator().tokenizers.target
    first, second = tokenizer.encode("dog")[0], tokenizer.encode("Yes")[0]
    few = make_translator(suppressed_ids=(first,))
    assert few.translate(["Yes."], prefixes=[tokenizer.decode([second])], extra_length=2)[0].text
