"""Matrices in 8 bits: their error, and products whose sums are exact."""

import copy

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from llvmlite import binding  # noqa: E402

from autograd import Tape, Tensor, ops, references, watching  # noqa: E402
from autograd.int8 import LEAST, PANEL, Int8Matrix, rounded  # noqa: E402
from tests.autograd.drawing import normal32, seeds  # noqa: E402
from tests.autograd.test_loops import run  # noqa: E402

pytestmark = pytest.mark.usefixtures("fresh_memory_is_full_of_garbage")

rows = st.integers(0, 21)
sizes = st.integers(1, 150)
scales = st.sampled_from([1.0, 1e-3, 1e6, 1e-20, 1e20])


def whole(matrix: Int8Matrix) -> np.ndarray:
    """What it stands for, [d_in, d_out] in float64."""
    return matrix.integers.astype(np.float64) * matrix.scales.reshape(-1)[: matrix.d_out]


def layered(rng: np.random.Generator, rows: int, columns: int, scale: float) -> np.ndarray:
    """Numbers whose rows and columns are of very different sizes, some of them zeros."""
    x = normal32(rng, rows, columns) * np.float32(scale)
    x *= np.exp(normal32(rng, rows, 1)) * np.exp(normal32(rng, 1, columns))
    x[:, rng.random(columns) < 0.1] = 0
    x[rng.random(rows) < 0.1] = 0
    return x


@given(seed=seeds, rows=rows, d=sizes, scale=scales)
@settings(max_examples=50)
def test_a_rounded_number_is_off_by_half_a_scale_at_most(seed, rows, d, scale):
    x = layered(np.random.default_rng(seed), rows, d, scale)
    integers, steps = rounded(x)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max(initial=0) <= 127
    error = np.abs(integers * steps[:, None].astype(np.float64) - x)
    assert (error <= (0.5 + 1e-4) * steps[:, None]).all()
    is_zero = (x == 0).all(axis=1)
    assert (steps[is_zero] == 0).all()
    assert (np.abs(integers[~is_zero]).max(axis=1, initial=127) == 127).all()


@given(seed=seeds, d_in=sizes, d_out=sizes, scale=scales)
@settings(max_examples=50)
def test_a_matrix_is_its_integers_times_its_scales(seed, d_in, d_out, scale):
    weight = layered(np.random.default_rng(seed), d_in, d_out, scale)
    matrix = Int8Matrix.of(weight)
    integers, steps = rounded(weight.T)
    assert matrix.shape == (d_in, d_out) == matrix.T.shape[::-1]
    np.testing.assert_array_equal(matrix.integers, integers.T)
    np.testing.assert_array_equal(matrix.scales.reshape(-1)[:d_out], steps)
    sums = np.zeros(matrix.sums.size, int)
    sums[:d_out] = integers.sum(axis=1)
    np.testing.assert_array_equal(matrix.sums.reshape(-1), sums)
    numbers = np.arange(d_out)
    np.testing.assert_array_equal(matrix.columns(numbers), integers * steps[:, None])
    np.testing.assert_array_equal(matrix.T.T.integers, matrix.integers)


def test_large_matrices_are_rounded_in_parts():
    weight = normal32(np.random.default_rng(0), 5, 3000)
    np.testing.assert_array_equal(Int8Matrix.of(weight).integers, rounded(weight.T)[0].T)


def test_a_matrix_takes_a_quarter_of_the_memory():
    weight = normal32(np.random.default_rng(0), 512, 2048)
    assert Int8Matrix.of(weight).nbytes < 0.26 * weight.nbytes


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_in_a_matrix(wrong):
    weight = np.ones((3, 4), np.float32)
    weight[1, 2] = wrong
    with pytest.raises(ValueError, match="not finite"):
        Int8Matrix.of(weight)


def test_the_sums_of_the_reference_are_exact():
    # Without _EXACT, 4,096 products of 127² would be rounded, in float32.
    rng = np.random.default_rng(0)
    weight = 127 - (rng.random((4096, 3)) < 0.01).astype(np.float32)
    matrix, x = Int8Matrix.of(weight), 127 - (rng.random((2, 4096)) < 0.01).astype(np.float32)
    integers = rounded(x)[0].astype(np.int64) @ matrix.integers.astype(np.int64)
    np.testing.assert_array_equal(ops.int8_linear.reference(x, matrix), integers.astype(np.float32))
    np.testing.assert_array_equal(ops.int8_linear(x, matrix), integers.astype(np.float32))


