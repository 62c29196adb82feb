"""IBM Model 1: what is learned is what a direct computation by sentences finds."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npformer import Packed
from train import ibm_model1
from train.ibm_model1 import Lexicon, learn_lexicon

Pairs = list[tuple[list[int], list[int]]]
Table = dict[tuple[int, int], float]

SOURCES, TARGETS = 6, 5  # sizes of the vocabularies
NONE = SOURCES

pairs = st.lists(
    st.tuples(
        st.lists(st.integers(0, SOURCES - 1), max_size=5),
        st.lists(st.integers(0, TARGETS - 1), max_size=5),
    ),
    min_size=1,
    max_size=6,
)


def learned(pairs: Pairs, iterations: int, **options: float) -> tuple[Lexicon, list[float]]:
    log_p: list[float] = []
    sources, targets = zip(*pairs, strict=True)
    lexicon = learn_lexicon(
        Packed.of(sources),
        Packed.of(targets),
        SOURCES,
        TARGETS,
        iterations=iterations,
        progress=log_p.append,
        **options,
    )
    return lexicon, log_p


def table_of(lexicon: Lexicon) -> Table:
    return {
        (f, e): p for f, e, p in zip(*(column.tolist() for column in lexicon), strict=True) if p
    }


def direct(pairs: Pairs, iterations: int) -> tuple[Table, list[float]]:
    """The same, pair after pair, as the algorithm is written in textbooks."""
    t: Table = defaultdict(lambda: 1 / TARGETS)
    every = []
    for _ in range(iterations):
        counts: Table = defaultdict(float)
        totals: dict[int, float] = defaultdict(float)
        log_p = 0.0
        for source, target in pairs:
            for f in target:
                z = sum(t[f, e] for e in [NONE, *source])
                log_p += np.log(z / (len(source) + 1))
                for e in [NONE, *source]:
                    counts[f, e] += t[f, e] / z
                    totals[e] += t[f, e] / z
        t = defaultdict(float, {(f, e): c / totals[e] for (f, e), c in counts.items()})
        every.append(log_p / max(1, sum(len(target) for _, target in pairs)))
    return dict(t), every


@given(pairs, st.integers(1, 4), st.sampled_from([1, 7, 1 << 20]), st.sampled_from([1, 4, 1 << 20]))
@settings(max_examples=60)
def test_it_agrees_with_a_direct_computation(
    pairs: Pairs, iterations: int, cells: int, links: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:  # in many blocks, or in one
        patch.setattr(ibm_model1, "_CELLS", cells)
        patch.setattr(ibm_model1, "_LINKS", links)
        lexicon, log_p = learned(pairs, iterations)
    expected, expected_log_p = direct(pairs, iterations)
    found = table_of(lexicon)
    assert found.keys() == {key for key, p in expected.items() if p > 0}
    assert found == pytest.approx({key: expected[key] for key in found}, rel=1e-5)
    assert log_p == pytest.approx(expected_log_p, rel=1e-5)


@given(pairs)
@settings(max_examples=40)
def test_each_iteration_makes_the_pairs_likelier(pairs: Pairs) -> None:
    _, log_p = learned(pairs, 8)
    assert (np.diff(log_p) > -1e-6).all()


@given(pairs)
@settings(max_examples=40)
def test_the_probabilities_of_each_source_token_add_up_to_1(pairs: Pairs) -> None:
    lexicon, _ = learned(pairs, 3)
    sums = np.bincount(lexicon.sources, lexicon.probabilities, SOURCES + 1)
    linked = np.isin(np.arange(SOURCES + 1), lexicon.sources)
    np.testing.assert_allclose(sums[linked], 1, rtol=1e-5)


def test_words_are_told_apart_by_the_company_they_keep() -> None:
    # An example of Koehn (2010), chapter 4: the house, the book, a book.
    the, house, book, a = range(4)
    das, haus, buch, ein = range(4)
    examples: Pairs = [
        ([the, house], [das, haus]),
        ([the, book], [das, buch]),
        ([a, book], [ein, buch]),
    ]
    t = table_of(learned(examples, 30)[0])
    assert t[das, the] > 0.95
    assert t[buch, book] > 0.95
    assert t[haus, house] > 0.9
    assert t[ein, a] > 0.9


def test_what_is_unlikely_is_left_out() -> None:
    rng = np.random.default_rng(0)
    many = [
        (rng.integers(0, SOURCES, 5).tolist(), rng.integers(0, TARGETS, 5).tolist())
        for _ in range(50)
    ]
    whole, some = (learned(many, 5, least=least)[0] for least in (0.0, 0.15))
    assert len(some.targets) < len(whole.targets)
    assert (some.probabilities[some.sources != NONE] >= 0.15).all()
    # Any target token may still come from none, so that its pairs remain possible.
    assert set(some.targets[some.sources == NONE]) == set(range(TARGETS))


def test_the_same_pairs_give_the_same_bytes() -> None:
    examples: Pairs = [([0, 1, 2], [0, 1]), ([2, 1], [1, 1, 3]), ([5], [4])]
    first, second = (learned(examples, 5)[0] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes()


def test_pairs_that_do_not_fit_are_refused() -> None:
    one, two = Packed.of([[0]]), Packed.of([[0], [1]])
    with pytest.raises(ValueError, match="1 sources, but 2 targets"):
        learn_lexicon(one, two, SOURCES, TARGETS)
    with pytest.raises(ValueError, match="a target sentence has the id 5"):
        learn_lexicon(one, Packed.of([[5]]), SOURCES, TARGETS)


def test_nothing_is_learned_from_nothing() -> None:
    lexicon, log_p = learned([([], [])], 2)
    assert len(lexicon.targets) == 0
    assert log_p == [0, 0]
