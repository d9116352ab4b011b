"""The TPU compiler's own estimate of a program."""

from __future__ import annotations

import re
from typing import Any

import jax


def estimated_cycles(compiled: Any, turns: int = 1) -> int | None:
    """Sum of the compiler's estimates of all operations that it has one for, which Pallas kernels are not.

    Args:
      compiled: a program for a TPU.
      turns: of its loops; all have the same number.

    Returns:
      Cycles; None where this version of JAX cannot read the program that libtpu made.
    """
    try:
        program = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    loops = set(re.findall(r"\bbody=%?([\w.\-]+)", program))
    total, turns_here = 0, 1
    for line in program.splitlines():
        if header := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            turns_here = turns if header[1] in loops else 1
        elif estimate := re.search(r'"estimated_cycles":"(\d+)"', line):
            total += turns_here * int(estimate[1]) if int(estimate[1]) < 2**62 else 0
    return total