@given(
    seed=seeds,
    rows=rows,
    d_in=sizes,
    d_out=sizes,
    scale=scales,
    has_bias=st.booleans(),
    relu=st.booleans(),
)
@example(0, 1, 1, 1, 1.0, False, False)
@example(0, 300, 5, 7, 1.0, True, True)  # more rows than columns
@example(0, 9, 64, 64, 1.0, True, False)
@settings(max_examples=60)
def test_products_have_the_bits_of_their_reference(seed, rows, d_in, d_out, scale, has_bias, relu):
    rng = np.random.default_rng(seed)
    x, weight = layered(rng, rows, d_in, scale), layered(rng, d_in, d_out, 1 / scale)
    bias, matrix = normal32(rng, d_out) if has_bias else None, Int8Matrix.of(weight)
    with watching(ops.int8_linear) as calls:
        y = ops.linear(x, matrix, bias, relu=relu)
    assert calls[ops.int8_linear][0][2] == "fast"
    with references():
        expected = ops.linear(x, matrix, bias, relu=relu)
    np.testing.assert_array_equal(y, expected)
    # Half a scale of x for each number of W, and the other way round.
    steps_x, steps_w = rounded(x)[1][:, None], matrix.scales.reshape(-1)[:d_out]
    near = np.abs(x).sum(axis=1, keepdims=True) * steps_w
    near = near + steps_x * np.abs(weight).sum(axis=0) + d_in * steps_x * steps_w
    product = x.astype(np.float64) @ weight + (0 if bias is None else bias)
    product = np.maximum(product, 0) if relu else product
    assert (np.abs(y - product) <= 0.6 * near + 1e-5 * np.abs(product) + 1e-30).all()


def test_a_row_depends_neither_on_the_rows_beside_it_nor_on_what_is_not_finite_there():
    rng = np.random.default_rng(0)
    x, matrix = normal32(rng, 37, 70), Int8Matrix.of(normal32(rng, 70, 45))
    alone = np.concatenate([ops.linear(x[i : i + 1], matrix) for i in range(len(x))])
    np.testing.assert_array_equal(ops.linear(x, matrix), alone)
    for wrong in (np.nan, np.inf, -np.inf):
        x[5, 3] = wrong
        y, relu = ops.linear(x, matrix), ops.linear(x, matrix, relu=True)
        assert np.isnan(y[5]).all()
        assert np.isnan(relu[5]).all()
        np.testing.assert_array_equal(np.delete(y, 5, 0), np.delete(alone, 5, 0))


def test_rows_of_nothing_but_tiny_numbers_are_zeros():
    matrix = Int8Matrix.of(np.ones((4, 3), np.float32))
    x = np.full((2, 4), LEAST / 2, np.float32)
    x[1] = np.finfo(np.float32).smallest_subnormal
    assert not ops.linear(x, matrix).any()
    np.testing.assert_array_equal(ops.linear(x, matrix, np.ones(3, np.float32)), 1)


@given(
    seed=seeds,
    rows=st.integers(0, 20),
    d=sizes,
    vocabulary=st.sampled_from([1, 3, PANEL, 700, 1025, 2100]),
    k=st.integers(1, 9),
    has_bias=st.booleans(),
)
@settings(max_examples=40)
def test_the_likeliest_tokens_are_those_of_the_reference(seed, rows, d, vocabulary, k, has_bias):
    rng = np.random.default_rng(seed)
    x, table = normal32(rng, rows, d), normal32(rng, vocabulary, d)
    k, bias = min(k, vocabulary), normal32(rng, vocabulary) if has_bias else None
    if bias is not None and vocabulary > k:
        bias[rng.integers(vocabulary)] = -np.inf
    matrix = Int8Matrix.of(table.T).T
    log_p, ids = ops.top_k(x, matrix, bias, k=k)
    with references():
        expected, _ = ops.top_k(x, matrix, bias, k=k)
        logits = ops.linear(x, matrix.T, bias)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
    chosen = np.take_along_axis(logits, ids, axis=1)
    np.testing.assert_array_equal(chosen, -np.sort(-logits, axis=1)[:, :k])


