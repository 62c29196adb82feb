"""Compiled functions get what they are called with; their code is kept on disk, and checked."""

import enum
import os
from typing import NamedTuple

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")

from autograd.cpu import cache, loops, machine_code, pool  # noqa: E402
from tests.autograd.test_loops import run  # noqa: E402

pytestmark = pytest.mark.limit(600)


@loops.compiled
def copy(x, out):
    for i, number in enumerate(x.flat):
        out[i] = number


@loops.compiled
def put(x, out):
    out[0] = x


def strided(x):
    return x[::2, ::-1]


def read_only(x):
    x.flags.writeable = False
    return x


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    shifted = memory[1:].view(x.dtype).reshape(x.shape)
    shifted[...] = x
    assert not shifted.flags.aligned
    return shifted


class Subclass(np.ndarray):
    pass


LAYOUTS = {
    "in rows": lambda x: x,
    "with steps, some backwards": strided,
    "transposed": lambda x: x.T,
    "read-only": read_only,
    "unaligned": unaligned,
    "of a subclass": lambda x: x.view(Subclass),
    "repeated": lambda x: np.broadcast_to(x[0], x.shape),
    "without rows": lambda x: x[:0],
    "without columns": lambda x: x[:, 1:1],
    "a vector": lambda x: x[1],
    "a column": lambda x: x[:, 1],
    "of no dimensions": lambda x: x[1, 2, ...],
    "of four dimensions": lambda x: x.reshape(2, 1, 3, 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_any_layout_are_read(layout):
    x = LAYOUTS[layout](np.arange(30, dtype=np.float32).reshape(6, 5))
    for _ in range(2):
        out = np.full(31, -1, np.float32)
        copy(x, out)
        np.testing.assert_array_equal(out[: x.size], x.ravel())
        assert (out[x.size :] == -1).all()


@pytest.mark.parametrize("dtype", list("?bhiqlBHIQLfd"))
def test_arrays_of_any_numbers_are_read(dtype):
    x = np.array([0, 1, 77, 1], dtype)
    out = np.zeros(4)
    for given in (x, x.copy(), np.array([1, 0, 5, 9], dtype)):
        copy(given, out)
        np.testing.assert_array_equal(out, given)


def test_an_array_is_written_in_place_and_one_that_is_read_only_is_not():
    x = np.arange(4.0)
    copy(np.ones(4), x)
    np.testing.assert_array_equal(x, 1)
    x.flags.writeable = False
    with pytest.raises(numba.TypingError, match="readonly"):
        copy(np.zeros(4), x)
    np.testing.assert_array_equal(x, 1)


class Colour(enum.IntEnum):
    RED = 7


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        *((x, np.int64) for x in (0, 3, -1, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63))),
        *((x, np.uint64) for x in (2**63, 2**64 - 1, np.uint64(2**64 - 1), np.uint64(1))),
        *((x, np.float64) for x in (1.5, -0.0, 1e308, float("nan"), float("-inf"))),
        *((x, np.float64) for x in (np.float64(0.1), np.float32("nan"), np.float32(0.1))),
        *((np.dtype(c).type(x), c) for c in "bhiql" for x in (-3, 100)),
        *((np.dtype(c).type(200), c) for c in "BHIQL"),
        *((x, np.uint8) for x in (True, False, np.True_, np.False_)),
        (Colour.RED, np.int64),
    ],
)
def test_numbers_are_read_with_all_their_bits(x, dtype):
    out = np.full(1, 99, dtype)
    put(x, out)
    assert out.tobytes() == np.array([x], dtype).tobytes()


class Inner(NamedTuple):
    number: int
    nothing: None
    pair: tuple


class Outer(NamedTuple):
    array: np.ndarray
    inner: Inner


@loops.compiled
def unpack(x, out):
    if x.inner.nothing is None:
        out[0] = x.inner.number
    for pair in x.inner.pair:
        out[1] += pair
    out[2] = x.array[1]


