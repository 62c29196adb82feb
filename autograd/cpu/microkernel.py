"""The innermost part of a matrix product: the sizes of a tile whose sums stay in registers."""

from __future__ import annotations

from autograd.cpu.pieces import instructions
from autograd.cpu.processor import has
from autograd.cpu.registers import LANES

# As many sums as fit into registers beside two rows of b: 32 registers of 16 numbers with AVX-512;
# otherwise a vector of 16 takes several registers.
HEIGHT, VECTORS = (8, 2) if has("avx512f") else (6, 1)
WIDTH = LANES * VECTORS

multiply_tile, multiply_rows = instructions("microkernel", "multiply_tile", "multiply_rows")
