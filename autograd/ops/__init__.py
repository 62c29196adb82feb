"""The operations. One concept a file, the forward pass and its gradient side by side."""

from autograd.ops.adam import adam_step, squared_norm
from autograd.ops.arithmetic import (
    add,
    divide,
    exp,
    gelu,
    log,
    multiply,
    negative,
    power,
    relu,
    sqrt,
    subtract,
    tanh,
)
from autograd.ops.attention import attention, attention_weights, plan_attention
from autograd.ops.cached_attention import append_to_cache, cached_attention
from autograd.ops.cross_entropy import projected_cross_entropy
from autograd.ops.embedding import embedding
from autograd.ops.likeliest import likeliest_symbols
from autograd.ops.linear import linear
from autograd.ops.matmul import matmul
from autograd.ops.norm import add_dropout_norm, dropout, layer_norm
from autograd.ops.reduce import max, mean, sum
from autograd.ops.shape import concatenate, reshape, take, transpose
from autograd.ops.softmax import log_softmax, softmax

__all__ = [
    "adam_step",
    "add",
    "add_dropout_norm",
    "append_to_cache",
    "attention",
    "attention_weights",
    "cached_attention",
    "concatenate",
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
    "mean",
    "multiply",
    "negative",
    "plan_attention",
    "power",
    "projected_cross_entropy",
    "relu",
    "reshape",
    "softmax",
    "sqrt",
    "squared_norm",
    "subtract",
    "sum",
    "take",
    "tanh",
    "transpose",
]
