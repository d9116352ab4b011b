"""Work of the operations of a compiled program: matrix products, and bytes that they move to and from HBM."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.hlo_program import HBM, Array, Computation, HloProgram, Instruction

_VIEWS = ("bitcast", "reshape", "get-tuple-element", "optimization-barrier")
_PARTS = ("dynamic-slice", "slice", "gather")  # read what they give, not what they are given
# passes of the matrix units over bfloat16 parts of float32 operands, by precision
_PASSES = {"default": 1, "high": 3, "highest": 6}


@dataclasses.dataclass(frozen=True)
class Products:
    """Matrix products of an operation.

    Attributes:
      flops: what the products are, whatever the dtype.
      passes_flops: what matrix units have to do for them in bfloat16: float32 of high precision takes several passes,
        8-bit operands half of one.
    """

    flops: float = 0.0
    passes_flops: float = 0.0

    def __add__(self, other: Products) -> Products:
        return Products(self.flops + other.flops, self.passes_flops + other.passes_flops)


class HloCosts:
    """Costs of the operations of a program, each computed once."""

    def __init__(self, program: HloProgram) -> None:
        self._program = program
        self._products: dict[str, Products] = {}

    def products(self, computation: Computation, instruction: Instruction) -> Products:
        """Matrix products of an instruction, those in fusions included."""
        if instruction.opcode in ("convolution", "dot"):
            return _product(computation, instruction)
        if instruction.opcode not in ("fusion", "call"):
            return Products()
        return sum((self._products_of(name) for name in instruction.calls), Products())

    def hbm_bytes(self, computation: Computation, instruction: Instruction) -> int:
        """Bytes that an instruction reads from and writes to HBM.

        Arrays in vector memory or on the host count nothing, of arrays that are only sliced the slices count, and of
        arrays updated in place the updates.
        """
        operands = [computation.by_name[name] for name in dict.fromkeys(instruction.operands)]
        if instruction.opcode == "fusion":
            body = self._program.computations[instruction.calls[0]]
            read = sum(self._bytes_read(body, parameter) for parameter in body.parameters.values())
            return read + sum(_bytes_written(body, root) for root in _roots(body))
        if instruction.opcode in _PARTS:
            return _hbm(instruction) + min(_hbm(instruction), _hbm(operands[0]))
        if instruction.opcode == "dynamic-update-slice":
            return _hbm(operands[1]) + (operands[1].nbytes if _hbm(instruction) else 0)
        return sum(_hbm(operand) for operand in operands) + _hbm(instruction)

    def collective(self, computation: Computation, depth: int = 0) -> tuple[Computation, Instruction] | None:
        """The first collective in a computation and in the fusions and calls in it; None without one."""
        for instruction in computation.instructions:
            if collective_kind(instruction) is not None:
                return computation, instruction
            for name in instruction.calls if instruction.opcode in ("fusion", "call", "async-start") else ():
                if depth < 4 and (found := self.collective(self._program.computations[name], depth + 1)):
                    return found
        return None

    def _products_of(self, name: str) -> Products:
        if name not in self._products:
            body = self._program.computations[name]
            self._products[name] = sum((self.products(body, inner) for inner in body.instructions), Products())
        return self._products[name]

    def _bytes_read(self, body: Computation, value: Instruction) -> int:
        """From HBM, of a value that a fused computation is given."""
        whole = _hbm(value)
        if not whole:
            return 0
        total = 0
        for user in body.users[value.name]:
            places = [index for index, name in enumerate(user.operands) if name == value.name]
            if user.opcode in _VIEWS:
                total += self._bytes_read(body, user)
            elif user.opcode in _PARTS and places == [0]:
                total += user.nbytes
            elif user.opcode == "dynamic-update-slice" and places == [0]:
                pass  # updated in place
            elif user.opcode == "fusion":
                inner = self._program.computations[user.calls[0]]
                for parameter in (inner.parameters[index] for index in places):
                    total += self._bytes_read(inner, parameter)
                    if _behind_views(inner, inner.root) is parameter:  # given on as it is
                        total += self._bytes_read(body, user)
            elif user.opcode != "tuple":
                return whole
        return min(total, whole)


KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")


def collective_kind(instruction: Instruction) -> str | None:
    """Which collective an instruction is or starts; None for others."""
    name = instruction.opcode.removesuffix("-start")
    return name if name in KINDS else None


def _roots(body: Computation) -> list[Instruction]:
    if body.root.opcode != "tuple":
        return [body.root]
    return [body.by_name[name] for name in body.root.operands]


def _bytes_written(body: Computation, root: Instruction) -> int:
    source = _behind_views(body, root)
    if source.opcode == "parameter" or collective_kind(source):
        return 0  # not written, or by a transfer
    if source.opcode == "dynamic-update-slice":
        return body.operand(source, 1).nbytes if _hbm(root) else 0
    return _hbm(root)


def _behind_views(body: Computation, value: Instruction) -> Instruction:
    while value.opcode in _VIEWS:
        value = body.operand(value, 0)
    return value


def _hbm(instruction: Instruction) -> int:
    return sum(array.nbytes for array in instruction.results if array.memory == HBM)


def _product(computation: Computation, instruction: Instruction) -> Products:
    left, right = (computation.operand(instruction, index).results[0] for index in (0, 1))
    flops = (_dot_flops if instruction.opcode == "dot" else _convolution_flops)(instruction, left, right)
    if left.dtype == right.dtype == "f32":
        precision = instruction.attribute(r"\boperand_precision=\{(\w+)") or "default"
        return Products(flops, flops * _PASSES.get(precision, 1))
    narrow = all(_is_narrow(array.dtype) for array in (left, right))
    return Products(flops, flops / 2 if narrow else flops)


def _is_narrow(dtype: str) -> bool:
    return dtype in ("s8", "u8", "s4", "u4")


def _dot_flops(instruction: Instruction, left: Array, right: Array) -> float:
    contracted = instruction.attribute(r"\brhs_contracting_dims=\{([\d,]*)\}")
    if contracted is None:
        raise SeallmError(f"the product {instruction.name} of the program does not say what it sums over")
    depth = math.prod(right.shape[int(axis)] for axis in contracted.split(",") if axis)
    return 2.0 * instruction.results[0].size * depth


def _convolution_flops(instruction: Instruction, left: Array, right: Array) -> float:
    """Of all pairs of an output and a tap of the window that meets the input: padding is no work.

    The compiler writes products over batches as convolutions with padded windows, of which one tap is no padding.
    """
    labels = re.search(r"\bdim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        raise SeallmError(f"the convolution {instruction.name} of the program does not name its dimensions")
    of_left, of_right, of_out = labels.groups()
    out = instruction.results[0]
    pairs = 1
    window = _window(instruction)
    for axis in sorted(label for label in of_right if label.isdigit()):
        sizes = left.shape[of_left.index(axis)], right.shape[of_right.index(axis)], out.shape[of_out.index(axis)]
        pairs *= _valid_pairs(*sizes, *(window[field][int(axis)] if field in window else 0 for field in _FIELDS))
    groups = int(instruction.attribute(r"\bbatch_group_count=(\d+)") or 1)
    batch, depth = left.shape[of_left.index("b")] // groups, right.shape[of_right.index("i")]
    return 2.0 * batch * out.shape[of_out.index("f")] * depth * pairs


_FIELDS = ("stride", "pad", "lhs_dilate", "rhs_dilate")


def _window(instruction: Instruction) -> dict[str, list[int]]:
    """Fields of a window, each by dimension; of padding only what lies before."""
    text = instruction.attribute(r"\bwindow=\{([^}]*)\}") or ""
    fields = dict(field.split("=") for field in text.split())
    return {name: [int(size.split("_")[0]) for size in value.split("x")] for name, value in fields.items()}


@functools.cache
def _valid_pairs(size: int, taps: int, outputs: int, stride: int, pad: int, dilation: int, spread: int) -> int:
    """Outputs and taps of one dimension that meet an element of the input, which holes and padding are not."""
    dilation = max(dilation, 1)
    places = np.arange(outputs)[:, None] * max(stride, 1) - pad + np.arange(taps) * max(spread, 1)
    return int(((places >= 0) & (places <= (size - 1) * dilation) & (places % dilation == 0)).sum())
