"""How often the loops of a compiled program turn.

The text says it nowhere. It follows from the condition, from the values that a loop begins with and from what its body
makes of them, so the counter is run: mostly from 0 by 1, by more where the compiler has unrolled the loop.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.hlo_program import Computation, HloProgram, Instruction

_MOST_TURNS = 2**16
_SAME = ("copy", "bitcast", "reshape", "convert", "optimization-barrier")
_OPERATIONS: dict[str, Callable[..., int]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "minimum": min,
    "maximum": max,
    "and": operator.and_,
    "or": operator.or_,
}
_COMPARISONS: dict[str, Callable[..., bool]] = {
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
    "EQ": operator.eq,
    "NE": operator.ne,
}


@dataclasses.dataclass(frozen=True)
class _Scope:
    """A computation as somebody runs it.

    Attributes:
      computation: where names are looked up.
      caller: the scope of `instruction`; None for the entry.
      instruction: the while, fusion or call that runs the computation; None for the entry.
      state: of a loop's computations, elements of the carried tuple in this turn. Of others only what never changes is
        known.
    """

    computation: Computation
    caller: _Scope | None = None
    instruction: Instruction | None = None
    state: Mapping[int, int] = dataclasses.field(default_factory=dict)


class Loops:
    """The loops of a program."""

    def __init__(self, program: HloProgram) -> None:
        self._program = program
        self._scopes: dict[str, _Scope] = {}
        self._add(_Scope(program.entry))

    def body(self, loop: Instruction) -> Computation:
        """What a while loop runs in each turn."""
        return self._part(loop, "body")

    def turns(self, computation: Computation, loop: Instruction) -> int:
        """How often the body of a while loop in a computation runs.

        Raises:
          SeallmError: the number depends on data, or on operations that are not followed.
        """
        caller, condition, body = self._scopes[computation.name], self._part(loop, "condition"), self.body(loop)
        counters = [_index(gte) for gte in condition.instructions if gte.opcode == "get-tuple-element"]
        changing = [index for index in counters if not self._unchanged(loop, index)]
        state = {index: self._element(caller, computation.operand(loop, 0), index) for index in changing}
        for turn in range(_MOST_TURNS):
            known = {index: value for index, value in state.items() if value is not None}
            goes_on = self._value(_Scope(condition, caller, loop, known), condition.root)
            if goes_on is None:
                break
            if not goes_on:
                return turn
            in_body = _Scope(body, caller, loop, known)
            before, state = state, {index: self._element(in_body, body.root, index) for index in changing}
            if state == before:
                break
        raise SeallmError(
            f"how often the loop {loop.name} turns is not known when the program is compiled, so its time is not either"
        )

    def _add(self, scope: _Scope) -> None:
        self._scopes[scope.computation.name] = scope
        for instruction in scope.computation.instructions:
            if instruction.opcode == "while":
                self._add(_Scope(self.body(instruction), scope, instruction))
            elif instruction.opcode in ("call", "conditional", "async-start"):
                for name in instruction.calls:
                    self._add(_Scope(self._program.computations[name], scope, instruction))

    def _part(self, loop: Instruction, name: str) -> Computation:
        computation = loop.attribute(rf"\b{name}=%?([\w.\-]+)")
        if computation is None:
            raise SeallmError(f"the loop {loop.name} of the program has no {name}")
        return self._program.computations[computation]

    def _unchanged(self, loop: Instruction, index: int) -> bool:
        """Whether the body passes an element of the carried tuple on as it is."""
        body = self.body(loop)
        if body.root.opcode != "tuple":
            return False
        source = body.operand(body.root, index)
        while source.opcode in _SAME:
            source = body.operand(source, 0)
        is_element = source.opcode == "get-tuple-element" and body.operand(source, 0).opcode == "parameter"
        return is_element and _index(source) == index

    def _value(self, scope: _Scope, instruction: Instruction) -> int | None:
        """Of a scalar integer or truth value; None where it is not known."""
        here, opcode = scope.computation, instruction.opcode
        if opcode == "constant":
            return _integer(instruction.literal)
        if opcode in _SAME:
            return self._value(scope, here.operand(instruction, 0))
        if opcode == "get-tuple-element":
            return self._element(scope, here.operand(instruction, 0), _index(instruction))
        if opcode == "fusion":
            inner = self._program.computations[instruction.calls[0]]
            return self._value(_Scope(inner, scope, instruction), inner.root)
        if opcode == "parameter":
            if scope.caller is None or scope.instruction is None or scope.instruction.opcode not in ("fusion", "call"):
                return None
            given = scope.caller.computation.operand(scope.instruction, int(instruction.literal))
            return self._value(scope.caller, given)
        direction = instruction.attribute(r"\bdirection=(\w+)") or ""
        operation: Callable[..., int] | None = _OPERATIONS.get(opcode) or _COMPARISONS.get(direction)
        if operation is None:
            return None
        values = [self._value(scope, here.by_name[name]) for name in instruction.operands]
        known = [value for value in values if value is not None]
        return int(operation(*known)) if len(known) == len(values) else None

    def _element(self, scope: _Scope, source: Instruction, index: int) -> int | None:
        """The value of an element of a tuple."""
        here = scope.computation
        if source.opcode == "tuple":
            return self._value(scope, here.operand(source, index))
        if source.opcode == "fusion":
            inner = self._program.computations[source.calls[0]]
            return self._element(_Scope(inner, scope, source), inner.root, index)
        if source.opcode == "while":  # what it leaves behind
            return self._element(scope, here.operand(source, 0), index) if self._unchanged(source, index) else None
        if source.opcode != "parameter" or scope.caller is None or scope.instruction is None:
            return None
        if scope.instruction.opcode != "while":
            given = scope.caller.computation.operand(scope.instruction, int(source.literal))
            return self._element(scope.caller, given, index)
        if index in scope.state:
            return scope.state[index]
        if not self._unchanged(scope.instruction, index):
            return None
        return self._element(scope.caller, scope.caller.computation.operand(scope.instruction, 0), index)


def _index(element: Instruction) -> int:
    return int(element.attribute(r"\bindex=(\d+)") or 0)


def _integer(literal: str) -> int | None:
    if literal in ("true", "false"):
        return int(literal == "true")
    return int(literal) if re.fullmatch(r"-?\d+", literal) else None
