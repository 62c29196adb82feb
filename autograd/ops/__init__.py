"""The operations, each with its gradient beside its value; a file for each subject.

The primitives that every autograd engine has are here. `large` has the operations that a
Transformer is made of; those that it runs have fast implementations in autograd.cpu and
autograd.cuda. `sequence` has the layers that the paper compares with self-attention.
"""

from autograd.ops.arithmetic import (
    abs,
    add,
    astype,
    cos,
    divide,
    exp,
    gelu,
    log,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    sin,
    sqrt,
    subtract,
    swish,
    tanh,
)
from autograd.ops.choice import clip, maximum, minimum, select, where
from autograd.ops.large.adam import adam_step, squared_norm
from autograd.ops.large.affine import linear
from autograd.ops.large.beam import beam_step
from autograd.ops.large.cache import append_to_cache, cached_attention, count_up
from autograd.ops.large.cross_entropy import projected_cross_entropy
from autograd.ops.large.dot_product import scaled_dot_product
from autograd.ops.large.feed_forward import feed_forward
from autograd.ops.large.int8 import int8_embedding, int8_linear, int8_top_k
from autograd.ops.large.lookup import embedding, no_token_first
from autograd.ops.large.norm import add_dropout_norm, dropout, layer_norm
from autograd.ops.large.packed_attention import attention, attention_weights
from autograd.ops.large.top_k import largest, top_k
from autograd.ops.matrix_product import matmul
from autograd.ops.reduce import max, mean, min, std, sum, var
from autograd.ops.sequence.convolution import (
    convolution,
    depthwise_convolution,
    separable_convolution,
)
from autograd.ops.sequence.recurrence import recurrence, recurrent_step
from autograd.ops.shape import concatenate, reshape, split, stack, take, transpose
from autograd.ops.softmaxes import log_softmax, softmax

__all__ = [
    "abs",
    "adam_step",
    "add",
    "add_dropout_norm",
    "append_to_cache",
    "astype",
    "attention",
    "attention_weights",
    "beam_step",
    "cached_attention",
    "clip",
    "concatenate",
    "convolution",
    "cos",
    "count_up",
    "depthwise_convolution",
    "divide",
    "dropout",
    "embedding",
    "exp",
    "feed_forward",
    "gelu",
    "int8_embedding",
    "int8_linear",
    "int8_top_k",
    "largest",
    "layer_norm",
    "linear",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negative",
    "no_token_first",
    "power",
    "projected_cross_entropy",
    "recurrence",
    "recurrent_step",
    "relu",
    "reshape",
    "scaled_dot_product",
    "select",
    "separable_convolution",
    "sigmoid",
    "sin",
    "softmax",
    "split",
    "sqrt",
    "squared_norm",
    "stack",
    "std",
    "subtract",
    "sum",
    "swish",
    "take",
    "tanh",
    "top_k",
    "transpose",
    "var",
    "where",
]

for _operation in (
    add_dropout_norm,
    attention,
    cached_attention,
    convolution,
    depthwise_convolution,
    dropout,
    embedding,
    feed_forward,
    layer_norm,
    linear,
    log_softmax,
    matmul,
    mean,
    projected_cross_entropy,
    recurrent_step,
    scaled_dot_product,
    softmax,
    squared_norm,
    std,
    sum,
    take,
    top_k,
    var,
):
    _operation.widen()  # they add up many numbers
