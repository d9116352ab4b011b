"""Texts of programs as data."""

from __future__ import annotations

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.hlo_program import HBM, HOST, VMEM, Array, parse_hlo

TEXT = """HloModule jit_f, is_scheduled=true, num_partitions=16

FileNames
1 "/outer.py"
2 "/inner.py"

FunctionNames
1 "f"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1 end_line=1 column=0 end_column=1}
2 {file_name_id=2 function_name_id=1 line=2 end_line=2 column=0 end_column=1}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}

%fused (p: bf16[8,128], i: s32[]) -> bf16[1,128] {
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %i = s32[]{:T(128)S(6)} parameter(1)
  %table = s32[2,2]{1,0} constant({
    { 0, 1 },
    { 2, 3 }
  })
  ROOT %slice = bf16[1,128]{1,0} dynamic-slice(%p, %i), metadata={op_name="a(b)" stack_frame_id=2}
}

ENTRY %main.1_spmd (x: bf16[8,128]) -> (bf16[1,128], s8[4]) {
  %x = bf16[8,128]{1,0:T(8,128)(2,1)S(5)} parameter(0), metadata={op_name="x"}
  %start = (bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, bf16[8,128]{1,0:S(5)}, /*index=2*/u32[]{:S(2)}) copy-start(%x)
  %done = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} copy-done(%start)
  %one = s32[]{:T(128)} constant(-1)
  %branch = s8[4]{0} conditional(%one, %done), branch_computations={%fused, %fused}
  %fusion.2 = bf16[1,128]{1,0} fusion(%done, %one), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"12"}
  %unknown = s4[3]{0} copy(%branch), backend_config={"estimated_cycles":"9223372036854775807"}
  ROOT %out = (bf16[1,128]{1,0}, s8[4]{0}) tuple(%fusion.2, %branch)
}, execution_thread="main"
"""


def test_a_program_as_the_compiler_writes_it():
    program = parse_hlo(TEXT)
    entry, fused = program.entry, program.computations["fused"]
    assert (entry.name, program.partitions, list(program.computations)) == ("main.1_spmd", 16, ["fused", "main.1_spmd"])
    x, start, done, one, branch, fusion, unknown, out = entry.instructions
    assert x.results == (Array("bf16", (8, 128), HOST),) and x.literal == "0" and x.operands == ()
    assert [array.memory for array in start.results] == [VMEM, HOST, 2] and start.opcode == "copy-start"
    assert start.nbytes == 2 * 8 * 128 * 2 + 4
    assert done.operands == ("start",) and entry.operand(done, 0) is start
    assert one.literal == "-1" and branch.calls == ("fused", "fused") and fusion.calls == ("fused",)
    assert fusion.estimated_cycles == 12 and unknown.estimated_cycles is None and x.estimated_cycles is None
    assert Array("s4", (4,)).nbytes == 2 and Array("pred", (3,)).nbytes == 3 and Array("f8e4m3fn", (3,)).nbytes == 3
    assert entry.root is out and fused.root.name == "slice" and fused.root.results[0].memory == HBM
    assert entry.users["done"] == [branch, fusion]
    assert fused.parameters == {0: fused.by_name["p"], 1: fused.by_name["i"]}
    assert "{ 2, 3 }" in fused.by_name["table"].literal
    assert program.sources == {0: frozenset(), 1: {"/outer.py"}, 2: {"/outer.py", "/inner.py"}}
    assert fused.root.attribute(r"stack_frame_id=(\d+)") == "2" and fused.root.attribute("(absent)") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("module @jit_f", "no optimized, scheduled program, but begins with 'module @jit_f'"),
        (TEXT.replace("is_scheduled=true, ", ""), "no optimized, scheduled program"),
        (TEXT.replace("ENTRY ", ""), "no entry computation"),
        (TEXT.replace("copy-done(%start)", "copy-done(%start"), "is not understood: %done = "),
        (TEXT.replace("copy-done(", "?("), "is not understood: %done = "),
        (TEXT.replace("s8[4]{0} cond", "odd[4]{0} cond"), "unknown type odd"),
    ],
)
def test_what_is_no_program(text, message):
    with pytest.raises(SeallmError, match=message):
        [i.nbytes for i in parse_hlo(text).entry.instructions]


def test_real_programs(tpu_programs):
    for name, text in tpu_programs.items():
        program = parse_hlo(text)
        # every line of a computation is an instruction, every operand one of them
        lines = [line for line in text.splitlines() if line.startswith("  ") and " = " in line]
        assert len(lines) == sum(len(c.instructions) for c in program.computations.values()), name
        for computation in program.computations.values():
            assert set(computation.by_name) == {i.name for i in computation.instructions}
            assert all(operand in computation.by_name for i in computation.instructions for operand in i.operands)
        assert any("compile_programs.py" in source for stack in program.sources.values() for source in stack)
