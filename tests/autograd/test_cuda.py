"""The GPU's operations of training, emulated, agree with their references on ragged shapes.

The kernels and launchers are the real ones; only the GPU is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograd import DropoutSite, Parameter, Sentences, Tape, ops, watching
from autograd.backend import backend
from autograd.cuda import attention
from autograd.cuda.device import Blocks, device_of
from autograd.cuda.signature import SUMS
from autograd.cuda.sums import SumWriter
from autograd.writers import parted
from tests.autograd import on_device
from tests.autograd.drawing import seeds, sites
from tests.autograd.on_device import (
    BFLOAT16,
    EMULATED,
    FLOAT32,
    TOLERANCE,
    Random,
    assert_close,
    check,
    dtypes,
    fresh_arrays,
    misaligned,
    moved,
    on_the_device,
    strided,
)
from tests.without_gpu import emulator

pytestmark = EMULATED


@given(dtypes, st.sampled_from([24, 264, 512]), st.integers(1, 30), sites, st.booleans(), seeds)
def test_add_dropout_norm_agrees_with_its_reference(dtype, columns, rows, site, alone, seed):
    normal = Random(seed, dtype)
    x, residual = normal(rows, columns), normal(rows, columns)
    gain, bias = normal(columns, dtype=FLOAT32), normal(columns, dtype=FLOAT32)
    if alone:
        check(ops.layer_norm, (x, gain, bias), seed, scale=1.0)
    else:
        check(ops.add_dropout_norm, (x, residual, gain, bias), seed, scale=1.0, site=site)


@given(dtypes, st.sampled_from([8, 264]), st.integers(1, 30), sites.filter(bool), seeds)
def test_dropout_agrees_with_its_reference(dtype, columns, rows, site, seed):
    check(ops.dropout, (Random(seed, dtype)(rows, columns),), seed, site=site)


@given(
    dtypes,
    st.sampled_from([(3, 5), (257, 16), (1003, 8)]),
    st.integers(1, 40),
    st.sampled_from(["vocabulary", "others"]),
    st.floats(0, 0.5),
    seeds,
)
def test_cross_entropy_agrees_with_its_reference(
    dtype, sizes, tokens, smoothing_over, smoothing, seed
):
    vocabulary, d = sizes
    normal = Random(seed, dtype)
    check(
        ops.projected_cross_entropy,
        (normal(tokens, d), normal(vocabulary, d)),
        seed,
        scale=1.0,
        targets=normal.integers(-1, vocabulary, tokens),
        smoothing=smoothing,
        smoothing_over=smoothing_over,
    )


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("vocabulary", [4097, 8200])
def test_cross_entropy_with_several_chunks_a_thread_agrees_with_its_reference(dtype, vocabulary):
    normal = Random(0, dtype)
    targets = np.array([0, 4095, 4096, vocabulary - 1], np.int32)
    arrays = normal(4, 8), normal(vocabulary, 8)
    check(ops.projected_cross_entropy, arrays, 0, scale=1.0, targets=targets, smoothing=0.1)


@given(
    dtypes,
    st.sampled_from([8, 40, 264, 520]),
    st.integers(1, 90),
    st.integers(0, 10),
    sites,
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_embedding_agrees_with_its_reference(
    dtype, columns, tokens, last, site, placed, ordered, seed
):
    """With a vocabulary of at most 11, so that ids are repeated."""
    normal = Random(seed, dtype)
    arrays = (normal(11, columns), normal(9, columns))[: 1 + placed]
    ids = normal.integers(-1, last + 1, tokens)
    check(
        ops.embedding,
        arrays,
        seed,
        ids=ids,
        position_ids=normal.integers(0, 9, tokens) if placed else None,
        order=ids.argsort(kind="stable") if ordered else None,
        scale=2.5,
        site=site,
    )


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("others", [[], [0], [5] * 16, [0, 1, 1, 6, 6]], ids=str)
def test_the_gradient_of_a_token_that_many_warps_have_agrees(dtype, others):
    """A warp has 16 tokens, and looks at 32 more warps at a time for the token's end."""
    normal = Random(0, dtype)
    ids = normal.rng.permutation(np.array([*others, *[3] * 16 * 35, 4, *[7] * 40], np.int32))
    check(ops.embedding, (normal(9, 264),), 0, ids=ids, scale=0.5, site=None)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize(
    ("bad", "index"),
    [(bad, np.int32) for bad in (-1, 11, 12, 150)] + [(2**31, np.int64), (2**32 + 3, np.int64)],
)
def test_ids_out_of_range_embed_as_zero(dtype, bad, index):
    """And nothing outside of the tables is read or written."""
    normal = Random(0, dtype)
    table, positions, dy = normal(11, 16), normal(5, 16), normal(4, 16)
    ids = np.array([3, bad, 10, bad], index)
    position_ids = np.array([4, 0, bad, 1], index)
    chosen = {"ids": ids, "position_ids": position_ids, "scale": 2.0, "site": None}
    y, vjp = ops.embedding._run((moved(table), moved(positions)), on_the_device(chosen))
    f = {"table": table.astype(float), "positions": positions.astype(float), "dy": dy.astype(float)}
    expected = np.zeros((4, 16))
    expected[0] = 2 * f["table"][3] + f["positions"][4]
    expected[1] = f["positions"][0]
    expected[2] = 2 * f["table"][10]
    expected[3] = f["positions"][1]
    assert_close(y.get(), expected, TOLERANCE[dtype])
    dtable, dpositions = np.zeros((11, 16)), np.zeros((5, 16))
    dtable[3], dtable[10] = 2 * f["dy"][0], 2 * f["dy"][2]
    dpositions[[4, 0, 1]] = f["dy"][[0, 1, 3]]
    for write, wanted in zip(vjp(moved(dy)), (dtable, dpositions), strict=True):
        around = moved(np.full((len(wanted) + 200, 16), 7, np.float32))
        write(around[100:-100], False)
        assert_close(around.get()[100:-100], wanted, TOLERANCE[dtype])
        assert (around.get()[:100] == 7).all()
        assert (around.get()[-100:] == 7).all()


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("bad", [11, 15, 16, 100_000, 2**32 + 3])
def test_the_loss_of_a_target_out_of_range_is_nan(dtype, bad):
    normal = Random(0, dtype)
    x, weight = normal(3, 8), normal(11, 8)
    chosen = {"targets": moved(np.array([2, bad, 10])), "smoothing": 0.1}
    with Tape():
        (loss, nll), vjp = ops.projected_cross_entropy._run((moved(x), moved(weight)), chosen)
    assert np.isnan(loss.get())
    assert np.isnan(nll.get())
    dx, _ = vjp(moved(np.array(1, np.float32)))
    assert np.isnan(dx.get().astype(float)).all(axis=1).tolist() == [False, True, False]


