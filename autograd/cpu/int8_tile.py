"""The innermost part of a product in 8 bits: a small tile whose sums stay in registers.

The sums of products are exact: 32-bit integers. Four terms of 16 columns lie beside each other, as
the processor's instructions take them. Which instructions those are depends on the processor, and
the sums do not.
"""

from __future__ import annotations

from autograd.cpu.pieces import Instruction
from autograd.cpu.processor import has
from autograd.cpu.registers import LANES
from autograd.int8 import PANEL

VECTORS = PANEL // LANES

# Instructions that add four products to each sum (VNNI), on vectors of 512 and of 256 bits.
VNNI_512 = has("avx512f") and has("avx512vnni")
VNNI_256 = has("avxvnni") or (has("avx512vl") and has("avx512vnni"))
_VNNI = VNNI_512 or VNNI_256
AVX2 = has("avx2")

# Rows of a tile, and vectors that it has of each row at a time: as many sums as fit into registers
# beside what they are made of, 32 registers of 16 numbers with AVX-512, else 16 of 8.
HEIGHT, ABREAST = (8, VECTORS) if VNNI_512 else (4, 1)

# VNNI multiplies numbers without a sign by numbers with one. So x comes as x + OFFSET, in numbers
# without a sign, and OFFSET times the sum of each column is taken away.
OFFSET = 128 if _VNNI else 0

multiply_int8_tile = Instruction("int8_tile", "multiply_int8_tile")
