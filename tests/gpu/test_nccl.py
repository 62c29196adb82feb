"""Sums over ranks by NCCL: one rank on a card, and two that share it where NCCL allows that."""

import pickle

import numpy as np
import pytest

from autograd import to_host
from npformer import UserError
from tests.mpi import needs_mpi, run_on_ranks
from tests.train.ranks_on_gpus import trained
from tests.train.small_corpus import make_corpus
from tests.train.test_ranks_on_gpus import assert_as_alone, assert_overlapped
from train.ranks.nccl import NCCLTransport
from train.ranks.ranks import ALONE

SHARING = 23000  # the first version of NCCL that lets ranks share a card


@pytest.fixture
def transport():
    try:
        made = NCCLTransport(ALONE)
    except UserError as error:
        pytest.skip(str(error))
    yield made
    made.close()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_rank_that_is_alone_gets_its_own_numbers(transport, precision):
    through, without = trained(precision, ALONE, transport), trained(precision, ALONE)
    for name in without:
        np.testing.assert_array_equal(through[name], without[name], err_msg=name)


def test_arrays_are_summed_and_copied_in_order(transport):
    import cupy

    numbers = np.arange(1 << 20, dtype=np.float32)
    for dtype in (np.float32, np.float64):
        array = cupy.asarray(numbers.astype(dtype))
        array *= 2  # the sum comes after it, and what is next after the sum
        transport.start_sum(array).wait()
        array += 1
        transport.copy_from_first(array)
        np.testing.assert_array_equal(to_host(array), 2 * numbers + 1)


@needs_mpi
@pytest.mark.limit(600)
def test_two_ranks_on_one_card_train_as_one(tmp_path, transport):
    version = transport._nccl.get_version()
    if version < SHARING:
        pytest.skip(f"NCCL {version} refuses two ranks on one card; from {SHARING} on it need not")
    corpus, out = make_corpus(tmp_path).directory, tmp_path / "ranks"
    out.mkdir()
    sharing = {"NCCL_MULTI_RANK_GPU_ENABLE": "1", "CUDA_VISIBLE_DEVICES": "0"}
    run_on_ranks(2, "tests.train.ranks_on_gpus", "sums", corpus, out, **sharing)
    found = pickle.loads((out / "found.pickle").read_bytes())
    assert_as_alone(found, "float32", 1e-5)
    assert_as_alone(found, "bf16", 2e-2)
    assert_overlapped(found)
