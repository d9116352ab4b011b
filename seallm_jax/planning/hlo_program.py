"""Optimized, scheduled TPU programs as text (`compiled.as_text()`, or what libtpu dumps), parsed into plain data.

The text holds computations, each a list of instructions in the order in which they run. What a layout says about memory
matters here, padding of tiles does not.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from seallm_jax.core.errors import SeallmError

_BITS = {"pred": 8, "token": 0, "opaque": 0}
HBM, VMEM, HOST = 0, 1, 5  # memory spaces S(n) that arrays of size live in; others are flags and scalar memory


@dataclasses.dataclass(frozen=True)
class Array:
    """What an instruction gives.

    Attributes:
      dtype: as HLO names it, such as bf16.
      shape: of the array on one device.
      memory: `HBM`, `VMEM`, `HOST`, or another number S(n).
    """

    dtype: str
    shape: tuple[int, ...]
    memory: int = HBM

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes, without the padding of tiles."""
        return self.size * _bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in its computation.
      opcode: such as fusion.
      results: the array, or those of a tuple, flat.
      operands: names of instructions of the same computation.
      literal: what stands between the brackets of a constant or a parameter.
      attributes: the rest of the line.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the attributes; None where it is not there."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else None

    @functools.cached_property
    def calls(self) -> tuple[str, ...]:
        """Names of the computations that it runs; of a conditional all branches; none of a while loop."""
        branches = self.attribute(r"\bbranch_computations=\{([^}]*)\}")
        if branches is None:
            pattern = r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)"
            return tuple(re.findall(pattern, self.attributes))
        return tuple(name.strip().lstrip("%") for name in branches.split(","))

    @functools.cached_property
    def estimated_cycles(self) -> int | None:
        """The compiler's own estimate; None where it has none."""
        cycles = self.attribute(r'"estimated_cycles":"(\d+)"')
        # one that does not know says the largest number
        return int(cycles) if cycles is not None and int(cycles) < 2**62 else None

    @property
    def nbytes(self) -> int:
        """Bytes of all results."""
        return sum(array.nbytes for array in self.results)


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they run; `root` gives its result."""

    name: str
    instructions: tuple[Instruction, ...]
    root: Instruction

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Instructions by name."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Instructions that take one as an operand, by its name."""
        found: dict[str, list[Instruction]] = {instruction.name: [] for instruction in self.instructions}
        for instruction in self.instructions:
            for operand in dict.fromkeys(instruction.operands):
                found[operand].append(instruction)
        return found

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameters by their number."""
        return {int(i.literal): i for i in self.instructions if i.opcode == "parameter"}

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction whose result is an operand."""
        return self.by_name[instruction.operands[index]]


@dataclasses.dataclass(frozen=True)
class HloProgram:
    """A program for one of equal devices.

    Attributes:
      entry: the computation that a run begins with.
      computations: all, by name.
      partitions: devices of a slice that run it.
      sources: for each stack frame that metadata names, the source files of its calls.
    """

    entry: Computation
    computations: dict[str, Computation]
    partitions: int
    sources: dict[int, frozenset[str]]


def parse_hlo(text: str) -> HloProgram:
    """Parses the text of a scheduled module.

    Raises:
      SeallmError: no scheduled HLO module, or a line that is not understood.
    """
    header = text.partition("\n")[0]
    if not header.startswith("HloModule") or "is_scheduled=true" not in header:
        raise SeallmError(f"this is no optimized, scheduled program, but begins with {header[:60]!r}")
    computations: dict[str, Computation] = {}
    entry = None
    for name, is_entry, lines in _blocks(text):
        instructions = [_parse_instruction(line) for line in lines]
        if not instructions:
            raise SeallmError(f"the computation {name} of the program is empty")
        # without a mark the last one is the root
        root = next((i for i, line in zip(instructions, lines, strict=True) if _ROOT.match(line)), instructions[-1])
        computations[name] = Computation(name, tuple(instructions), root)
        entry = computations[name] if is_entry else entry
    if entry is None:
        raise SeallmError("the program has no entry computation")
    partitions = re.search(r"\bnum_partitions=(\d+)", header)
    return HloProgram(entry, computations, int(partitions[1]) if partitions else 1, _parse_sources(text))


_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_END = re.compile(r"\}(?:, execution_thread=\"[^\"]*\")?\s*$")
_ROOT = re.compile(r"\s+ROOT ")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\](?:\{([^{}]*)\})?")
_MEMORY = re.compile(r"S\((\d+)\)")
_OPERAND = re.compile(r"%([\w.\-]+)")


def _blocks(text: str) -> Iterator[tuple[str, bool, list[str]]]:
    """Name, whether it is the entry, and instructions of each computation; an instruction may take several lines."""
    name, is_entry, lines = "", False, list[str]()
    for line in text.splitlines():
        if name and _INSTRUCTION.match(line):
            lines.append(line)
        elif name and _END.match(line):
            yield name, is_entry, lines
            name = ""
        elif name and lines:
            lines[-1] += line
        elif match := _COMPUTATION.match(line):
            is_entry, name, lines = match[1] is not None, match[2], []


def _parse_instruction(line: str) -> Instruction:
    match = _INSTRUCTION.match(line)
    assert match is not None
    start = match.end()
    end = _closing(line, start) if line[start] == "(" else line.find(" ", start)
    opcode = _OPCODE.match(line, end)
    if opcode is None:
        raise SeallmError(f"an instruction of the program is not understood: {line.strip()[:120]}")
    stop = _closing(line, opcode.end() - 1)
    inner = line[opcode.end() : stop - 1]
    constant = opcode[1] in ("constant", "parameter")
    return Instruction(
        name=match[1],
        opcode=opcode[1],
        results=tuple(_array(*found) for found in _ARRAY.findall(line, start, end)),
        operands=() if constant else tuple(_OPERAND.findall(inner)),
        literal=inner if constant else "",
        attributes=line[stop:],
    )


def _closing(line: str, start: int) -> int:
    """The index behind the bracket that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(line, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.end()
    raise SeallmError(f"an instruction of the program is not understood: {line.strip()[:120]}")


def _array(dtype: str, dimensions: str, layout: str) -> Array:
    memory = _MEMORY.search(layout)
    shape = tuple(int(size.lstrip("<=")) for size in dimensions.split(",") if size)
    return Array(dtype, shape, int(memory[1]) if memory else HBM)


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    match = re.match(r"[a-z]+(\d+)", dtype)
    if match is None:
        raise SeallmError(f"the program has arrays of the unknown type {dtype}")
    return int(match[1])


def _parse_sources(text: str) -> dict[int, frozenset[str]]:
    """The tables of file names, locations and stack frames before the computations, put together."""

    def table(name: str, pattern: str) -> dict[int, tuple[str, ...]]:
        section = re.search(rf"^{name}\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
        rows = re.findall(rf"^(\d+) {pattern}", section[1], re.MULTILINE) if section else []
        return {int(number): tuple(found) for number, *found in rows}

    files = table("FileNames", r'"(.*)"$')
    locations = table("FileLocations", r"\{file_name_id=(\d+)")
    frames = table("StackFrames", r"\{file_location_id=(\d+) parent_frame_id=(\d+)")
    sources: dict[int, frozenset[str]] = {0: frozenset()}
    for number in sorted(frames):  # a parent comes before its children
        location, parent = map(int, frames[number])
        # parents are counted from one, where one is no parent
        sources[number] = sources[parent - 1] | {files[int(locations[location][0])][0]}
    return sources