def test_named_tuples_are_read_by_name():
    def outer(number, *pair):
        return Outer(np.arange(number, number + 4), Inner(number, None, pair))

    for x, expected in (
        (outer(5, 2.5, 1.0), [5, 3.5, 6]),
        (outer(6, 2.5, 1.0), [6, 3.5, 7]),
        (outer(6, 1.0, 1.0, 1.0), [6, 3, 7]),  # of other kinds
        (outer(6, 2, 2), [6, 4, 7]),
        (outer(5, 2.5, 1.0), [5, 3.5, 6]),
    ):
        out = np.zeros(3)
        unpack(x, out)
        assert out.tolist() == expected


def test_a_plain_tuple_is_not_taken_for_a_named_one():
    named = Inner(1, None, (2,))
    out = np.zeros(3)
    unpack(Outer(np.arange(4), named), out)
    with pytest.raises(numba.TypingError, match="nothing"):
        unpack(Outer(np.arange(4), tuple(named)), out)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_arguments_is_an_error(count):
    put(1, np.zeros(1))
    with pytest.raises(TypeError, match="argument"):
        put(*[1] * count)


@pytest.mark.parametrize(
    ("x", "error"),
    [
        ([1], "list"),
        ("1", "str"),
        (1j, "complex"),
        (np.complex64(1), "complex64"),
        (np.ones(2, ">f4"), ">f4"),
        (np.ones(2, "f2").astype(object), "object"),
        ((1, [2]), "list"),
    ],
)
def test_what_machine_code_cannot_read_is_refused(x, error):
    with pytest.raises(TypeError, match=error):
        put(x, np.zeros(1))


def test_integers_beyond_64_bits_are_refused():
    for x in (2**64, -(2**63) - 1):
        with pytest.raises(OverflowError):
            put(x, np.zeros(1))


def double(x):
    for i in range(x.size):
        x[i] *= 2


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """The cache of this process, in an empty folder."""
    folder = tmp_path / "folder"
    made = cache.Cache([folder])
    monkeypatch.setattr(cache, "opened", lambda: made)
    return folder


@pytest.fixture
def compiled(monkeypatch):
    """How often something was compiled."""
    from autograd.cpu.compiling import compiler

    calls = []

    def machine_code(*arguments):
        calls.append(arguments)
        return made(*arguments)

    made = compiler.machine_code
    monkeypatch.setattr(compiler, "machine_code", machine_code)
    return calls


def doubled():
    x = np.array([1.0, 2.0])
    loops.compiled(double)(x)  # as another process would
    assert x.tolist() == [2, 4]


def code_in(folder):
    [path] = [x for x in folder.iterdir() if x.suffix != ".lock"]
    return path


DAMAGES = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-1],
    "cut in its first line": lambda content: content[:7],
    "longer": lambda content: content + b"\0",
    "with another byte": lambda content: content[:-99] + b"\xff" + content[-98:],
    "of another format": lambda content: content.replace(b"npformer loop 1", b"npformer loop 0"),
    "foreign": lambda content: b"#!/bin/sh\necho\n" * 20,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_compiled_anew(kept, compiled, damage):
    doubled()
    path = code_in(kept)
    whole = path.read_bytes()
    doubled()
    assert len(compiled) == 1
    path.write_bytes(DAMAGES[damage](whole))
    assert path.read_bytes() != whole
    doubled()
    assert len(compiled) == 2
    doubled()
    assert len(compiled) == 2
    assert code_in(kept) == path


def test_code_of_another_function_or_of_other_kinds_does_not_count(kept, compiled):
    doubled()
    about, other = "double(float)", "double(int)"
    files, code = cache.opened(), cache.Code("entry", ["PyErr_NoMemory"], b"\x7fELF\n\n")
    files.write("name", about, code)
    assert files.read("name", about) == code
    assert files.read("name", other) is None
    assert files.read("other", about) is None


def test_code_that_needs_what_is_not_there_is_compiled_anew(kept, compiled, monkeypatch):
    doubled()
    path = code_in(kept)
    linked, failed = machine_code.linked, []

    def fails_once(*arguments):
        if not failed:
            failed.append(arguments)
            raise machine_code.CannotLinkError("there is no such function")
        return linked(*arguments)

    monkeypatch.setattr(machine_code, "linked", fails_once)
    path.touch()
    doubled()
    assert failed