@given(
    seed=seeds,
    groups=st.integers(1, 5),
    of_group=st.integers(1, 4),
    vocabulary=st.sampled_from([3, 90, 1100]),
)
@settings(max_examples=20)
def test_groups_of_rows_have_a_bias_each(seed, groups, of_group, vocabulary):
    rng = np.random.default_rng(seed)
    x, table = normal32(rng, groups * of_group, 9), normal32(rng, vocabulary, 9)
    bias = np.where(rng.random((groups, vocabulary)) < 0.5, -np.inf, 0).astype(np.float32)
    bias[:, :3] = 1
    matrix, names = Int8Matrix.of(table.T).T, rng.permutation(2 * vocabulary)[:vocabulary]
    with watching(ops.int8_top_k) as calls:
        log_p, ids = ops.top_k(x, matrix, bias, k=3)
        _, named = ops.top_k(x, matrix, bias, k=3, ids=names)
    assert [how for *_, how in calls[ops.int8_top_k]] == ["fast"] * 2
    np.testing.assert_array_equal(named, names[ids])
    for g in range(groups):
        rows = slice(g * of_group, (g + 1) * of_group)
        expected, tokens = ops.top_k(x[rows], matrix, bias[g], k=3)
        np.testing.assert_array_equal(ids[rows], tokens)
        np.testing.assert_array_equal(log_p[rows], expected)
    with references():
        expected, tokens = ops.top_k(x, matrix, bias, k=3, ids=names)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(named, tokens)


@given(seed=seeds, d=sizes, vocabulary=sizes, data=st.data())
@settings(max_examples=40)
def test_some_rows_are_those_of_the_whole(seed, d, vocabulary, data):
    rng = np.random.default_rng(seed)
    matrix = Int8Matrix.of(layered(rng, d, vocabulary, 1.0)).T
    rows = rng.integers(0, vocabulary, data.draw(st.integers(0, 2 * PANEL + 1)))
    some = matrix[rows]
    assert some.shape == (len(rows), d)
    np.testing.assert_array_equal(some.integers, matrix.integers[:, rows])
    sums = some.integers.sum(axis=0)
    np.testing.assert_array_equal(some.sums.reshape(-1), np.pad(sums, (0, -len(rows) % PANEL)))
    assert np.abs(some.packed).sum() == np.abs(some.integers).sum()  # filled up with zeros
    assert not any(map(np.shares_memory, some.arrays, matrix.arrays))
    x = layered(rng, 3, d, 1.0)
    np.testing.assert_array_equal(ops.linear(x, some.T), ops.linear(x, matrix.T)[:, rows])


