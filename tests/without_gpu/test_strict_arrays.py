"""Strict arrays behave like NumPy arrays, but are never combined with them implicitly."""

import numpy as np
import pytest

from autograd import Tensor, array_module, backend, to_host
from tests.without_gpu.strict_arrays import StrictArray

strict = backend.backend("strict")


MIXTURES = {
    "np.asarray": lambda s, n: np.asarray(s),
    "np.exp": lambda s, n: np.exp(s),
    "np.sum": lambda s, n: np.sum(s),
    "np.concatenate": lambda s, n: np.concatenate([s, s]),
    "np.float64 of it": lambda s, n: np.add(n, s),
    "s + n": lambda s, n: s + n,
    "n + s": lambda s, n: n + s,
    "n @ s": lambda s, n: n @ s,
    "s < n": lambda s, n: s < n,
    "s += n": lambda s, n: s.__iadd__(n),
    "n += s": lambda s, n: n.__iadd__(s),
    "s[n]": lambda s, n: s[n.astype(int)],
    "s[:, n]": lambda s, n: s[None][:, n.astype(int)],
    "s[...] = n": lambda s, n: s.__setitem__(..., n),
    "n[...] = s": lambda s, n: n.__setitem__(..., s),
    "n[s]": lambda s, n: n[s.astype(int)],
    "xp.exp(n)": lambda s, n: strict.xp.exp(n),
    "xp.exp([1])": lambda s, n: strict.xp.exp([1.0]),
    "xp.concatenate": lambda s, n: strict.xp.concatenate([s, n]),
    "xp.where": lambda s, n: strict.xp.where(s > 0, s, n),
    "xp.where([True])": lambda s, n: strict.xp.where([True, False], s, s),
    "xp.where(True)": lambda s, n: strict.xp.where(True, s, s),
    "xp.clip([0])": lambda s, n: strict.xp.clip(s, [0.0], None),
    "xp.add.at": lambda s, n: strict.xp.add.at(s, n.astype(int), 1.0),
    "out=n": lambda s, n: strict.xp.exp(s, out=n),
    "Tensor + array": lambda s, n: Tensor(s) + n,
    "array + Tensor": lambda s, n: n * Tensor(s),
    "Tensor + Tensor": lambda s, n: Tensor(s) + Tensor(n),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_strict_arrays_refuse_to_be_combined_with_numpy_arrays(mixture):
    host = np.array([0.0, 1.0])
    with pytest.raises((TypeError, IndexError, ValueError)):
        MIXTURES[mixture](strict.asarray(host), host)


def test_strict_arrays_otherwise_behave_like_numpy_arrays():
    host = np.arange(6.0).reshape(2, 3)
    x = strict.asarray(host)
    xp = array_module(x)
    assert xp is strict.xp
    assert isinstance(x.sum(), StrictArray)
    assert x.sum().shape == ()
    assert isinstance(x[0, 0], StrictArray)
    assert x[0, 0].shape == ()
    assert x.dtype == np.float64
    assert xp.float32 is np.float32
    assert xp.pi == np.pi
    np.testing.assert_array_equal(to_host(2 - x.T @ x), 2 - host.T @ host)
    np.testing.assert_array_equal(to_host(xp.maximum(x, 2)), np.maximum(host, 2))
    alias = x
    x += 1
    x[0, 0] = 7
    first = x[1]
    first *= 0  # a view
    xp.add.at(x, xp.asarray([0, 0]), 1.0)
    np.testing.assert_array_equal(to_host(alias), [[9, 4, 5], [0, 0, 0]])
    np.testing.assert_array_equal(host, np.arange(6.0).reshape(2, 3))
    number = x.sum()
    number += 1  # in place, also without axes
    assert float(number) == 19


def test_moving_to_the_device_and_back_copies():
    host = np.zeros(3)
    on_device = strict.asarray(host)
    back = to_host(on_device)
    back += 1
    host += 2
    np.testing.assert_array_equal(to_host(on_device), 0)
    assert isinstance(back, np.ndarray)
