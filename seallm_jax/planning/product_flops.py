"""Operations of the matrix products of a function, with the turns of its loops, which XLA's own count leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import jaxprs_in_params


def product_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Floating-point operations of all `dot_general`, on one device, before the compiler simplifies.

    Scans count all their turns, conditions their dearest branch, Pallas kernels what their cost estimate says.

    Args:
      function: anything that JAX can trace.
      arguments: arrays or `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: a Pallas kernel without a cost estimate.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        parameters = equation.params
        match equation.primitive.name:
            case "dot_general":
                ((contracted, _), _), lhs = parameters["dimension_numbers"], equation.invars[0].aval.shape
                total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(lhs[axis] for axis in contracted)
            case "pallas_call":
                if parameters.get("cost_estimate") is None:
                    raise ValueError(f"the kernel {parameters.get('name')} gives no estimate of its cost")
                total += parameters["cost_estimate"].flops
            case "scan":
                total += parameters["length"] * _count(parameters["jaxpr"].jaxpr)
            case "cond":
                total += max(_count(branch.jaxpr) for branch in parameters["branches"])
            case _:
                total += sum(_count(jaxpr) for jaxpr in jaxprs_in_params(parameters))
    return total