@given(seed=seeds, d=sizes, vocabulary=sizes, tokens=st.integers(0, 40), placed=st.booleans())
@settings(max_examples=30)
def test_embeddings_are_rows_of_the_table(seed, d, vocabulary, tokens, placed):
    rng = np.random.default_rng(seed)
    table, ids = normal32(rng, vocabulary, d), rng.integers(-1, vocabulary, tokens)
    matrix, chosen = Int8Matrix.of(table.T).T, {"ids": ids, "scale": 3.5}
    positions = (normal32(rng, 7, d),) if placed else ()
    if placed:
        chosen["position_ids"] = rng.integers(0, 7, tokens)
    y = ops.embedding(matrix, *positions, **chosen)
    expected = ops.embedding(whole(matrix.T).T.astype(np.float32), *positions, **chosen)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)
    with references():
        np.testing.assert_allclose(
            ops.embedding(matrix, *positions, **chosen), y, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("activation", ["relu", "gelu", "swish"])
def test_a_feed_forward_network_is_its_products(activation):
    rng = np.random.default_rng(0)
    x, b1, b2 = normal32(rng, 5, 8), normal32(rng, 12), normal32(rng, 8)
    w1, w2 = Int8Matrix.of(normal32(rng, 8, 12)), Int8Matrix.of(normal32(rng, 12, 8))
    y = ops.feed_forward(x, w1, b1, w2, b2, activation=activation)
    inner = getattr(ops, activation)(ops.linear(x, w1, b1))
    np.testing.assert_allclose(y, ops.linear(inner, w2, b2), rtol=1e-6, atol=1e-6)


def test_stacks_of_rows_are_multiplied_too():
    rng = np.random.default_rng(0)
    x, matrix = normal32(rng, 2, 3, 8), Int8Matrix.of(normal32(rng, 8, 5))
    y = ops.linear(x, matrix)
    np.testing.assert_array_equal(y, np.stack([ops.linear(part, matrix) for part in x]))
    np.testing.assert_array_equal(ops.matmul(Tensor(x), matrix).value, y)


def test_a_tape_refuses_them():
    matrix, x = Int8Matrix.of(np.ones((3, 2), np.float32)), Tensor(np.ones((1, 3), np.float32))
    assert ops.linear(x, matrix).value.shape == (1, 2)
    with Tape(), pytest.raises(TypeError, match="8 bits have no gradients: load them in float32"):
        ops.linear(x, matrix)


def test_what_does_not_fit_is_refused():
    matrix, x = Int8Matrix.of(np.ones((3, 3), np.float32)), np.ones((1, 3), np.float32)
    with pytest.raises(ValueError, match="a scale for each column"):
        ops.linear(x, matrix.T)
    with pytest.raises(ValueError, match="a scale for each row"):
        ops.top_k(x, matrix, k=1)
    with pytest.raises(ValueError, match="a scale for each row"):
        ops.embedding(matrix, ids=np.array([0]))
    with pytest.raises(TypeError, match="only what has a scale of its own"):
        matrix[np.array([0])]
    with pytest.raises(ValueError, match="133,144 rows at most, got 133,145"):
        Int8Matrix.of(np.ones((133_145, 1), np.float32))
    with pytest.raises(ValueError, match="do not match"):
        ops.linear(np.ones((1, 4), np.float32), matrix)
    with pytest.raises(TypeError, match="not converted to an array implicitly"):
        np.asarray(matrix)
    with pytest.raises(TypeError):
        x @ matrix
    np.testing.assert_array_equal(copy.deepcopy(matrix).integers, matrix.integers)


PRODUCTS = """
    import hashlib
    import numpy as np
    from autograd import ops
    from autograd.cpu import int8_tile
    from autograd.int8 import Int8Matrix

    rng, found = np.random.default_rng(0), hashlib.sha256()
    for rows, d_in, d_out in ((1, 70, 3), (3, 4, 16), (8, 300, 100), (13, 33, 33), (90, 64, 32)):
        x = rng.standard_normal((rows, d_in), np.float32)
        matrix = Int8Matrix.of(rng.standard_normal((d_in, d_out), np.float32))
        for bias in (None, rng.standard_normal(d_out, np.float32)):
            y = ops.linear(x, matrix, bias, relu=bias is not None)
            expected = ops.int8_linear.reference(x, matrix, bias, relu=bias is not None)
            assert np.array_equal(y, expected)
            found.update(y.tobytes())
    print(int8_tile.HEIGHT, int8_tile.OFFSET, found.hexdigest())
"""

AVX2 = "+sse4.2,+popcnt,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
PROCESSORS = {  # and what their tiles are
    "AVX2": ("haswell", AVX2, (4, 0)),
    "AVX-VNNI": ("alderlake", f"{AVX2},+avxvnni", (4, 128)),
    "none": ("x86-64", "+sse2", (4, 0)),
}


@pytest.mark.limit(600)
@pytest.mark.parametrize("name", PROCESSORS)
def test_other_processors_compute_the_same_bits(name):
    if numba.config.CPU_FEATURES is not None:
        pytest.skip("NUMBA_CPU_FEATURES names those of another processor already")
    cpu, features, tile = PROCESSORS[name]
    host = binding.get_host_cpu_features()
    if missing := [f for f in features.split(",") if not host.get(f[1:])]:
        pytest.skip(f"this processor lacks {', '.join(missing)}")
    own = run(PRODUCTS).split()
    other = run(PRODUCTS, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features).split()
    assert other[-3:-1] == list(map(str, tile))
    assert other[-1] == own[-1]


def test_threads_do_not_change_results():
    sums = {run(PRODUCTS, NUMBA_NUM_THREADS=str(n)).split()[-1] for n in (1, 2, 3)}
    assert len(sums) == 1
