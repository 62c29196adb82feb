"""The operations. One concept a file, the forward pass and its gradient side by side."""

from autograd.ops.adam import adam_step, squared_norm
from autograd.ops.affine import linear
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
    tanh,
)
from autograd.ops.cache import append_to_cache, cached_attention
from autograd.ops.choice import clip, maximum, minimum, select, where
from autograd.ops.cross_entropy import projected_cross_entropy
from autograd.ops.dot_product import scaled_dot_product
from autograd.ops.likeliest import likeliest_symbols
from autograd.ops.lookup import embedding
from autograd.ops.matrix_product import matmul
from autograd.ops.norm import add_dropout_norm, dropout, layer_norm
from autograd.ops.packed_attention import attention, attention_weights
from autograd.ops.reduce import max, mean, min, std, sum, var
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
    "cached_attention",
    "clip",
    "concatenate",
    "cos",
    "divide",
    "dropout",
    "embedding",
    "exp",
    "gelu",
    "layer_norm",
    "likeliest_symbols",
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
    "power",
    "projected_cross_entropy",
    "relu",
    "reshape",
    "scaled_dot_product",
    "select",
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
    "take",
    "tanh",
    "transpose",
    "var",
    "where",
]
