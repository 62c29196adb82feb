"""The arguments of kernels: read from the source, and laid out for the driver."""

import ctypes
import struct

import pytest

from autograd.cuda import device
from autograd.cuda.signature import Arguments, in_order, signatures

SOURCE = """
extern "C" __global__ void __launch_bounds__(128, 2)
    mixed(const real* x, unsigned count, Mask mask, float scale, Matrix y,
          long long* out) {}
extern "C" __global__ void nothing() {}
"""


def test_parameters_are_read_from_a_source():
    found = signatures(SOURCE)
    assert [p.code for p in found["mixed"]] == ["P", "I", "PP6If4x", "f", "PN", "P"]
    assert [p.pointee for p in found["mixed"]] == ["real", None, None, None, None, "long long"]
    assert sum(p.fields for p in found["mixed"]) == 1 + 1 + 9 + 1 + 2 + 1
    assert found["nothing"] == []


def test_a_parameter_that_cannot_be_passed_is_named():
    with pytest.raises(ValueError, match="cannot pass this parameter of a kernel: 'short factor'"):
        signatures('extern "C" __global__ void f(float* x, short factor) {}')


@pytest.mark.parametrize("source", sorted(p.stem for p in device.FOLDER.glob("*.cu")))
def test_every_kernel_can_be_launched(source):
    text = device.source_of(source)
    assert len(signatures(text)) == text.count('extern "C" __global__')


def test_arguments_are_laid_out_as_by_a_compiler():
    class Mask(ctypes.Structure):
        _fields_ = [
            *((f"place{i}", ctypes.c_void_p) for i in range(2)),
            *((f"word{i}", ctypes.c_uint32) for i in range(6)),
            ("scale", ctypes.c_float),
        ]

    class Matrix(ctypes.Structure):
        _fields_ = [("first", ctypes.c_void_p), ("stride", ctypes.c_size_t)]

    arguments = Arguments(signatures(SOURCE)["mixed"])
    arguments.put([1 << 40, 7, 1 << 43, 1 << 44, *range(6), 0.5, 1.5, 1 << 41, 24, 1 << 42])
    kinds = ctypes.c_void_p, ctypes.c_uint32, Mask, ctypes.c_float, Matrix, ctypes.c_void_p
    addresses = (ctypes.c_void_p * len(kinds)).from_address(arguments.pointers)
    assert all(
        address % ctypes.alignment(k) == 0 for address, k in zip(addresses, kinds, strict=True)
    )
    x, count, mask, scale, y, out = (
        kind.from_address(address) for kind, address in zip(kinds, addresses, strict=True)
    )
    assert (x.value, count.value, scale.value, out.value) == (1 << 40, 7, 1.5, 1 << 42)
    assert (mask.place0, mask.place1) == (1 << 43, 1 << 44)
    assert [getattr(mask, f"word{i}") for i in range(6)] == list(range(6))
    assert (mask.scale, y.first, y.stride) == (0.5, 1 << 41, 24)


def test_named_arguments_are_put_in_order():
    ordered = in_order("mixed", signatures(SOURCE)["mixed"])
    given = {"out": 6, "x": 1, "count": 2, "mask": 3, "scale": 4, "y": (5, 5)}
    assert ordered(given) == (1, 2, 3, 4, (5, 5), 6)
    assert in_order("one", signatures(SOURCE)["mixed"][:1])({"x": 7}) == (7,)
    for wrong in ({}, {**given, "z": 1}, {**given, "z": given.pop("y")}):
        with pytest.raises(TypeError, match="mixed takes x, count, mask, scale, y, out, got"):
            ordered(wrong)


@pytest.mark.parametrize("values", [[], [1] * 12, [1, -7, *range(7), 1.5, 1, 1, 1]])
def test_invalid_arguments_are_an_error(values):
    arguments = Arguments(signatures(SOURCE)["mixed"])
    with pytest.raises(struct.error):
        arguments.put(values)
