"""Random cases for every operation: hypothesis draws the structure, a seed draws the values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autograd import DropoutSite, Tape, Tensor, ops, to_host
from autograd.backend import Backend
from autograd.operation import Op

ON_THE_HOST = {"lengths", "key_lengths"}  # settings that are NumPy arrays on every backend


def normal32(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Normally distributed float32 numbers, for the compiled loops."""
    return rng.standard_normal(shape, dtype=np.float32)


@dataclass(frozen=True)
class Case:
    """An operation with float64 arrays, at which it is smooth, and settings."""

    op: Op
    arrays: tuple[np.ndarray, ...]
    settings: dict[str, Any]

    def run(self, *arguments: Any) -> Any:
        return self.op(*arguments, **self.settings)

    def on(self, owner: Backend) -> Case:
        """The same case in arrays of another backend."""

        def move(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(map(move, x))
            return owner.asarray(x) if isinstance(x, np.ndarray) else x

        settings = {k: v if k in ON_THE_HOST else move(v) for k, v in self.settings.items()}
        return Case(self.op, move(self.arrays), settings)


def values_and_gradients(
    f: Any, arrays: Any, seed: int = 0, kind: type[Tensor] = Tensor
) -> tuple[list, list]:
    """The outputs of `f`, and the gradients of their randomly weighed sum, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    tensors = [kind(a) for a in arrays]
    with Tape() as tape:
        outputs = f(*tensors)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        total: Any = 0.0
        for y in outputs:
            weight = np.asarray(rng.standard_normal(y.shape), y.dtype)
            total = total + (y * like(y.value, weight)).sum()
    gradients = tape.backward(total, wanted=tensors)
    return [to_host(y.value) for y in outputs], [to_host(g) for g in gradients]


def like(array: Any, values: np.ndarray) -> Any:
    """`values` as an array of the backend that `array` belongs to."""
    from autograd.backend import backend_of

    return backend_of(array).asarray(values)


seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 4)
tokens = st.integers(0, 5)
sites = st.none() | st.builds(
    DropoutSite,
    rate=st.sampled_from([0.1, 0.5, 0.9]),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 10**6),
    site=st.integers(0, 300),
    row=st.integers(0, 10**6),
)
shapes = partial(hnp.array_shapes, min_dims=0, max_dims=3, max_side=3)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape))


def off_zero(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = normal(rng, *shape)
    return np.asarray(np.where(x < 0, x - 0.3, x + 0.3))


def positive(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.asarray(0.3 + abs(normal(rng, *shape)))


def far_apart(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """No two elements within 0.1 of each other, so that the largest stays so."""
    size = int(np.prod(shape))
    return (rng.permutation(size) * 0.2 + rng.uniform(-0.05, 0.05, size)).reshape(shape)


def spread_rows(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows with a variance well above 0 (of two elements and more)."""
    places = rng.permuted(np.tile(np.arange(columns, dtype=float), (rows, 1)), axis=1)
    return places + rng.uniform(-0.3, 0.3, (rows, columns))


@st.composite
def elementwise(draw: Any, op: Op, first: Any = normal, **settings: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    chosen = {k: draw(v) for k, v in settings.items()}
    return Case(op, (first(rng, *draw(shapes(min_side=0))),), chosen)


@st.composite
def binary(draw: Any, op: Op, second: Any = normal, first: Any = normal) -> Case:
    rng = np.random.default_rng(draw(seeds))
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=3, max_side=3))
    x, y = both.input_shapes
    return Case(op, (first(rng, *x), second(rng, *y)), {})


@st.composite
def over_last_axis(draw: Any, op: Op) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = (*draw(shapes(min_side=0, max_dims=2)), draw(sides))
    return Case(op, (normal(rng, *shape),), {})


@st.composite
def reduction(draw: Any, op: Op, values: Any = normal, min_side: int = 1) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes(min_side=min_side))
    axes = st.none() | hnp.valid_tuple_axes(len(shape))
    if shape:
        axes |= st.integers(-len(shape), len(shape) - 1)
    settings = {"axis": draw(axes), "keepdims": draw(st.booleans())}
    return Case(op, (values(rng, *shape),), settings)


@st.composite
def reshapes(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes(min_side=0))
    size = int(np.prod(shape))
    choices = [shape, shape[::-1], (size,), (1, *shape), (*shape, 1)]
    if size:
        choices += [(-1,), (1, -1), (*shape[:1], -1)]
    return Case(ops.reshape, (normal(rng, *shape),), {"shape": draw(st.sampled_from(choices))})


@st.composite
def transposes(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes(min_side=0))
    axes = draw(st.none() | st.permutations(range(len(shape))).map(tuple))
    if axes is not None:
        axes = tuple(a - len(shape) if draw(st.booleans()) else a for a in axes)
    return Case(ops.transpose, (normal(rng, *shape),), {"axes": axes})


