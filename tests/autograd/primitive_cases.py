"""Random cases of the primitives: elementwise, reductions, shapes and products."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autograd import ops
from autograd.operation import Op
from tests.autograd.drawing import Case, normal, seeds, shapes, sides, spread_rows


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
def reductions_of_several(draw: Any, op: Op) -> Case:
    """Deviations of at least three elements, because the root of 0 has no derivative."""
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
    """Two arrays whose elements differ by so much that small changes keep their order."""
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
    ends = st.lists(st.integers(-4, 5), max_size=3)  # in any order, so that parts may overlap
    sections = draw(st.integers(1, 3) | ends)
    if isinstance(sections, int):
        shape[axis] *= sections
    return Case(ops.split, (normal(rng, *shape),), {"sections": sections, "axis": axis})