def test_indices_must_be_whole_numbers():
    normal = Random(0, FLOAT32)
    ids = moved(np.array([1.0, 2.0]))
    with pytest.raises(
        TypeError, match=r"ids must be an array of integers, got an array of float64"
    ):
        ops.embedding._run((moved(normal(11, 16)),), {"ids": ids})


@given(
    dtypes,
    st.sampled_from([(8, 8), (24, 248), (16, 520)]),
    st.integers(1, 300),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_linear_agrees_with_its_reference(dtype, sizes, rows, biased, relu, seed):
    d_in, d_out = sizes
    normal = Random(seed, dtype)
    arrays = (normal(rows, d_in), normal(d_in, d_out), normal(d_out))
    if relu:
        # Rounding decides whether ReLU is 0 where a sum is nearly 0: make sums exact and never 0.
        x, weight, bias = (np.clip(np.rint(a.astype(FLOAT32)), -2, 2) for a in arrays)
        arrays = tuple(a.astype(dtype) for a in (x, weight, bias + 0.5))
    check(ops.linear, arrays[: 2 + biased], seed, scale=1.0, relu=relu)


@given(
    dtypes,
    st.sampled_from([(8, 16, 8), (24, 248, 16), (16, 264, 40)]),
    st.integers(1, 150),
    st.sampled_from(["relu", "gelu", "swish"]),
    sites,
    st.booleans(),
    seeds,
)
def test_feed_forward_agrees_with_its_reference(dtype, sizes, rows, activation, site, biased, seed):
    d, d_ff, d_out = sizes
    normal = Random(seed, dtype)
    arrays = (normal(rows, d), normal(d, d_ff), normal(d_ff), normal(d_ff, d_out), normal(d_out))
    if activation == "relu":  # as for linear
        x, w1, b1 = (np.clip(np.rint(a.astype(FLOAT32)), -2, 2) for a in arrays[:3])
        arrays = (*(a.astype(dtype) for a in (x, w1, b1 + 0.5)), *arrays[3:])
    check(
        ops.feed_forward,
        arrays[: 4 + biased],
        seed,
        scale=3.0,
        activation=activation,
        site=site,
    )


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_feed_forward_needs_no_mask(dtype):
    """Without a tape none is made, and the ReLU's result tells where it was above 0."""
    normal = Random(0, dtype)
    arrays = normal(9, 16), normal(16, 24), normal(24), normal(24, 16), normal(16)
    found = []
    for tape in (Tape(), nullcontext()):
        with tape:
            y, vjp = ops.feed_forward._run(tuple(map(moved, arrays)), {})
        results = vjp(moved(Random(1, dtype)(9, 16)))
        found.append([y.get()])
        for write, x in zip(results, arrays, strict=True):
            out = moved(np.zeros(x.shape, np.float32))
            write(out, False)
            found[-1].append(out.get())
    for with_mask, without in zip(*found, strict=True):
        assert_close(without, with_mask, 1e-6)


some_lengths = st.lists(
    st.sampled_from([0, 1, 2, 15, 16, 17, 30, 32, 33, 48, 49, 64, 65, 96, 128, 129, 150]),
    min_size=1,
    max_size=3,
)


@given(
    dtypes,
    st.sampled_from([(16, 16), (64, 64), (32, 48), (5, 40)]),
    some_lengths,
    some_lengths,
    st.sampled_from(["causal", "self", "cross"]),
    sites,
    st.sampled_from([1.0, 3.0]),
    seeds,
)
def test_attention_agrees_with_its_reference(
    dtype, sizes, lengths, key_lengths, kind, site, sharpness, seed
):
    d_k, d_v = sizes
    heads = 2
    lengths = np.array(lengths)
    normal, tokens = Random(seed, dtype), int(lengths.sum())
    chosen = {"heads": heads, "d_k": d_k, "sentences": Sentences(lengths), "site": site}
    if kind == "cross":
        chosen["key_sentences"] = Sentences(np.resize(np.array(key_lengths), len(lengths)))
        keys = chosen["key_sentences"].rows
        arrays = normal(tokens, heads * d_k), normal(keys, heads * (d_k + d_v))
    else:
        chosen["causal"] = kind == "causal"
        arrays = (normal(tokens, heads * (2 * d_k + d_v)),)
    arrays[0][:, : heads * d_k] *= dtype.type(sharpness)
    # p (dp - Σ p dp) cancels where one weight is nearly 1: what remains is rounding, in proportion
    # to dy and to the factor of the queries.
    check(ops.attention, arrays, seed, scale=0.3 * sharpness, **chosen)


@given(
    dtypes,
    st.lists(st.sampled_from([0, 1, 64, 65, 130, 200]), min_size=1, max_size=2),
    st.sampled_from([(1, True), (40, True), (40, False)]),
    sites,
    seeds,
)
def test_restricted_attention_agrees_with_its_reference(dtype, lengths, reach, site, seed):
    window, causal = reach
    sentences = Sentences(lengths)
    q = Random(seed, dtype)(sentences.rows, 2 * 48)
    chosen = {"heads": 2, "d_k": 16, "sentences": sentences, "site": site}
    check(ops.attention, (q,), seed, scale=0.3, causal=causal, window=window, **chosen)


@pytest.mark.parametrize("shared", [227 * 1024, 99 * 1024])  # of an H100, and of smaller cards
@pytest.mark.parametrize("causal", [True, False])
def test_attention_of_wide_heads_fits_into_the_shared_memory_of_the_card(
    causal, shared, monkeypatch
):
    monkeypatch.setattr(device_of(moved(np.zeros(8, BFLOAT16))), "shared_bytes", shared)
    arrays = (Random(0, BFLOAT16)(228, 3 * 128),)
    chosen = {"heads": 1, "d_k": 128, "sentences": Sentences([128, 1, 70, 29])}
    check(ops.attention, arrays, 0, scale=0.3, causal=causal, site=None, **chosen)


def test_attention_of_more_sentences_than_a_launch_takes(monkeypatch):
    monkeypatch.setattr("autograd.cuda.attention._MOST_TILES", 2)
    arrays = (Random(0, BFLOAT16)(12 + 150, 2 * 48),)
    chosen = {"heads": 2, "d_k": 16, "sentences": Sentences([4, 3, 1, 2, 2, 150])}
    check(ops.attention, arrays, 0, scale=0.3, site=None, **chosen)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_memory_of_attention_is_proportional_to_the_tokens(dtype):
    """So the token budget of a batch bounds the memory of attention, too."""
    made: list[int] = []
    empty = backend(on_device.BACKEND).empty

    def counted(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        made.append(int(np.prod(shape)) * dtype.itemsize)
        return empty(shape, dtype)

    def needed(tokens: int) -> int:
        made.clear()
        q = moved(Random(0, dtype)(tokens, 2 * 48))
        _, vjp = ops.attention._run((q,), {"heads": 2, "d_k": 16, "sentences": Sentences([tokens])})
        vjp(moved(Random(1, dtype)(tokens, 2 * 16)))
        return sum(made)

    with fresh_arrays(counted):
        assert needed(192) == 2 * needed(96)


@given(st.integers(1, 600), seeds)
def test_adam_agrees_with_its_reference(fours, seed):
    normal = Random(seed, FLOAT32)
    arrays = [normal(4 * fours) for _ in range(4)]
    arrays[3] = abs(arrays[3])
    expected = [a.astype(np.float64) for a in arrays]
    there = [moved(a) for a in arrays]
    numbers = {"rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 7, "scale": 0.3}
    with watching(ops.adam_step, ops.squared_norm) as calls:
        norm = ops.squared_norm(there[1])
        ops.adam_step(*there, **numbers)
    assert calls[ops.adam_step][0][2] == calls[ops.squared_norm][0][2] == "fast"
    assert np.isclose(float(norm), (expected[1] ** 2).sum(), rtol=1e-6)
    ops.adam_step.reference(*expected, **numbers)
    for found, wanted in zip(there, expected, strict=True):
        assert_close(found.get(), wanted, 1e-6)


def test_adam_updates_a_rounded_copy_and_reads_its_scale_on_the_device():
    normal = Random(0, FLOAT32)
    values, grads = moved(normal(40)), moved(normal(40))
    moments = moved(np.zeros(40, np.float32)), moved(np.zeros(40, np.float32))
    rounded = moved(np.full(40, np.nan, BFLOAT16))
    numbers = {"rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 1}

    def step(scale: float) -> None:
        device_scale = moved(np.array(scale, np.float32))
        ops.adam_step(values, grads, *moments, **numbers, scale=device_scale, rounded=rounded)

    step(0.5)
    assert_close(moments[0].get(), 0.05 * grads.get(), 1e-6)
    assert np.array_equal(rounded.get(), values.get().astype(BFLOAT16))
    before = [x.get() for x in (values, *moments, rounded)]
    for scale in (np.nan, np.inf):
        step(scale)
    for x, y in zip((values, *moments, rounded), before, strict=True):
        assert np.array_equal(x.get(), y)


@pytest.mark.parametrize("lie", [strided, misaligned])
def test_adam_accepts_arrays_of_any_layout(lie):
    normal = Random(0, FLOAT32)
    arrays = [*(normal(40) for _ in range(3)), abs(normal(40)), normal(40, dtype=BFLOAT16)]
    numbers = {"rate": 1e-2, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "step": 7, "scale": 0.3}
    found = []
    for place in (lie, moved):
        there = list(map(place, arrays))
        found.append([ops.squared_norm(there[1]).get()])
        ops.adam_step(*there[:4], **numbers, rounded=there[4])
        found[-1] += [x.get() for x in there]
    for x, expected in zip(*found, strict=True):
        assert_close(x, expected, 1e-2 if x.dtype == BFLOAT16 else 1e-5)


@pytest.mark.parametrize("name", ["linear", "add_dropout_norm", "embedding", "attention", "loss"])
def test_operations_without_a_kernel_compute_bfloat16_in_float32(name, monkeypatch):
    """CuPy can neither multiply stacked matrices nor sort in bfloat16."""
    normal = Random(0, BFLOAT16)
    ids = normal.integers(0, 4, 7)
    numbers = {"ids": ids, "position_ids": ids}
    heads = {"heads": 1, "d_k": 3, "sentences": Sentences([3, 4])}
    gains = normal(5, dtype=FLOAT32), normal(5, dtype=FLOAT32)
    operation, arrays, chosen = {
        "linear": (ops.linear, (normal(7, 5), normal(5, 3), normal(3)), {}),
        "add_dropout_norm": (
            ops.add_dropout_norm, (normal(7, 5), normal(7, 5), *gains), {"site": None},
        ),
        "embedding": (ops.embedding, (normal(9, 5), normal(4, 5)), numbers),
        "attention": (ops.attention, (normal(7, 9),), heads),
        "loss": (ops.projected_cross_entropy, (normal(7, 5), normal(9, 5)), {"targets": ids}),
    }[name]  # fmt: skip
    covered_by_none = operation._either(operation.reference, lambda *_, **__: False)
    monkeypatch.setitem(operation._fast, ("cupy", "bfloat16"), covered_by_none)
    check(operation, arrays, 0, scale=1.0, runs="reference", **chosen)


@pytest.mark.parametrize("lie", [strided, misaligned])
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        *("linear", "feed_forward", "dropout", "layer_norm", "add_dropout_norm"),
        *("embedding", "loss", "self", "cross"),
    ],
)
def test_operations_of_training_accept_arrays_of_any_layout(name, dtype, lie):
    """Arrays that kernels cannot read give the same results as contiguous ones."""
    normal = Random(0, dtype)
    site = DropoutSite(0.5, seed=1, step=2, site=3)
    ids, others = normal.integers(0, 7, 79), Sentences([70, 0, 9])
    numbers = {"ids": ids, "position_ids": ids}
    gains = normal(32, dtype=FLOAT32), normal(32, dtype=FLOAT32)
    x, heads = normal(79, 32), {"heads": 2, "d_k": 16, "sentences": Sentences([9, 0, 70])}
    operation, arrays, chosen = {
        "linear": (ops.linear, (x, normal(32, 24), normal(24)), {"relu": True}),
        "feed_forward": (
            ops.feed_forward,
            (x, normal(32, 24), normal(24), normal(24, 32), normal(32)),
            {"activation": "gelu", "site": site},
        ),
        "dropout": (ops.dropout, (x,), {"site": site}),
        "layer_norm": (ops.layer_norm, (x, *gains), {}),
        "add_dropout_norm": (ops.add_dropout_norm, (x, normal(79, 32), *gains), {"site": site}),
        "embedding": (ops.embedding, (normal(9, 32), normal(7, 32)), numbers),
        "loss": (ops.projected_cross_entropy, (x, normal(50, 32)), {"targets": ids}),
        "self": (ops.attention, (normal(79, 96),), {**heads, "causal": True}),
        "cross": (ops.attention, (x, normal(79, 64)), {**heads, "key_sentences": others}),
    }[name]  # fmt: skip
    shapes = [x.shape for x in arrays]
    dy = normal(*{"loss": (), "linear": (79, 24)}.get(name, (79, 32)))

    def results(place: Any, place_indices: Any) -> list[np.ndarray]:
        placed = {
            k: place_indices(v) if isinstance(v, np.ndarray) else v for k, v in chosen.items()
        }
        with Tape():
            y, vjp = operation._run(tuple(map(place, arrays)), placed)
        # The incoming gradient may have any layout, too.
        gradients = vjp(moved(np.array(1, np.float32)) if name == "loss" else place(dy))
        found = list(y) if name == "loss" else [y]
        for shape, g in zip(shapes, gradients if len(shapes) > 1 else [gradients], strict=True):
            g, _ = parted(g)
            if callable(g):
                write, g = g, place(np.zeros(shape, np.float32))
                write(g, False)
            found.append(g)
        return [y.get() for y in found]

    whole = results(moved, moved)
    for found in (results(lie, moved), results(moved, lie)):
        for y, expected in zip(found, whole, strict=True):
            assert_close(y, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("count", [1, SUMS, SUMS + 1])
def test_sums_of_any_number_and_width_are_added_up_together(count):
    normal = Random(0, FLOAT32)
    sizes = [(1 + i * 7 % 40, 1 + i * 13 % 90) for i in range(count)]
    parts = [normal(*size) for size in sizes]
    before = [normal(columns) for _, columns in sizes]
    outs = [moved(x) for x in before]
    adds = [i % 3 == 1 for i in range(count)]
    writers = [SumWriter(moved(p)) for p in parts]
    SumWriter.together([*zip(writers, outs, adds, strict=True)])
    for p, x, out, add in zip(parts, before, outs, adds, strict=True):
        assert_close(out.get(), p.sum(axis=0) + x * add, 1e-5)


@contextmanager
def launches_into(launched: list[str]) -> Iterator[None]:
    """Append the name of each kernel that is launched inside a `with`."""
    device = type(device_of(moved(np.zeros(1, np.float32))))
    launch = device.launch

    def counted(self: Any, *place: Any, **arguments: Any) -> None:
        launched.append(place[2])
        launch(self, *place, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "launch", counted)
        yield


def test_one_launch_adds_up_the_sums_of_a_whole_step():
    normal = Random(0, FLOAT32)
    launched: list[str] = []
    parameters = [Parameter(moved(normal(8))) for _ in range(6)]
    weight = Parameter(moved(normal(8, 8)))
    with Tape() as tape:
        x = ops.linear(moved(normal(5, 8)), weight, parameters[0])
        x = ops.layer_norm(x, *parameters[1:3])
        x = ops.linear(x, weight, parameters[3])
        y = ops.layer_norm(x, *parameters[4:]).sum()
    with launches_into(launched):
        tape.backward(y)
    assert launched.count("sum_parts") == 1
    assert all(np.isfinite(p.grad.get()).all() for p in (*parameters, weight))


@given(dtypes, sites, seeds)
def test_the_bias_before_a_norm_gets_its_gradient_from_the_norm(dtype, site, seed):
    """So that nobody reads the gradient of the sub-layer's output again to add it up."""
    normal = Random(seed, dtype)
    gains = normal(24, dtype=FLOAT32), normal(24, dtype=FLOAT32)
    arrays = normal(9, 16), normal(16, 24), normal(24), normal(9, 24), *gains
    dy = normal(9, 24)

    def gradients(places: Any, numbers: Any) -> list[Any]:
        x, weight, bias, residual, gain, norm_bias = map(Parameter, map(places, arrays))
        with Tape() as tape:
            y = ops.linear(x, weight, bias)
            y = ops.add_dropout_norm(y, residual, gain, norm_bias, site=site)
        tape.backward(y, numbers)
        return [p.grad for p in (x, weight, bias, residual, gain, norm_bias)]

    launched: list[str] = []
    with launches_into(launched):
        found = gradients(moved, moved(dy))
    assert "bias_gradient" not in launched
    expected = gradients(lambda x: x.astype(np.float64), dy.astype(np.float64))
    size = np.linalg.norm(dy.astype(np.float64))
    for g, wanted in zip(found, expected, strict=True):
        assert_close(g.get(), wanted, 3 * TOLERANCE[dtype], size)


def test_a_deadlock_of_threads_is_an_error():
    kernels = emulator.load_text(
        'extern "C" __global__ void stuck() '
        "{ if (threadIdx.x) __syncthreads(); else __syncwarp(); }"
    )
    with pytest.raises(emulator.KernelError, match="wait for others that never come"):
        kernels.launch("stuck", (1,), (32,), [])


def test_gradients_are_added_to_arrays_of_any_layout():
    """Also to arrays that neither cuBLAS nor the kernels can write to."""
    normal = Random(3, FLOAT32)
    arrays = normal(9, 16), normal(16, 8), normal(8)
    _, vjp = ops.linear._run(tuple(map(moved, arrays)), {})
    dy, before = normal(9, 8), normal(16, 9)
    dx, dweight, dbias = vjp(moved(dy))
    out = moved(before).T
    dx(out, True)
    assert_close(out.get(), before.T + dy @ arrays[1].T, 1e-5)
    for writer, expected in ((dweight, arrays[0].T @ dy), (dbias, dy.sum(axis=0))):
        out = moved(np.full((*expected.shape, 2), np.nan, np.float32))[..., 1]
        writer(out, False)
        assert_close(out.get(), expected, 1e-5)


def _dropping(dtype: Any) -> dict[str, tuple[Any, tuple[np.ndarray, ...], dict[str, Any]]]:
    """Every operation that drops, by name, with its arrays and settings."""
    normal = Random(0, dtype)
    gain = normal(32, dtype=FLOAT32)
    heads = {"heads": 2, "d_k": 16, "sentences": Sentences([5, 20])}
    ids = {"ids": normal.integers(0, 9, 25), "position_ids": normal.integers(0, 9, 25)}
    return {
        "norm": (ops.add_dropout_norm, (normal(25, 32), normal(25, 32), gain, gain), {}),
        "feed_forward": (
            ops.feed_forward,
            (normal(25, 32), normal(32, 16), normal(16), normal(16, 32), normal(32)),
            {},
        ),
        "dropout": (ops.dropout, (normal(25, 32),), {}),
        "embedding": (ops.embedding, (normal(9, 32), normal(9, 32)), ids),
        "attention": (ops.attention, (normal(25, 96),), heads),
    }


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("name", _dropping(FLOAT32))
def test_dropout_reads_its_step_and_row_on_the_device(name, dtype):
    """With the bits that numbers in the launches give."""
    operation, arrays, chosen = _dropping(dtype)[name]
    there, dy = tuple(map(moved, arrays)), None
    step, row = (moved(np.array(0, np.uint32)) for _ in range(2))
    found = []
    for site in (DropoutSite(0.3, 5, 9, 2, 70), DropoutSite(0.3, 5, step, 2, row)):
        step[...], row[...] = 9, 70
        y, vjp = operation._run(there, {**on_the_device(chosen), "site": site})
        dy = Random(1, dtype)(*y.shape)
        results = vjp(moved(dy))
        found.append([y.get()])
        for g, x in zip(results if isinstance(results, tuple) else (results,), arrays, strict=True):
            g, _ = parted(g)
            if callable(g):
                out = moved(np.zeros(x.shape, np.float32))
                g(out, False)
                g = out
            found[-1].append(g.get())
    for x, expected in zip(*found, strict=True):
        np.testing.assert_array_equal(x, expected)
    step[...] = 10
    other, _ = operation._run(there, {**on_the_device(chosen), "site": site})
    assert (other.get() != found[0][0]).any()


def test_adam_reads_its_rate_and_step_on_the_device():
    """With the bits that numbers give."""
    normal, found = Random(0, FLOAT32), []
    arrays = [*(normal(40) for _ in range(3)), abs(normal(40))]
    settings = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-9, "scale": 0.3}
    for kind in (lambda x: x, lambda x: moved(np.array(x, np.float64))):
        there = list(map(moved, arrays))
        for step, rate in ((7, 1e-2), (8, 1.1e-2), (4000, 7e-4)):
            ops.adam_step(*there, **settings, rate=kind(rate), step=kind(step))
        found.append([x.get() for x in there])
    for x, expected in zip(*found, strict=True):
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
@pytest.mark.parametrize("crosses", [False, True])
@pytest.mark.parametrize("exact", [True, False])
def test_a_plan_of_attention_can_take_the_place_of_another(dtype, crosses, exact, monkeypatch):
    """As when work is replayed: the sentences stay those of the recording, and so do launches.

    exact: whether the grids of a graph can be set. Else blocks of tiles without a sentence run.
    """
    if not exact:
        monkeypatch.setattr(Blocks, "__int__", lambda blocks: min(blocks.most, 20))
    normal, device = Random(0, dtype), backend(on_device.BACKEND)
    one = [Sentences(n, recurring=True) for n in ([5, 20, 0, 9], [70, 3, 1, 0])]
    other = [Sentences(n, recurring=True) for n in ([0, 1, 2, 16, 15], [30, 0, 4, 33, 7])]
    heads = {"heads": 2, "d_k": 16}
    queries, keys = (0, 1) if crosses else (1, 1)
    width = 32 if crosses else 96
    arrays = [normal(one[queries].rows, width)]
    if crosses:
        arrays.append(normal(one[1].rows, 64))
    dy = normal(one[queries].rows, 32)

    def passes(sentences: list[Sentences]) -> list[np.ndarray]:
        chosen = {**heads, "sentences": sentences[queries], "key_sentences": sentences[keys]}
        y, vjp = ops.attention._run(tuple(map(moved, arrays)), chosen)
        results = vjp(moved(dy))
        return [x.get() for x in (y, *(results if crosses else (results,)))]

    expected = passes(other)
    plans = [attention.plan(device, s[queries], s[keys]) for s in (one, other)]
    assert plans[0].layout == plans[1].layout
    before = passes(one)
    plans[0].overwrite(plans[1])
    for found, wanted, was in zip(passes(one), expected, before, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert (wanted != was).any()
    plain = [Sentences(s.lengths) for s in other]
    for found, wanted in zip(passes(plain), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