def test_a_folder_that_cannot_be_written_is_read(monkeypatch, tmp_path, compiled):
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(cache, "opened", lambda: cache.Cache([second]))
    doubled()
    second.chmod(0o500)
    first.write_bytes(b"")  # no folder can be made here
    monkeypatch.setattr(cache, "opened", lambda: cache.Cache([first, second]))
    doubled()
    assert len(compiled) == 1
    assert cache.opened().is_filled
    second.chmod(0o700)


def test_what_cannot_be_kept_is_compiled_all_the_same(monkeypatch, tmp_path, compiled):
    nowhere = tmp_path / "file"
    nowhere.write_bytes(b"")
    monkeypatch.setattr(cache, "opened", lambda: cache.Cache([nowhere / "folder"]))
    for calls in (1, 2):
        doubled()
        assert len(compiled) == calls


def test_functions_that_close_over_others_are_not_kept(kept):
    def multiplication(factor):
        @loops.compiled
        def multiply(x):
            x[0] *= factor

        return multiply

    for factor in (2, 3):
        x = np.ones(1)
        multiplication(factor)(x)
        assert x[0] == factor
    assert not kept.exists()


def test_of_folders_that_are_not_used_the_latest_are_kept(tmp_path):
    for age in range(12):
        folder = tmp_path / f"npformer-loops-{age}"
        folder.mkdir()
        os.utime(folder, (1e9 - age, 1e9 - age))
    (tmp_path / "mine").mkdir()
    cache.Cache([tmp_path / "npformer-loops-9"])  # it is used again
    cache.Cache([tmp_path / "npformer-loops-new"]).write("x", "x", cache.Code("", [], b""))
    left = {x.name.removeprefix("npformer-loops-") for x in tmp_path.iterdir()}
    assert left == {"mine", "new", "9", *"012345"}


@pytest.mark.parametrize(
    ("name", "value", "is_other"),
    [
        ("NUMBA_CPU_NAME", "generic", True),
        ("NUMBA_CPU_FEATURES", "", True),
        ("NUMBA_OPT", "1", True),
        ("NUMBA_NUM_THREADS", "1", False),
        ("HOME", "/", False),
    ],
)
def test_the_cache_depends_on_settings_that_change_code(monkeypatch, name, value, is_other):
    before = cache._key()
    monkeypatch.setenv(name, value)
    assert (cache._key() != before) == is_other


@pytest.mark.parametrize("what", ["fingerprint", "numba_version"])
def test_the_cache_depends_on_sources_and_on_numba(monkeypatch, what):
    before = cache._key()
    monkeypatch.setattr(cache, what, lambda: "other")
    assert cache._key() != before


def test_the_number_of_threads_is_that_of_processors_or_of_numbas_setting(monkeypatch):
    count = pool.threads.__wrapped__
    for chosen, expected in (("3", 3), ("0", None), ("many", None), ("", None)):
        monkeypatch.setenv("NUMBA_NUM_THREADS", chosen)
        assert count() == (expected or numba.config.NUMBA_DEFAULT_NUM_THREADS)


STEPS = """
import sys
import numpy as np
from autograd import DropoutStream
from npformer import Packed, Transformer, TransformerConfig
from npformer.batch import Batch
from npformer.beam_search import search
from train.adam import Adam
from train.step import train_step

model = Transformer(TransformerConfig.preset("tiny", vocab_size=60), seed=0)
ids = [[5, 6, 7, 2], [8, 9, 2]]
search(model, Packed.of(ids))
batch = Batch.of(ids, ids, begin_id=1, end_id=2)
train_step(model, Adam(model.buffer), [batch], 1e-3, DropoutStream(1, 1), 1.0)
search(model, Packed.of(ids))
loops = sys.modules["autograd.cpu.linear"]._forward
print("numba" in sys.modules, bool(loops))
"""


def test_nothing_imports_numba_if_all_is_compiled():
    run(STEPS)  # which compiles
    assert run(STEPS) == "False True\n"


def test_numba_can_be_imported_after_its_functions_were_used():
    script = STEPS + "\nimport numba\nprint(numba.njit(lambda n: n + 1)(1))\n"
    script += "import numpy as np; print(numba.njit(lambda n: np.ones((n, n))[0].sum())(5))"
    assert run(script).endswith("2\n5.0\n")