@st.composite
def takes(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes(min_dims=1))
    index = draw(
        hnp.basic_indices(shape, allow_newaxis=True)
        | hnp.integer_array_indices(shape)  # repeats happen: results may be larger than the axis
        | hnp.integer_array_indices(shape[:1], result_shape=st.just((5,)))
        | hnp.arrays(bool, shape)
    )
    return Case(ops.take, (normal(rng, *shape),), {"index": index})


@st.composite
def concatenations(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes(min_dims=1))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for length in draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)):
        part = list(shape)
        part[axis] = length
        parts.append(normal(rng, *part))
    return Case(ops.concatenate, tuple(parts), {"axis": axis})


@st.composite
def products(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    signature = np.matmul.signature
    both = draw(hnp.mutually_broadcastable_shapes(signature=signature, max_dims=2, max_side=3))
    x, y = both.input_shapes
    return Case(ops.matmul, (normal(rng, *x), normal(rng, *y)), {})


@st.composite
def dropouts(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    columns = draw(st.integers(1, 20))
    return Case(ops.dropout, (normal(rng, draw(tokens), columns),), {"site": draw(sites)})


@st.composite
def layer_norms(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    d = draw(st.integers(1, 6))
    arrays = spread_rows(rng, draw(tokens), d), normal(rng, d), normal(rng, d)
    return Case(ops.layer_norm, arrays, {"epsilon": draw(st.sampled_from([1e-6, 1e-2]))})


@st.composite
def residual_norms(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d = draw(tokens), draw(st.integers(1, 6))
    site = draw(sites)
    x, residual = normal(rng, n, d), normal(rng, n, d)
    if site is None or d < 3:  # random sums may come close to each other; spread them
        residual = spread_rows(rng, n, d) - x * _factor(site, n, d)
    arrays = x, residual, normal(rng, d), normal(rng, d)
    return Case(ops.add_dropout_norm, arrays, {"site": site, "epsilon": 1e-2})


def _factor(site: DropoutSite | None, rows: int, columns: int) -> Any:
    """What dropout at `site` multiplies a matrix by."""
    return 1.0 if site is None else site.keep_matrix(np, rows, columns) * site.scale


@st.composite
def affine_maps(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d_in, d_out = draw(tokens), draw(sides), draw(sides)
    relu, with_bias = draw(st.booleans()), draw(st.booleans())
    while True:
        arrays = normal(rng, n, d_in), normal(rng, d_in, d_out), normal(rng, d_out)
        x, weight, bias = arrays
        if np.all(abs(x @ weight + with_bias * bias) > 1e-2):  # off the kink
            return Case(ops.linear, arrays if with_bias else arrays[:2], {"relu": relu})


@st.composite
def embeddings(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d, vocabulary, length = draw(tokens), draw(sides), draw(sides), draw(sides)
    settings = {
        "ids": rng.integers(draw(st.sampled_from([-1, 0])), vocabulary, n),
        "scale": draw(st.sampled_from([1.0, 3.0])),
        "site": draw(sites),
    }
    arrays: tuple[np.ndarray, ...] = (normal(rng, vocabulary, d),)
    if draw(st.booleans()):
        arrays += (normal(rng, length, d),)
        settings["places"] = rng.integers(0, length, n)
    return Case(ops.embedding, arrays, settings)


@st.composite
def scaled_dot_products(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    stack = draw(st.sampled_from([(), (2,), (2, 3)]))
    n, m, d_k, d_v = (draw(st.integers(1, 4)) for _ in range(4))
    settings: dict[str, Any] = {}
    if draw(st.booleans()):  # here and there a whole row
        settings["hidden"] = rng.random((n, m)) < draw(st.sampled_from([0.3, 0.8]))
    if draw(st.booleans()):
        settings |= {"keep": rng.random((*stack, n, m)) < 0.5, "scale": 2.0}
    arrays = normal(rng, *stack, n, d_k), normal(rng, *stack, m, d_k), normal(rng, *stack, m, d_v)
    return Case(ops.scaled_dot_product, arrays, settings)


@st.composite
def attentions(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    heads, d_k, d_v = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lengths = np.array(draw(st.lists(st.integers(0, 4), max_size=4)), np.int64)
    settings = {
        "heads": heads,
        "d_k": d_k,
        "lengths": lengths,
        "causal": draw(st.booleans()),
        "site": draw(sites),
    }
    if draw(st.booleans()):
        arrays: tuple[np.ndarray, ...] = (normal(rng, lengths.sum(), heads * (2 * d_k + d_v)),)
    else:
        settings["key_lengths"] = rng.integers(0, 5, len(lengths))
        q = normal(rng, lengths.sum(), heads * d_k)
        arrays = (q, normal(rng, settings["key_lengths"].sum(), heads * (d_k + d_v)))
    return Case(ops.attention, arrays, settings)


@st.composite
def cross_entropies(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    n, d, vocabulary = draw(tokens), draw(sides), draw(st.integers(2, 6))
    settings = {
        "targets": rng.integers(0, vocabulary, n),
        "smoothing": draw(st.sampled_from([0.0, 0.1, 0.5])),
        "spread": draw(st.sampled_from(["vocabulary", "others"])),
    }
    arrays = normal(rng, n, d), normal(rng, vocabulary, d)
    return Case(ops.projected_cross_entropy, arrays, settings)


@st.composite
def reductions_of_several(draw: Any, op: Op) -> Case:
    """Of the deviations of three elements and more, for the root of 0 has no derivative."""
    rng = np.random.default_rng(draw(seeds))
    rows = draw(st.integers(1, 3))
    axis, ddof = draw(st.sampled_from([None, 1, -1, (0, 1)])), draw(st.sampled_from([0, 1]))
    settings = {"axis": axis, "ddof": ddof, "keepdims": draw(st.booleans())}
    return Case(op, (spread_rows(rng, rows, draw(st.integers(3, 5))),), settings)


@st.composite
def choices(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shapes_ = draw(hnp.mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_side=3))
    x, y, condition = shapes_.input_shapes
    settings = {"condition": rng.random(condition) < 0.5}
    return Case(ops.select, (normal(rng, *x), normal(rng, *y)), settings)


@st.composite
def contests(draw: Any, op: Op) -> Case:
    """Two arrays whose elements are apart, and so stay smaller or larger."""
    case = draw(binary(op))
    x, y = case.arrays
    return Case(op, (np.asarray(np.rint(3 * x)), np.asarray(np.rint(3 * y) + 0.4)), {})


@st.composite
def clippings(draw: Any) -> Case:
    case = draw(elementwise(ops.clip))
    (x,) = case.arrays
    bounds = {"min": draw(st.sampled_from([None, -0.4])), "max": draw(st.sampled_from([None, 0.4]))}
    return Case(ops.clip, (np.asarray(np.rint(3 * x) / 3),), bounds)


@st.composite
def stacks(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = draw(shapes(min_side=0))
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    parts = tuple(normal(rng, *shape) for _ in range(draw(st.integers(1, 3))))
    return Case(ops.stack, parts, {"axis": axis})


@st.composite
def splits(draw: Any) -> Case:
    rng = np.random.default_rng(draw(seeds))
    shape = list(draw(shapes(min_dims=1)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    ends = st.lists(st.integers(-4, 5), max_size=3)  # in any order: then parts overlap
    sections = draw(st.integers(1, 3) | ends)
    if isinstance(sections, int):
        shape[axis] *= sections
    return Case(ops.split, (normal(rng, *shape),), {"sections": sections, "axis": axis})


CASES: dict[Op, st.SearchStrategy[Case]] = {
    ops.add: binary(ops.add),
    ops.subtract: binary(ops.subtract),
    ops.multiply: binary(ops.multiply),
    ops.divide: binary(ops.divide, off_zero),
    ops.negative: elementwise(ops.negative),
    ops.power: binary(ops.power, first=positive),
    ops.exp: elementwise(ops.exp),
    ops.log: elementwise(ops.log, positive),
    ops.sqrt: elementwise(ops.sqrt, positive),
    ops.sin: elementwise(ops.sin),
    ops.cos: elementwise(ops.cos),
    ops.tanh: elementwise(ops.tanh),
    ops.sigmoid: elementwise(ops.sigmoid),
    ops.abs: elementwise(ops.abs, off_zero),
    ops.astype: elementwise(ops.astype, dtype=st.just("float64")),
    ops.relu: elementwise(ops.relu, off_zero),
    ops.gelu: elementwise(ops.gelu),
    ops.select: choices(),
    ops.maximum: contests(ops.maximum),
    ops.minimum: contests(ops.minimum),
    ops.clip: clippings(),
    ops.softmax: over_last_axis(ops.softmax),
    ops.log_softmax: over_last_axis(ops.log_softmax),
    ops.sum: reduction(ops.sum, min_side=0),
    ops.mean: reduction(ops.mean),
    ops.var: reductions_of_several(ops.var),
    ops.std: reductions_of_several(ops.std),
    ops.max: reduction(ops.max, far_apart),
    ops.min: reduction(ops.min, far_apart),
    ops.reshape: reshapes(),
    ops.transpose: transposes(),
    ops.take: takes(),
    ops.concatenate: concatenations(),
    ops.stack: stacks(),
    ops.split: splits(),
    ops.matmul: products(),
    ops.dropout: dropouts(),
    ops.layer_norm: layer_norms(),
    ops.add_dropout_norm: residual_norms(),
    ops.linear: affine_maps(),
    ops.embedding: embeddings(),
    ops.scaled_dot_product: scaled_dot_products(),
    ops.attention: attentions(),
    ops.projected_cross_entropy: cross_entropies(),
}
