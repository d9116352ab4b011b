"""Calls of Pallas kernels in a compiled program."""

from __future__ import annotations

import dataclasses
import re

from seallm_jax.planning.hlo_program import Array, Computation, Instruction


@dataclasses.dataclass(frozen=True)
class KernelCall:
    """A kernel, which the compiler has no estimate for, and what it is called with.

    Attributes:
      name: of the `pallas_call`.
      operands: in its order, scalars first.
      results: in its order.
      flops: operations by the kernel's own estimate of its cost; 0 without one.
    """

    name: str
    operands: tuple[Array, ...]
    results: tuple[Array, ...]
    flops: float


def kernel_call(computation: Computation, instruction: Instruction) -> KernelCall:
    """What a `tpu_custom_call` in a computation calls."""
    name = instruction.attribute(r'\bop_name="(?:[^"]*/)?([^"/]+)/pallas_call')
    flops = instruction.attribute(r'"cost_estimate":\{[^}]*"flops":"(\d+)"')
    return KernelCall(
        name=name or re.sub(r"[.\d]*$", "", instruction.name),
        # in which memory the compiler puts them does not matter to what a kernel is
        operands=tuple(
            dataclasses.replace(array, memory=0)
            for operand in instruction.operands
            for array in computation.by_name[operand].results
        ),
        results=tuple(dataclasses.replace(array, memory=0) for array in instruction.results),
        flops=float(flops or 0),
    )
