"""State dicts of PyTorch, read without executing what is in them."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npformer import Translator, UserError
from npformer.formats.importing import import_model
from npformer.formats.state_dict import read_state_dict
from npformer.formats.unpickling import unpickled
from tests.formats.foreign import marian_model

torch = pytest.importorskip("torch", reason="it writes the files")

STATE = OrderedDict(
    table=torch.arange(12.0).reshape(3, 4),
    half=torch.tensor([1.5, -2.0]).half(),
    brain=torch.tensor([1.5, -2.0]).bfloat16(),
    double=torch.tensor(3.25).double(),
    count=torch.tensor([7, -(2**40)]),
    flags=torch.tensor([True, False]),
    parameter=torch.nn.Parameter(torch.ones(2)),
    empty=torch.empty(0, 3),
)
STATE["tied"] = STATE["table"]
STATE["transposed"] = STATE["table"].T
STATE["part"] = STATE["table"][1:, ::2]
STATE._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]

formats = pytest.mark.parametrize("is_zip", [True, False], ids=["archive", "old"])


def saved(state: Any, is_zip: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=is_zip)
    return file.getvalue()


def read(content: bytes, directory: Path) -> dict[str, np.ndarray]:
    path = directory / "pytorch_model.bin"
    path.write_bytes(content)
    return read_state_dict(path)


def refusal(content: bytes, directory: Path) -> str:
    with pytest.raises(UserError) as error:
        read(content, directory)
    message = str(error.value)
    assert str(directory) in message
    assert "\n" not in message
    return message


@formats
def test_tensors_are_read(is_zip: bool, tmp_path: Path) -> None:
    found = read(saved(STATE, is_zip), tmp_path)
    assert list(found) == list(STATE)
    for name, tensor in STATE.items():
        expected = tensor.detach()
        expected = expected.float() if expected.dtype == torch.bfloat16 else expected
        np.testing.assert_array_equal(found[name], expected.numpy())
        assert found[name].dtype == expected.numpy().dtype


@formats
def test_a_model_with_pytorch_model_bin_is_imported(is_zip: bool, tmp_path: Path) -> None:
    model = marian_model(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "expected")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    (tmp_path / "theirs" / "pytorch_model.bin").write_bytes(saved(model.state_dict(), is_zip))
    import_model(tmp_path / "theirs", tmp_path / "ours")
    expected, found = (Translator.load(tmp_path / n).model for n in ("expected", "ours"))
    np.testing.assert_array_equal(found.buffer.values, expected.buffer.values)


@formats
def test_truncated_files_are_refused(is_zip: bool, tmp_path: Path) -> None:
    content = saved(STATE, is_zip)
    for size in (0, 1, 2, 3, len(content) // 4, len(content) // 2, len(content) - 1):
        refusal(content[:size], tmp_path)


def archive(pickled: bytes, storages: dict[str, bytes] | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as out:
        out.writestr("archive/data.pkl", pickled)
        for key, content in (storages or {}).items():
            out.writestr(f"archive/data/{key}", content)
    return file.getvalue()


class Call:
    """Something that pickle would call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.called = function, arguments

    def __reduce__(self) -> Any:
        return self.called


MARK = "/tmp/npformer-must-not-exist"
PUT, DICT, END = b"q\x00", b"\x80\x02}", b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


