"""Compiled loops accept arrays of unusual layout, byte order or storage."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd import DropoutSite, Parameter, Sentences, ops, references, watching
from tests.autograd.drawing import Case, normal32, values_and_gradients
from tests.autograd.test_contract import backwards, every_second, read_only, transposed

SITE = DropoutSite(0.5, seed=1, step=2, site=3, row=2**32 - 4)  # its rows wrap around


def swapped(x):
    return x.astype(x.dtype.newbyteorder())


def misaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    out = memory[1:].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


@pytest.fixture
def mapped(tmp_path):
    def mapped(x):
        if not x.size:
            return x
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
        np.save(path, x)
        return np.load(path, mmap_mode="r")

    return mapped


LAYOUTS = {f.__name__: f for f in (swapped, misaligned, transposed, every_second, backwards)}
LAYOUTS["read_only"] = read_only
LAYOUTS["mapped"] = None  # a fixture


def cases(rows):
    rng = np.random.default_rng(rows)
    matrix, gain = normal32(rng, rows, 12), normal32(rng, 12)
    lengths = [rows - rows // 3, rows // 3]
    sentences, others = Sentences(lengths), Sentences(lengths[::-1])
    ids = rng.integers(0, 12, rows)
    square, heads = normal32(rng, 12, 12), {"heads": 2, "d_k": 2}
    return [
        Case(ops.linear, (matrix, square, gain), {"relu": True}),
        Case(ops.feed_forward, (matrix, square, gain, square, gain), {"site": SITE}),
        Case(ops.dropout, (matrix,), {"site": SITE}),
        Case(ops.layer_norm, (matrix, gain, gain + 1), {}),
        Case(ops.add_dropout_norm, (matrix, matrix + gain, gain, gain + 1), {"site": SITE}),
        Case(ops.embedding, (square, 2 * square), {"ids": ids, "position_ids": ids[::-1].copy()}),
        Case(ops.attention, (matrix,), {"sentences": sentences, "causal": True, **heads}),
        Case(
            ops.attention,
            (matrix[:, :4], matrix),
            {"sentences": sentences, "key_sentences": others, "site": SITE, **heads},
        ),
        Case(ops.projected_cross_entropy, (matrix, square), {"targets": ids, "smoothing": 0.1}),
    ]


def laid_out(case, layout):
    settings = {k: layout(v) if isinstance(v, np.ndarray) else v for k, v in case.settings.items()}
    return Case(case.op, tuple(map(layout, case.arrays)), settings)


@pytest.mark.parametrize("rows", [0, 9])
@pytest.mark.parametrize("name", LAYOUTS)
def test_fast_implementations_accept_arrays_of_any_kind(name, rows, request):
    layout = LAYOUTS[name] or request.getfixturevalue(name)
    for case in cases(rows):
        with references():
            expected = values_and_gradients(case.run, case.arrays)
        odd = laid_out(case, layout)
        with watching(case.op) as calls:
            got = values_and_gradients(odd.run, odd.arrays)
            stored = values_and_gradients(odd.run, odd.arrays, kind=Parameter)
        assert [chosen for *_, chosen in calls[case.op]] == ["fast"] * 2
        for one in (got, stored):
            for x, y in zip(one[0] + one[1], expected[0] + expected[1], strict=True):
                assert x.dtype == np.float32
                np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_decoding_accepts_arrays_of_any_kind(name, request):
    layout = LAYOUTS[name] or request.getfixturevalue(name)
    rng = np.random.default_rng(0)
    q, kv, new = normal32(rng, 3, 2, 4), normal32(rng, 5, 6, 8), normal32(rng, 3, 12)
    chosen = {"slots": np.array([[4], [0], [1]]), "lengths": np.array([5, 2, 0])}

    def found(lay):
        settings = {k: lay(v) if isinstance(v, np.ndarray) else v for k, v in chosen.items()}
        cache = lay(kv) if name not in ("read_only", "mapped") else kv.copy()
        ops.append_to_cache(
            lay(new), cache, slots=lay(chosen["slots"][:, 0]), lengths=lay(np.full(3, 3))
        )
        y = ops.cached_attention(lay(q), cache, heads=2, d_k=2, **settings)
        log_p, ids = ops.top_k(lay(new), lay(normal32(rng, 7, 12)), k=3)
        return cache, y, log_p, ids, ops.squared_norm(lay(new)[:, 0])

    rng = np.random.default_rng(1)
    with references():
        expected = found(np.array)
    rng = np.random.default_rng(1)
    for x, y in zip(found(layout), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [swapped, misaligned, every_second, backwards])
def test_adam_changes_arrays_of_any_kind_in_place(layout):
    rng = np.random.default_rng(0)
    state = [abs(normal32(rng, 30)) for _ in range(4)]
    chosen = {"rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 7}
    odd = [layout(x) for x in state]
    with references():
        ops.adam_step(*state, **chosen)
    ops.adam_step(*odd, **chosen)
    for x, y in zip(odd, state, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        ops.adam_step(*map(read_only, state), **chosen)
