"""Work of operations: products against a count of multiplications, bytes of programs that are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.hlo_costs import HloCosts, collective_kind
from seallm_jax.planning.hlo_program import HloProgram, parse_hlo

MIB = 2**20


def entry_costs(text: str) -> tuple[float, float, int]:
    """Products, products as matrix units do them, and bytes, of the instructions of the entry that are work."""
    program = parse_hlo(text)
    costs, entry = HloCosts(program), program.entry
    working = [i for i in entry.instructions if i.estimated_cycles is not None or i.opcode in ("convolution", "dot")]
    products = [costs.products(entry, i) for i in working]
    return (
        sum(p.flops for p in products),
        sum(p.passes_flops for p in products),
        sum(costs.hbm_bytes(entry, i) for i in working),
    )


def one(line: str, *operands: str) -> str:
    parameters = "".join(f"  %p{i} = {shape} parameter({i})\n" for i, shape in enumerate(operands))
    return f"HloModule f, is_scheduled=true\n\nENTRY %main () -> f32[] {{\n{parameters}  ROOT %it = {line}\n}}\n"


def test_products(tpu_programs):
    flops = 2 * 4096 * 2048 * 8192
    assert entry_costs(tpu_programs["matmul"])[:2] == (flops, flops)
    # float32 to full precision takes six products of bfloat16
    flops = 2 * 1024**3
    assert entry_costs(tpu_programs["precise"])[:2] == (flops, 6 * flops)
    # products of heads, which the compiler writes as one convolution with holes
    assert entry_costs(tpu_programs["heads"])[0] == 2 * 2 * 8 * 512 * 512 * 128


@given(
    size=st.integers(1, 6),
    taps=st.integers(1, 6),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    spread=st.integers(1, 2),
    low=st.integers(-2, 6),
    high=st.integers(0, 6),
)
def test_convolutions_count_what_is_no_padding(size, taps, stride, dilation, spread, low, high):
    padded = np.pad(_spread(np.ones(size), dilation), (max(low, 0), high))[max(-low, 0) :]
    window = _spread(np.ones(taps), spread)
    outputs = (len(padded) - len(window)) // stride + 1
    if outputs < 1:
        return
    multiplications = sum(padded[o * stride : o * stride + len(window)] @ window for o in range(outputs))
    text = one(
        f"f32[3,{outputs},7] convolution(%p0, %p1), window={{size={taps} stride={stride} pad={low}_{high} "
        f"lhs_dilate={dilation} rhs_dilate={spread}}}, dim_labels=b0f_0io->b0f",
        f"bf16[3,{size},5]",
        f"bf16[{taps},5,7]",
    )
    assert entry_costs(text)[0] == 2 * 3 * 5 * 7 * multiplications


def _spread(values: np.ndarray, step: int) -> np.ndarray:
    """With `step` - 1 zeros between them."""
    out = np.zeros((len(values) - 1) * step + 1)
    out[::step] = values
    return out


def test_products_of_other_types():
    dot = "f32[4,6] dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    flops = 2 * 4 * 5 * 6
    for dtype, passes in (("bf16", 1), ("s8", 0.5), ("f32", 1)):
        assert entry_costs(one(dot, f"{dtype}[4,5]", f"{dtype}[5,6]"))[:2] == (flops, flops * passes)
    high = dot + ", operand_precision={high,high}"
    assert entry_costs(one(high, "f32[4,5]", "f32[5,6]"))[:2] == (flops, 3 * flops)
    with pytest.raises(SeallmError, match="does not say what it sums over"):
        entry_costs(one("f32[4,6] dot(%p0, %p1)", "bf16[4,5]", "bf16[5,6]"))
    with pytest.raises(SeallmError, match="does not name its dimensions"):
        entry_costs(one("f32[4,6] convolution(%p0, %p1)", "bf16[4,5]", "bf16[5,6]"))


def test_bytes(tpu_programs):
    assert entry_costs(tpu_programs["add"])[2] == 3 * 128 * MIB
    # one of 64 slices; the result goes to HBM, too
    assert entry_costs(tpu_programs["slice"])[2] == pytest.approx(2 * 8 * MIB, rel=0.01)
    # a row of an array of 128 MiB is updated in place
    assert entry_costs(tpu_programs["update"])[2] < MIB
    # what has been copied to vector memory before counts nothing
    text = tpu_programs["matmul"]
    assert "S(1)" in text
    left, right, out = (np.prod(shape) * 2 for shape in ((4096, 2048), (2048, 8192), (4096, 8192)))
    assert entry_costs(text)[2] in (left + out, right + out)


FUSION = """HloModule f, is_scheduled=true

%view (a: f32[64,1024]) -> f32[64,1024] {
  %a = f32[64,1024] parameter(0)
  ROOT %v = f32[64,1024] bitcast(%a)
}

%body (x: f32[64,1024], y: f32[64,1024], z: f32[8,1024], i: s32[]) -> (f32[64,1024], f32[8,1024], f32[64,1024]) {
  %x = f32[64,1024] parameter(0)
  %y = f32[64,1024] parameter(1)
  %z = f32[8,1024]{1,0:S(1)} parameter(2)
  %i = s32[]{:S(6)} parameter(3)
  %seen = f32[64,1024] fusion(%y), kind=kLoop, calls=%view
  %part = f32[8,1024] dynamic-slice(%seen, %i), dynamic_slice_sizes={8,1024}
  %sum = f32[8,1024]{1,0:S(1)} add(%part, %z)
  %new = f32[64,1024] dynamic-update-slice(%x, %sum, %i)
  ROOT %out = (f32[64,1024], f32[8,1024]{1,0:S(1)}, f32[64,1024]) tuple(%new, %sum, %y)
}

ENTRY %main (x: f32[64,1024], y: f32[64,1024], z: f32[8,1024], i: s32[]) -> f32[64,1024] {
  %x = f32[64,1024] parameter(0)
  %y = f32[64,1024] parameter(1)
  %z = f32[8,1024]{1,0:S(1)} parameter(2)
  %i = s32[]{:S(6)} parameter(3)
  ROOT %it = (f32[64,1024], f32[8,1024]{1,0:S(1)}, f32[64,1024]) fusion(%x, %y, %z, %i), calls=%body, ESTIMATE
}
""".replace("ESTIMATE", 'backend_config={"estimated_cycles":"1"}')


def test_bytes_of_a_fusion():
    part = 8 * 1024 * 4
    # a slice of y, behind a view, is read; its sum is written into x, and kept in vector memory; y is given on
    assert entry_costs(FUSION)[2] == 2 * part
    whole = FUSION.replace("%part = f32[8,1024] dynamic-slice(%seen, %i)", "%part = f32[8,1024] reduce(%seen, %i)")
    assert entry_costs(whole)[2] == 64 * 1024 * 4 + part


def test_the_first_collective(tpu_programs):
    def kind(name: str) -> str | None:
        program: HloProgram = parse_hlo(tpu_programs[name])
        found = HloCosts(program).collective(program.entry)
        return found and collective_kind(found[1])

    assert kind("add") is None
    assert kind("all_reduce x") == "all-reduce" and kind("all_gather y") == "all-gather"
    assert kind("permute") == "collective-permute"
    assert kind("gathered") == "all-gather"
