"""Random cases for every operation: hypothesis draws the structure, a seed draws the values."""

from __future__ import annotations

from hypothesis import strategies as st

from autograd import ops
from autograd.operation import Op
from tests.autograd.drawing import Case, far_apart, off_zero, positive
from tests.autograd.large_cases import (
    affine_maps,
    attentions,
    cross_entropies,
    dropouts,
    embeddings,
    layer_norms,
    residual_norms,
    scaled_dot_products,
)
from tests.autograd.primitive_cases import (
    binary,
    choices,
    clippings,
    concatenations,
    contests,
    elementwise,
    over_last_axis,
    products,
    reduction,
    reductions_of_several,
    reshapes,
    splits,
    stacks,
    takes,
    transposes,
)
from tests.autograd.sequence_cases import convolutions, depthwise_convolutions, recurrent_steps

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
    ops.swish: elementwise(ops.swish),
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
    ops.recurrent_step: recurrent_steps(),
    ops.convolution: convolutions(),
    ops.depthwise_convolution: depthwise_convolutions(),
}
