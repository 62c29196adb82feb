"""How much memory is asked for on a GPU: sizes that come again, and little more than is needed."""

from hypothesis import given
from hypothesis import strategies as st

from autograd.cuda.memory import rounded


@given(st.integers(0, 1 << 40))
def test_a_size_grows_by_a_sixteenth_at_most(size):
    assert size <= rounded(size) <= size * 17 / 16
    assert rounded(rounded(size)) == rounded(size)


@given(st.integers(1 << 16, 1 << 40), st.integers(0, 1 << 40))
def test_larger_sizes_are_not_rounded_to_less(size, more):
    assert rounded(size) <= rounded(size + more)


def test_batches_of_about_as_many_tokens_need_the_same_sizes():
    rows = range(23_500, 25_000)
    assert len({rounded(n * 512 * 2) for n in rows}) <= 3
    assert len({rounded(n * 37_056 * 2) for n in rows}) <= 3
