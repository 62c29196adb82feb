"""A product is computed in the fastest way for its class, which the first run measures.

cuBLASLt is the stand-in of tests/without_gpu, and the times are a list.
"""

from __future__ import annotations

import ctypes
import functools
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("ml_dtypes", reason="bfloat16 on NumPy needs ml_dtypes")

from autograd.backend import Array, bfloat16
from autograd.cuda.choices import Choices
from autograd.cuda.cublaslt import CublasLt, Problem
from autograd.cuda.product import Product, class_of, mask_like, problem_of, stride_of
from autograd.cuda.products import (
    WORKSPACE_BYTES,
    Products,
    choices_kept_in,
    is_way,
    recordable_products,
)
from tests.without_gpu import emulator

pytestmark = pytest.mark.skipif(
    emulator.compiler() is None, reason="needs a C++ compiler (or pip install ziglang)"
)

FLOAT32, BFLOAT16 = np.dtype(np.float32), bfloat16()


class Host:
    """The host's memory in place of a GPU's, and a clock with given times."""

    def __init__(self, seconds: list[float] | None = None) -> None:
        self.zero_one = np.array([0, 1], np.float32)
        self.workspace_memory = np.zeros(WORKSPACE_BYTES + 256, np.uint8)
        self.times = list(seconds or [])
        self.timed, self.limits = 0, []

    def address(self, x: Array) -> int:
        return int(x.ctypes.data)

    def stream(self) -> int:
        return 0

    def workspace(self) -> int:
        return int(-(-self.workspace_memory.ctypes.data // 256) * 256)

    def numbers(self) -> int:
        return int(self.zero_one.ctypes.data)

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def like(self, x: Array) -> Array:
        return np.full((len(x), stride_of(x)), np.nan, x.dtype)[:, : x.shape[1]]

    def seconds(self, run: Callable[[], None], most: float = math.inf) -> float:
        self.limits.append(most)
        run()
        run()
        self.timed += 1
        return self.times.pop(0) if self.times else 1.0


class Cublas:
    """In the place of cuBLAS: computes in float64, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, product: Product, problem: Problem) -> None:
        self.calls += 1
        product.out[...] = expected(product)


def bits_of(mask: np.ndarray, columns: int) -> np.ndarray:
    return np.unpackbits(mask, axis=1, bitorder="little")[:, :columns]


def complete(product: Product) -> None:
    """In the place of the kernels for masks and sums."""
    if product.positive:
        bits = np.packbits(product.out > 0, axis=1, bitorder="little")
        mask = mask_like(product.out)
        mask[:, : bits.shape[1]] = bits
        product.positive(mask)
    if product.where is not None:
        product.out[bits_of(product.where, product.out.shape[1]) == 0] = 0
    if product.sums:
        product.sums(product.b.astype(FLOAT32))


def expected(product: Product) -> np.ndarray:
    a, b = (x.astype(np.float64) for x in (product.a, product.b))
    result = (a.T if product.a_transposed else a) @ (b.T if product.b_transposed else b)
    if product.scale is not None:
        result = result * float(product.scale)
    if product.add:
        result = result + product.out.astype(np.float64)
    if product.bias is not None:
        result = result + product.bias.astype(np.float64)
    if product.where is not None:
        result = result * bits_of(product.where, result.shape[1])
    return np.maximum(result, 0) if product.relu else result


@functools.cache
def lt() -> CublasLt:
    return CublasLt(ctypes.CDLL(str(emulator.cublaslt())))


def made(tmp_path, host: Host, cublas: Cublas, device: str = "card") -> Products:
    choices = Choices(tmp_path, device, functools.partial(is_way, lt=lt()))
    return Products(cublas, complete, lt(), host, choices)


def product(rows: int = 5, depth: int = 16, columns: int = 8, **more: object) -> Product:
    rng = np.random.default_rng(rows)
    a, b = rng.standard_normal((rows, depth)), rng.standard_normal((depth, columns))
    out = np.full((rows, columns), np.nan, np.float32)
    return Product(out, a.astype(FLOAT32), b.astype(FLOAT32))._replace(**more)


@given(
    st.sampled_from([(FLOAT32, FLOAT32), (BFLOAT16, BFLOAT16), (BFLOAT16, FLOAT32)]),
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.booleans(), st.booleans()),
    st.sampled_from(["", "bias", "relu", "both", "add", "scale", "add and scale"]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_every_way_gives_the_product(
    tmp_path_factory, dtypes, sizes, transposed, kind, cublas_is_faster, seed
):
    rng = np.random.default_rng(seed)
    rows, depth, columns = sizes

    def matrix(n: int, m: int, turned: bool, dtype: np.dtype) -> np.ndarray:
        """A matrix with padded rows, like those of logits."""
        whole = rng.standard_normal((m if turned else n, (n if turned else m) + 3))
        return whole.astype(dtype)[:, :-3]

    a = matrix(rows, depth, transposed[0], dtypes[0])
    b = matrix(depth, columns, transposed[1], dtypes[0])
    out = matrix(rows, columns, False, dtypes[1])
    if "add" not in kind:
        out[...] = np.nan
    asked = Product(
        *(out, a, b, *transposed),
        scale=np.array(0.5, np.float32) if "scale" in kind else None,
        add="add" in kind,
        bias=rng.standard_normal(columns).astype(dtypes[1]) if kind in ("bias", "both") else None,
        relu=kind in ("relu", "both"),
    )
    wanted = expected(asked)
    cublas, host = Cublas(), Host([0.5] if cublas_is_faster else [2.0])
    multiply = made(tmp_path_factory.mktemp("choices"), host, cublas)
    multiply(asked)
    assert host.timed > 1
    size = np.abs(a.astype(float)).max() * np.abs(b.astype(float)).max() * depth + 3
    tolerance = 1e-5 if dtypes[1] == FLOAT32 else 2.0**-7
    np.testing.assert_allclose(out.astype(float), wanted, atol=tolerance * size)


def with_epilogue(kind: str) -> tuple[Product, list[np.ndarray]]:
    """A product with a mask or sums, and what it is to be called with."""
    asked, rng = product(rows=30, columns=136), np.random.default_rng(1)
    taken: list[np.ndarray] = []
    if kind == "positive":
        bias = rng.standard_normal(136, FLOAT32)
        return asked._replace(positive=taken.append, bias=bias, relu=True), taken
    if kind == "where":
        mask = rng.integers(0, 256, mask_like(asked.out).shape, np.uint8)
        return asked._replace(where=mask), taken
    return asked._replace(sums=taken.append), taken


def measured_before(multiply: Products, asked: Product) -> None:
    """Choose a way for the product without its mask and sums."""
    multiply(asked._replace(positive=None, where=None, sums=None))


@pytest.mark.parametrize("passes_are_faster", [True, False])
@pytest.mark.parametrize("kind", ["positive", "where", "sums"])
def test_every_way_makes_masks_and_sums(tmp_path, kind, passes_are_faster):
    asked, taken = with_epilogue(kind)
    wanted = expected(asked)
    cublas, host = Cublas(), Host()
    multiply = made(tmp_path, host, cublas)
    measured_before(multiply, asked)
    host.times = [0.5] if passes_are_faster else [2.0]
    multiply(asked)
    assert min(map(len, multiply.measured.values())) > 1  # each way was right
    calls = cublas.calls
    taken.clear()
    asked.out[...] = np.nan
    multiply(asked)
    assert cublas.calls - calls == passes_are_faster
    np.testing.assert_allclose(asked.out, wanted, rtol=1e-4, atol=1e-5)
    if kind == "positive" and passes_are_faster:
        assert taken == []  # a mask is not worth a pass of its own
    elif kind == "positive":
        np.testing.assert_array_equal(bits_of(taken[0], 136), asked.out > 0)
    elif kind == "sums":
        np.testing.assert_allclose(taken[0].sum(axis=0), asked.b.sum(axis=0), rtol=1e-4, atol=1e-5)


def reversed_bits(mask: np.ndarray) -> np.ndarray:
    """With the bits of each byte in the other order."""
    return np.packbits(np.unpackbits(mask, axis=1), axis=1, bitorder="little")


@pytest.mark.parametrize("fault", ["positive", "where", "sums", "other bits each time"])
def test_an_algorithm_that_does_not_mean_what_we_mean_does_not_count(tmp_path, fault, monkeypatch):
    """NVIDIA does not say where the bits of masks lie."""
    asked, taken = with_epilogue(fault if fault in ("positive", "where") else "sums")
    multiply = made(tmp_path, host := Host(), Cublas())
    measured_before(multiply, asked)
    host.times = [3.0, 1.0]
    ours, noise = multiply._multiply, np.random.default_rng(0)

    def wrong(product: Product, *rest: object, **named: object) -> None:
        positive, sums = product.positive, product.sums
        if fault == "where":
            product = product._replace(where=reversed_bits(product.where))
        elif fault == "positive":
            product = product._replace(positive=lambda mask: positive(reversed_bits(mask)))
        elif fault == "sums":
            product = product._replace(sums=lambda parts: sums(parts + 3))
        else:
            product = product._replace(sums=lambda parts: sums(parts * (1 + 1e-5 * noise.random())))
        ours(product, *rest, **named)

    monkeypatch.setattr(multiply, "_multiply", wrong)
    multiply(asked)
    assert min(map(len, multiply.measured.values())) == 1
    np.testing.assert_allclose(asked.out, expected(asked), rtol=1e-5, atol=1e-5)
    assert len(taken) == (asked.sums is not None)


@pytest.mark.parametrize("fault", ["positive", "where", "sums"])
def test_masks_and_sums_are_looked_at_for_each_size_that_is_recorded(tmp_path, fault, monkeypatch):
    """An algorithm may be right for one size of its class, and wrong for another."""
    asked, taken = with_epilogue(fault)
    more = {"where": mask_like(product(rows=29, columns=136).out)} if fault == "where" else {}
    other = product(rows=29, columns=136)._replace(
        bias=asked.bias, relu=asked.relu, positive=asked.positive, sums=asked.sums, **more
    )
    if fault == "where":
        other.where[...] = asked.where[:29]
    multiply = made(tmp_path, host := Host(), Cublas())
    with recordable_products():
        measured_before(multiply, asked)
        host.times = [3.0, 1.0]
        multiply(asked)
        assert host.times == []
    ours, is_wrong = multiply._multiply, []

    def sometimes_wrong(product: Product, *rest: object, **named: object) -> None:
        positive, sums = product.positive, product.sums
        if len(product.out) == 29:
            is_wrong.append(1)
            if product.where is not None:
                product = product._replace(where=reversed_bits(product.where))
            elif fault == "positive":
                product = product._replace(positive=positive and (lambda m: positive(~m)))
            else:
                product = product._replace(sums=sums and (lambda parts: sums(parts + 3)))
        ours(product, *rest, **named)

    monkeypatch.setattr(multiply, "_multiply", sometimes_wrong)
    taken.clear()
    timed = host.timed
    with recordable_products():
        multiply(other)
    assert is_wrong
    assert host.timed == timed  # the class has its choice
    np.testing.assert_allclose(other.out, expected(other), rtol=1e-5, atol=1e-5)
    if fault == "positive":
        assert taken == []
    elif fault == "sums":
        np.testing.assert_allclose(taken[0].sum(axis=0), other.b.sum(axis=0), rtol=1e-4, atol=1e-5)


def test_each_run_keeps_the_choice_for_the_product_without_its_mask(tmp_path):
    asked, _ = with_epilogue("positive")
    folders = [tmp_path / "first", tmp_path / "second"]
    for run in folders:
        with choices_kept_in(run):
            made(tmp_path / "cache", Host(), Cublas())(asked)
    first, second = ({p.name: p.read_bytes() for p in run.iterdir()} for run in folders)
    assert first == second
    assert len(first) == 2


def test_the_fastest_way_is_measured_once_and_used_again(tmp_path):
    host, cublas = Host([3.0, 2.0, 1.0]), Cublas()
    multiply = made(tmp_path, host, cublas)
    multiply(product())
    tried, calls = host.timed, cublas.calls
    assert tried == 4  # cuBLAS, and three algorithms of the stand-in
    for _ in range(3):
        multiply(product())
    made(tmp_path, host, cublas)(product())  # a later run
    assert (host.timed, cublas.calls) == (tried, calls)


def test_a_way_that_is_far_behind_the_best_so_far_is_timed_only_roughly(tmp_path):
    host = Host([4.0, 8.0, 2.0, 3.0])
    made(tmp_path, host, Cublas())(product())
    assert host.limits == [math.inf, 5.0, 5.0, 2.5]


def test_cublas_is_used_unless_an_algorithm_is_much_faster(tmp_path):
    host, cublas = Host([1.0, 0.99, 0.99, 0.99]), Cublas()
    multiply = made(tmp_path, host, cublas)
    multiply(product())
    calls = cublas.calls
    multiply(product())
    made(tmp_path, host, cublas)(product())
    assert cublas.calls == calls + 2


def test_similar_sizes_share_a_choice(tmp_path):
    host = Host([3.0, 1.0])
    multiply = made(tmp_path, host, Cublas())
    for rows in (17_000, 24_000, 24_576):
        multiply(product(rows))
    assert host.timed == 4
    multiply(product(25_000))
    assert host.timed == 8
    multiply(product(24_000, columns=16))
    assert host.timed == 12


def test_there_are_few_classes_of_the_number_of_tokens_and_more_of_other_sizes():
    def classes(**sizes: range) -> int:
        [(name, values)] = sizes.items()
        a_transposed = name == "depth"
        problem = problem_of(product(), False)._replace(a_transposed=a_transposed)
        return len({class_of(problem._replace(**{name: n}), False) for n in values})

    assert classes(rows=range(12_289, 25_001)) == classes(depth=range(12_289, 25_001)) == 3
    assert classes(columns=range(513, 1025)) == 8


def test_a_choice_is_valid_only_for_its_card(tmp_path):
    host = Host()
    made(tmp_path, host, Cublas(), "one card")(product())
    made(tmp_path, host, Cublas(), "another")(product())
    assert host.timed == 8


def test_a_run_continues_with_the_algorithms_it_began_with(tmp_path):
    """Also within one process, and after its choices in the cache were lost or replaced."""
    cache, run, other = (tmp_path / name for name in ("cache", "run", "other"))
    host, cublas = Host([3.0, 1.0]), Cublas()
    with choices_kept_in(run):
        made(cache, host, cublas)(product())
    shutil.rmtree(cache)
    multiply = made(cache, host, cublas)
    with choices_kept_in(other):
        multiply(product())  # every way takes 1 s now, so that it is cuBLAS
    calls, timed = cublas.calls, host.timed
    with choices_kept_in(run):
        multiply(product())
    assert (cublas.calls, host.timed) == (calls, timed)
    with choices_kept_in(other):
        multiply(product())
    assert (cublas.calls, host.timed) == (calls + 1, timed)


def test_measuring_adds_the_product_only_once(tmp_path):
    asked = product(add=True)
    asked.out[...] = 1
    wanted = expected(asked)
    made(tmp_path, Host([3.0, 1.0]), Cublas())(asked)
    np.testing.assert_allclose(asked.out, wanted, rtol=1e-5)


def test_cublas_replaces_a_chosen_algorithm_that_is_not_supported(tmp_path):
    """A choice is made for a class, and may not support all of its problems."""
    host, cublas = Host(), Cublas()
    multiply = made(tmp_path, host, cublas)
    asked, another = product(), product(bias=np.ones(8, np.float32))
    [*_, of_another] = lt().algorithms(problem_of(another, False), WORKSPACE_BYTES, 9)
    keep_in(tmp_path, asked, of_another)
    multiply(asked)
    assert cublas.calls == 1
    assert host.timed == 0
    np.testing.assert_allclose(asked.out, expected(asked), rtol=1e-5)


def keep_in(folder, asked: Product, algorithm: bytes, fields: tuple[int, ...] = ()) -> None:
    """Keep an algorithm, which is said to have these fields, for the class of a product."""
    purpose = class_of(problem_of(asked, False), False)
    name = " ".join([algorithm.hex(), *map(str, fields or lt().fields(algorithm))])
    Choices(folder, "card").keep(purpose, name)


@pytest.mark.parametrize("what", ["other fields", "sums in bfloat16", "no algorithm", "no fields"])
def test_an_algorithm_that_means_something_else_now_is_measured_anew(tmp_path, what):
    host, cublas, asked = Host([3.0, 1.0]), Cublas(), product()
    found = lt().algorithms(problem_of(asked, False), WORKSPACE_BYTES, 9)[-1]
    if what == "other fields":
        keep_in(tmp_path, asked, found, (1, *lt().fields(found)[1:]))
    elif what == "sums in bfloat16":  # the stand-in's first
        keep_in(tmp_path, asked, bytes(4) + found[4:])
    elif what == "no algorithm":
        keep_in(tmp_path, asked, b"\xff" * 64, (5, 0, 1, 0, 0, 0, 0, 0, 0))
    else:
        purpose = class_of(problem_of(asked, False), False)
        Choices(tmp_path, "card").keep(purpose, found.hex())
    made(tmp_path, host, cublas)(asked)
    assert host.timed == 4
    np.testing.assert_allclose(asked.out, expected(asked), rtol=1e-5)
    made(tmp_path, host, cublas)(asked)  # what was measured has replaced it
    assert host.timed == 4


def test_more_algorithms_are_tried_for_small_products(tmp_path, monkeypatch):
    multiply, counts = made(tmp_path, Host(), Cublas()), []
    monkeypatch.setattr(multiply._lt, "algorithms", lambda problem, room, n: counts.append(n) or [])
    problem = problem_of(product(), False)
    for rows in (1 << 20, (1 << 20) + 1):
        multiply._fastest(product(), problem._replace(rows=rows, depth=1 << 10), "a class")
    assert counts == [24, 8]


def test_cublas_is_used_if_choices_cannot_be_saved(tmp_path):
    """Otherwise two runs with the same seed could compute in different ways."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    host, cublas = Host([3.0, 1.0]), Cublas()
    multiply = made(blocked / "folder", host, cublas)
    with pytest.warns(UserWarning, match="cannot keep"):
        multiply(product())
    timed, calls = host.timed, cublas.calls
    multiply(product(7))
    multiply(product(9))
    assert host.timed == timed
    assert cublas.calls == calls + 2


def test_an_algorithm_that_fails_is_not_chosen(tmp_path, monkeypatch):
    host, cublas = Host([3.0, 1.0]), Cublas()
    multiply = made(tmp_path, host, cublas)
    monkeypatch.setattr(multiply._lt, "algorithms", lambda *_: [bytes(64)])
    asked = product()
    multiply(asked)
    np.testing.assert_allclose(asked.out, expected(asked), rtol=1e-5)
    assert [len(seconds) for seconds in multiply.measured.values()] == [1]


def test_without_cublaslt_cublas_computes_every_product(tmp_path):
    host, cublas = Host(), Cublas()
    asked = product(bias=np.ones(8, np.float32), relu=True)
    Products(cublas, complete, None, host, Choices(tmp_path, "card"))(asked)
    assert (cublas.calls, host.timed) == (1, 0)
    np.testing.assert_allclose(asked.out, expected(asked), rtol=1e-5)


def test_only_names_of_ways_are_valid_choices():
    algorithm = bytes(range(64)).hex()
    assert is_way("cublas")
    assert is_way(f"{algorithm} 66 20 1 0 0 0 12 0 -1")
    wrong = ["", "abcd", "zz" * 64, "cublas ", algorithm, f"{algorithm} ", f"{algorithm} x"]
    assert not any(map(is_way, [*wrong, f"{bytes(63).hex()} 66"]))
