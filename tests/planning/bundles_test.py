"""Cycles of kernels written by hand in the form that the compiler's dumps have."""

from __future__ import annotations

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.bundles import CORES, Core, KernelCycles, read_kernel, read_step, replay

CORE = Core(1e9, 1000, (4, 2))


def line(address: int, text: str, *, label: str = "  ", note: str = "") -> str:
    return f"{address:#6x} {label}: > {{ {text} }}" + (f" /* {note} */" if note else "")


class Writer:
    """Writes bundles one after another, as the compiler numbers them."""

    def __init__(self):
        self.lines = ["= control target key start", "LB: loop body", "= control target key end", ""]
        self.address = 0

    def add(self, *bundles: str, label: str = "  ", note: str = "") -> None:
        for text in bundles:
            self.lines.append(line(self.address, text, label=label, note=note))
            self.address, label = self.address + 1, "  "

    def when(self, region: int, *bundles: str) -> None:
        """A branch over `bundles` with its four delay slots; lands in a bundle of its own."""
        self.add(f"%7 = sbr.rel (%p{region}_p1) target = $region{region}  ;;  %s1 = smov.u32 0")
        self.add(*[""] * 4)
        self.add(*bundles)
        self.add("", label="PF", note=f"Start/End empty region {region} :: Start region {region + 1}")

    def text(self) -> str:
        return "\n".join(self.lines)


STORE = "%1 = vst [vmem:[#allocation3] sm:$0xff] /*vst_source=*/%v2"
PRODUCT = "%2 = vmatmul.bf16.gmra.mxu0 %v3  ;;  %4 = vmatmul.f32.gmra.mxu1 %v3"


def kernel() -> Writer:
    out = Writer()
    out.add("%s0 = smov.u32 0", "%s1 = smov.u32 1")  # before the loop: not counted
    out.add("%s2 = sphi %s0", label="LB", note="Start region 90")
    out.when(10, "%s3 = dma.hbm_to_vmem")  # starts a copy: part of every step
    out.when(20, *[STORE] * 9)
    out.when(30, *[PRODUCT] * 10)
    out.when(40, *[PRODUCT] * 2, *["%v1 = vadd.f32"] * 10)
    out.when(50, *[STORE] * 12)
    out.add("%9 = sbr.rel (!%p9_p1) target = $region90")
    out.add(*[""] * 4)
    out.add("%s9 = vsyncpa 1", label="PF")  # after the loop
    return out


def test_parts_of_a_kernel():
    found = read_kernel(kernel().text(), CORE)
    # 1 + 5 branches of 5 + 5 landings + the copy + the branch back of 5
    assert found.step == 1 + 5 * 5 + 5 + 1 + 5
    assert found.opening == (9,)
    assert found.closing == (12,)
    # ten products of 4 cycles on the busier unit, the last of them begins when the ninth is over; two of them hide
    assert found.products == (1 + 10 * 4, 12)


def test_a_region_is_counted_without_what_lies_below_it_only_if_that_does_work():
    out = Writer()
    out.add("", label="LB", note="Start region 90")
    out.add("%7 = sbr.rel (%p1_p1) target = $region80", *[""] * 4)  # around everything, as in a pipelined loop
    out.when(30, *[PRODUCT])
    out.add("%7 = sbr.rel (%p2_p1) target = $region70", *[""] * 4)
    out.when(50, "%s1 = dma.done.wait")  # within a region that stores
    out.add(*[STORE] * 20)
    out.add("", label="PF", note="Start/End empty region 70")
    out.add("", label="PF", note="Start/End empty region 80")
    out.add("%9 = sbr.rel (!%p9_p1) target = $region90", *[""] * 4)
    found = read_kernel(out.text(), CORE)
    assert found.closing == (20 + 7,)
    assert found.step == 1 + 5 + (5 + 1) + 5 + 1 + 1 + 5
    assert found.products == (5,)


def test_two_products_may_wait():
    one = "%2 = vmatmul.bf16.gmra.mxu0 %v3"
    assert replay([one], CORE) == 1 + 4
    assert replay([one, ""], CORE) == 5
    assert replay([one] * 8, CORE) == 1 + 8 * 4
    # units do not wait for each other
    assert replay([f"{one}  ;;  {one.replace('mxu0', 'mxu1')}"] * 8, CORE) == 1 + 8 * 4
    # instructions fill the gap
    assert replay(["", *[one, "", "", ""] * 8], CORE) == 2 + 8 * 4


def test_total_multiplies_the_parts_by_their_runs():
    cycles = KernelCycles(10, (3,), (100, 50), (7,))
    assert cycles.total(6, [2], [1, 4], [2]) == 60 + 6 + 300 + 14
    with pytest.raises(ValueError, match="counts"):
        cycles.total(6, [2], [1], [2])


def test_copies_of_windows_belong_to_every_step():
    cycles = KernelCycles(10, (3, 5), (100,), (7, 9, 11))
    assert cycles.keep(2, 3) == cycles
    assert cycles.keep(1, 1) == KernelCycles(10 + 3 + 9 + 11, (5,), (100,), (7,))


def test_bundles_without_a_loop_or_products_are_refused():
    with pytest.raises(SeallmError, match="no loop"):
        read_kernel("   0   :  { %s1 = smov.u32 0 }\n", CORE)
    out = Writer()
    out.add("", label="LB", note="Start region 90")
    out.when(20, *[STORE] * 9)
    out.add("%9 = sbr.rel (!%p9_p1) target = $region90", *[""] * 4)
    with pytest.raises(SeallmError, match="no matrix product"):
        read_kernel(out.text(), CORE)


def test_a_step_is_all_that_lies_between_the_ends_of_the_loop():
    out = Writer()
    out.add("%s0 = smov.u32 0")
    out.add("%s2 = sphi %s0", label="LB", note="Start region 90")
    out.when(20, *[STORE] * 9)
    out.add(*[PRODUCT] * 10)
    out.add("%9 = sbr.rel (!%p9_p1) target = $region90", *[""] * 4)
    out.add("%s9 = vsyncpa 1", label="PF")
    # products occupy their unit until after the branch
    assert read_step(out.text(), CORE) == 1 + (5 + 9 + 1) + 1 + 10 * 4


def test_a_step_with_a_loop_is_refused():
    out = Writer()
    out.add("", label="LB", note="Start region 90")
    out.add(PRODUCT, note="Start region 91")
    for region in (91, 90):
        out.add(f"%9 = sbr.rel (!%p9_p1) target = $region{region}", *[""] * 4)
    with pytest.raises(SeallmError, match="hold a loop"):
        read_step(out.text(), CORE)


def test_known_chips():
    # peak rate of a chip: published, in units of 1e12
    for name, peak in (("v5e", 197), ("v5p", 459), ("v6e", 918)):
        assert CORES[name].clock_hz * CORES[name].flops_per_cycle / 1e12 == pytest.approx(peak, rel=0.01)