EVIL: dict[str, tuple[bytes, str]] = {
    "os.system": (pickle.dumps({"a": Call(os.system, f"touch {MARK}")}, 2), "posix.system"),
    "eval": (pickle.dumps({"a": Call(eval, f"open({MARK!r}, 'w')")}, 2), "eval"),
    "getattr": (pickle.dumps(Call(getattr, "a", "upper"), 2), "getattr"),
    "torch.load": (b"\x80\x02ctorch\nload\n.", "torch.load"),
    "a name with dots": (b"\x80\x02ccollections\nOrderedDict.fromkeys\n.", "OrderedDict.fromkeys"),
    "an endless name": (b"\x80\x02c" + b"a" * 1000, "too long"),
    "a name alone": (b"\x80\x02ccollections\nOrderedDict\n.", "no dict of tensors"),
    "a call of a number": (b"\x80\x02K\x01)R.", "it calls a int"),
    "an OrderedDict with arguments": (
        b"\x80\x02ccollections\nOrderedDict\n]\x85R.",
        "unusual arguments",
    ),
    "a tensor of numbers": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x00K\x00K\x00K\x00tR.",
        "unusual arguments",
    ),
    "a newer protocol": (pickle.dumps({}, 4), "no pickle of protocol 2"),
    "an older protocol": (pickle.dumps({}, 0), "no pickle of protocol 2"),
    "NEWOBJ": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "the instruction NEWOBJ"),
    "INST": (b"\x80\x02(ios\nsystem\n.", "the instruction INST"),
    "STACK_GLOBAL": (b"\x80\x02\x93.", "the instruction STACK_GLOBAL"),
    "EXT1": (b"\x80\x02\x82\x01.", "the instruction EXT1"),
    "DUP": (b"\x80\x02K\x012.", "the instruction DUP"),
    "no instruction": (b"\x80\x02\xff.", r"b'\xff'"),
    "an empty stack": (b"\x80\x02.", "other things than one value"),
    "a pop from nothing": (b"\x80\x02\x85.", "empty stack"),
    "no mark": (b"\x80\x02t.", "a mark that was never set"),
    "a pop through a mark": (b"\x80\x02K\x01(\x85.", "empty stack"),
    "a mark left": (b"\x80\x02K\x01(.", "other things"),
    "an unknown memo": (b"\x80\x02h\x05.", "the value 5, which was never kept"),
    "a text beyond the end": (b"\x80\x02X\xff\xff\xff\xff", "cut short"),
    "a text that is not UTF-8": (b"\x80\x02X\x01\x00\x00\x00\xff.", "not UTF-8"),
    "a key without a value": (DICT + b"(K\x01u.", "a key without a value"),
    "a list as a key": (DICT + b"]K\x01s.", "a list as a key"),
    "a number as a key": (DICT + b"K\x01K\x01s.", "a int as a key"),
    "a list filled as a dict": (b"\x80\x02]K\x01K\x01s.", "as if it were a dict"),
    "itself as a value": (DICT + PUT + text("a") + b"h\x00s.", "'a' in it is no tensor"),
    "deep nesting": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + END, "no dict of tensors"),
    "doubling lists": (
        b"\x80\x02]" + b"".join(b"q%c(h%ch%ce" % (i, i, i) for i in range(100)) + END,
        "no dict of tensors",
    ),
    "a foreign reference": (DICT + text("a") + b"K\x05Qs.", "not the memory of a tensor"),
}


@pytest.mark.parametrize("name", EVIL)
def test_pickles_that_are_more_than_a_state_dict_are_refused(name: str, tmp_path: Path) -> None:
    content, message = EVIL[name]
    assert message in refusal(archive(content), tmp_path)
    assert not os.path.exists(MARK)


