"""Turns of loops: of programs whose number is known, and of counters with any start, step and limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning import hlo_loops
from seallm_jax.planning.hlo_loops import Loops
from seallm_jax.planning.hlo_program import parse_hlo

TEXT = """HloModule jit_f, is_scheduled=true

%next (a: s32[], b: s32[]) -> s32[] {{
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %sum = s32[] {operation}(%a, %b)
}}

%body (p: (s32[], s32[], f32[8])) -> (s32[], s32[], f32[8]) {{
  %p = (s32[], s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %step = s32[] constant({step})
  %n = s32[] get-tuple-element(%p), index=1
  %same = s32[] copy(%n)
  %x = f32[8] get-tuple-element(%p), index=2
  %j = s32[] fusion(%i, %step), kind=kLoop, calls=%next
  ROOT %out = (s32[], s32[], f32[8]) tuple(%j, {limit_out}, %x)
}}

%condition (q: (s32[], s32[], f32[8])) -> pred[] {{
  %q = (s32[], s32[], f32[8]) parameter(0)
  %c = s32[] get-tuple-element(%q), index=0
  %l = s32[] get-tuple-element(%q), index=1
  ROOT %more = pred[] compare({compared}), direction={direction}
}}

ENTRY %main (x: f32[8], start: s32[]) -> f32[8] {{
  %x = f32[8] parameter(0)
  %data = s32[] parameter(1)
  %first = s32[] constant({start})
  %last = s32[] constant({limit})
  %begin = (s32[], s32[], f32[8]) tuple({begin}, %last, %x)
  %loop = (s32[], s32[], f32[8]) while(%begin), condition=%condition, body=%body
  ROOT %result = f32[8] get-tuple-element(%loop), index=2
}}
"""
USUAL = {
    "operation": "add",
    "step": 1,
    "limit_out": "%same",
    "compared": "%c, %l",
    "direction": "LT",
    "start": 0,
    "limit": 8,
    "begin": "%first",
}


def turns(**fields) -> int:
    program = parse_hlo(TEXT.format(**USUAL | fields))
    return Loops(program).turns(program.entry, program.entry.by_name["loop"])


@given(start=st.integers(-9, 9), step=st.integers(1, 5), count=st.integers(0, 40), odd=st.integers(0, 4))
def test_counters(start, step, count, odd):
    limit = start + step * count - min(odd, step - 1) * (count > 0)
    expected = len(range(start, limit, step))
    assert turns(start=start, step=step, limit=limit) == expected
    assert turns(start=start, step=step, limit=limit, direction="GT", compared="%l, %c") == expected
    assert turns(start=start, step=step, limit=limit - 1, direction="LE") == expected
    # down
    assert turns(start=-start, step=step, limit=-limit, direction="GT", operation="subtract") == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"begin": "%data"},  # from data
        {"operation": "divide"},  # by what is not followed
        {"step": 0},  # for ever
        {"limit_out": "%i", "compared": "%l, %c", "direction": "NE"},  # a limit that moves, and is never met
    ],
)
def test_turns_that_nobody_knows(fields, monkeypatch):
    monkeypatch.setattr(hlo_loops, "_MOST_TURNS", 1000)
    with pytest.raises(SeallmError, match="how often the loop loop turns is not known"):
        turns(**fields)


@pytest.mark.parametrize(
    # 4 x 4 devices pass pieces both ways round, so that a turn takes two of 16, and the compiler unrolls two turns
    ("name", "expected"),
    [("scan", {5}), ("nested", {3, 5}), ("windowed", {4}), ("kernel", {5})],
)
def test_real_loops(tpu_programs, name, expected):
    program = parse_hlo(tpu_programs[name])
    loops = Loops(program)
    found = {
        loops.turns(computation, instruction)
        for computation in program.computations.values()
        for instruction in computation.instructions
        if instruction.opcode == "while"
    }
    assert found == expected
