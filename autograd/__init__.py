"""A small tape-based autograd engine on NumPy or CuPy, with the operations of a Transformer.

from autograd import Parameter, Tape

w = Parameter([1.0, 2.0])
with Tape() as tape:
    loss = (w * w).sum()
tape.backward(loss)
w.grad                      # array([2., 4.])
"""

from autograd import cpu, cuda, ops, tensor
from autograd.backend import BackendError, array_module, to_host, use, using
from autograd.buffer import ParameterBuffer
from autograd.dropout import DropoutSite, DropoutStream
from autograd.flops import Flops, count_flops
from autograd.gradcheck import check_gradients
from autograd.operation import op, references, watching
from autograd.sentences import Sentences
from autograd.tape import Tape
from autograd.tensor import Parameter, Tensor

__all__ = [
    "BackendError",
    "DropoutSite",
    "DropoutStream",
    "Flops",
    "Parameter",
    "ParameterBuffer",
    "Sentences",
    "Tape",
    "Tensor",
    "array_module",
    "check_gradients",
    "count_flops",
    "op",
    "ops",
    "references",
    "to_host",
    "use",
    "using",
    "watching",
]

tensor.ops = ops  # for the operators of Tensors
cpu.enable()
cuda.enable()