def tensor(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    count: int = 6,
    key: str = "0",
) -> bytes:
    """The instructions for a tensor of 32-bit numbers."""

    def number(i: int) -> bytes:
        encoded = i.to_bytes(32, "little", signed=True)
        return b"\x8a\x20" + encoded

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu")
    storage += number(count) + b"tQ"
    arguments = storage + number(offset) + numbers(shape) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "beyond the end": ({"shape": (3, 3), "strides": (3, 1)}, "beyond its storage"),
    "an offset beyond the end": ({"shape": (2,), "strides": (1,), "offset": 5}, "beyond its"),
    "a stride beyond the end": ({"shape": (2,), "strides": (6,)}, "beyond its storage"),
    "a huge stride": ({"shape": (2,), "strides": (2**200,)}, "beyond its storage"),
    "a number many times": ({"shape": (2**40,), "strides": (0,)}, "beyond its storage"),
    "a huge empty shape": ({"shape": (0, 2**62), "strides": (1, 1)}, "beyond its storage"),
    "a negative stride": ({"shape": (2,), "strides": (-1,), "offset": 3}, "negative"),
    "a negative size": ({"shape": (-2,), "strides": (1,)}, "negative"),
    "a negative offset": ({"shape": (2,), "strides": (1,), "offset": -1}, "negative"),
    "many dimensions": ({"shape": (1,) * 40, "strides": (1,) * 40}, "40 dimensions"),
    "a stride too few": ({"shape": (2, 2), "strides": (1,)}, "unusual arguments"),
    "a storage that is too small": ({"shape": (2,), "strides": (1,), "count": 7}, "24 bytes, not"),
    "a huge storage": ({"shape": (2,), "strides": (1,), "count": 2**100}, "impossible size"),
    "a negative storage": ({"shape": (2,), "strides": (1,), "count": -6}, "impossible size"),
    "no storage": ({"shape": (2,), "strides": (1,), "key": "1"}, "lacks 'data/1'"),
    "a storage elsewhere": ({"shape": (2,), "strides": (1,), "key": "../x"}, "lacks 'data/../x'"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_tensors_stay_within_their_storages(name: str, tmp_path: Path) -> None:
    about, message = SHAPES[name]
    content = archive(DICT + text("a") + tensor(**about) + b"s.", {"0": bytes(24)})
    assert message in refusal(content, tmp_path)


def test_tensors_may_share_a_storage(tmp_path: Path) -> None:
    both = text("a") + tensor((2, 3), (3, 1)) + text("b") + tensor((3, 2), (1, 3))
    content = archive(DICT + b"(" + both + b"u.", {"0": np.arange(6, dtype="<f4").tobytes()})
    found = read(content, tmp_path)
    np.testing.assert_array_equal(found["a"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(found["b"], found["a"].T)


def test_the_stride_of_a_single_number_counts_for_nothing(tmp_path: Path) -> None:
    content = archive(DICT + text("a") + tensor((1, 2), (2**70, 1)) + b"s.", {"0": bytes(24)})
    assert read(content, tmp_path)["a"].shape == (1, 2)


def test_a_storage_has_one_size(tmp_path: Path) -> None:
    both = text("a") + tensor((2,), (1,)) + text("b") + tensor((2,), (1,), count=3)
    content = archive(DICT + b"(" + both + b"u.", {"0": bytes(24)})
    assert "two storages called '0'" in refusal(content, tmp_path)


def test_archives_that_pytorch_does_not_write_are_refused(tmp_path: Path) -> None:
    bomb = archive(DICT + END + bytes(10_000_000), compression=zipfile.ZIP_DEFLATED)
    assert "more than there is" in refusal(bomb, tmp_path)
    content = archive(DICT + text("a" * 1000) + b"K\x01s.", {"0": os.urandom(900)})
    small = archive(DICT + END, {"0": b"ab"}, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed" in refusal(small, tmp_path)
    assert "too large" in refusal(archive(bytes(5 << 20)), tmp_path)
    assert "no tensor" in refusal(content, tmp_path)
    flipped = bytearray(content)
    flipped[content.index(b"a" * 1000) + 5] ^= 1
    assert "damaged" in refusal(bytes(flipped), tmp_path)


@formats
def test_damaged_files_are_read_or_refused(is_zip: bool, tmp_path: Path) -> None:
    content = saved(STATE, is_zip)

    @settings(
        max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
    )
    @given(st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1))
    def check(changes: list[tuple[int, int]]) -> None:
        damaged = bytearray(content)
        for position, byte in changes:
            damaged[position] = byte
        try:
            read(bytes(damaged), tmp_path)
        except UserError:
            refusal(bytes(damaged), tmp_path)

    check()


INSTRUCTIONS = b"\x80(N\x88\x89JKM\x8aGX)]}t\x85\x86\x87suaeqrhjcQRb."


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([bytes([i]) for i in INSTRUCTIONS]),
            st.sampled_from([b"K\x01", b"q\x00", b"h\x00", text("storage"), tensor((2,), (1,))]),
            st.sampled_from([b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"]),
            st.binary(max_size=3),
        ),
        max_size=30,
    )
)
def test_random_programs_are_read_or_refused(program: list[bytes]) -> None:
    content = b"\x80\x02" + b"".join(program) + END
    try:
        _, end = unpickled(memoryview(content))
    except UserError:
        return
    assert 2 < end <= len(content)
