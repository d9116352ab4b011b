"""Programs as work and transfers, whose seconds follow from flops, bytes and groups."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.hlo_events import Choice, Event, HloEvents, Repeat, Transfer, Unpriced, Wait, Work
from seallm_jax.planning.hlo_program import parse_hlo
from seallm_jax.planning.interconnect import HOP_SECONDS, Interconnect
from seallm_jax.planning.topology import Topology

PEAK, HBM, LINK, HOST, CLOCK = 197e12 * 0.95, 819e9 * 0.85, 45e9 * 0.85, 16e9 * 0.8, 1.5e9
MIB = 2**20


def events(text: str, topology: str = "v5e:1x1", kernel_seconds=lambda call: 1.0) -> list[Event]:
    program, parsed = parse_hlo(text), Topology.parse(topology)
    return list(HloEvents(program, parsed, Interconnect(parsed), kernel_seconds).of(program.entry))


def flat(found: Sequence[Event], times: int = 1) -> Iterator[tuple[int, Event]]:
    """Each event and how often it happens."""
    for event in found:
        if isinstance(event, Repeat):
            yield from flat(event.events, times * event.turns)
        else:
            yield times, event


def transfers(found: Sequence[Event], part: str) -> list[Transfer]:
    return [event for _, event in flat(found) if isinstance(event, Transfer) and event.part == part]


def test_a_matrix_product(tpu_programs):
    found = events(tpu_programs["matmul"])
    (work,) = (event for event in found if isinstance(event, Work))
    flops = 2 * 4096 * 2048 * 8192
    assert work.part == "matmul" and work.flops == flops and work.roofline == pytest.approx(flops / PEAK)
    cycles = max(int(cycles) for cycles in re.findall(r'"estimated_cycles":"(\d+)"', tpu_programs["matmul"]))
    assert work.compiler == pytest.approx(cycles / CLOCK)
    # one operand is copied to vector memory before
    (copy,) = transfers(found, "exposed_hbm_copies")
    assert copy.seconds in (pytest.approx(16 * MIB / HBM), pytest.approx(32 * MIB / HBM))
    assert found.index(copy) < found.index(Wait(copy.key)) < found.index(work)


@pytest.mark.parametrize(("name", "turns"), [("scan", 5), ("nested", 15)])
def test_products_in_loops_count_their_turns(tpu_programs, name, turns):
    done = [(times, event) for times, event in flat(events(tpu_programs[name])) if isinstance(event, Work)]
    assert sum(times * work.flops for times, work in done) == turns * 2 * 2048 * 1024 * 1024
    assert {work.part for _, work in done} == {"matmul", "elementwise"}


def test_elementwise_work_is_bound_by_memory(tpu_programs):
    (work,) = (event for event in events(tpu_programs["add"]) if isinstance(event, Work))
    assert work.part == "elementwise" and work.flops == 0
    assert work.roofline == pytest.approx(3 * 128 * MIB / HBM) and work.compiler > work.roofline


def test_copies_to_and_from_the_host(tpu_programs):
    there, back = transfers(events(tpu_programs["offload"]), "exposed_host_transfers")
    assert (there.channels, back.channels) == (("from host",), ("to host",))
    assert there.seconds == back.seconds == pytest.approx(128 * MIB / HOST)
    assert there.host_bytes == back.host_bytes == 128 * MIB


@pytest.mark.parametrize(("axes", "devices", "links", "hops"), [("x", 4, 1, 3), ("y", 4, 1, 3), ("xy", 16, 2, 6)])
def test_collectives_over_axes(tpu_programs, axes, devices, links, hops):
    def only(name: str) -> Transfer:
        kinds = ("exposed_all_gather", "exposed_all_reduce", "exposed_reduce_scatter")
        found = events(tpu_programs[f"{name} {axes}"], "v5e:4x4")
        (transfer,) = (transfer for kind in kinds for transfer in transfers(found, kind))
        assert Wait(transfer.key) in found  # nothing runs beside it here
        return transfer

    def ring(nbytes: float) -> float:
        return nbytes * (devices - 1) / devices / (links * LINK) + hops * HOP_SECONDS

    assert only("all_gather").seconds == pytest.approx(ring(devices * 2048 * 1024 * 4 * 16 / 16))
    assert only("all_reduce").seconds == pytest.approx(2 * ring(16 * MIB))
    scattered = only("reduce_scatter")
    # the compiler may sum everything on all devices and take a part of it, and pads where it does not
    whole = scattered.part == "exposed_all_reduce"
    assert scattered.seconds == pytest.approx((2 if whole else 1) * ring(16 * MIB), rel=0.02)
    assert len(only("all_gather").channels) == 2 * len(axes)


def test_neighbours_and_exchanges(tpu_programs):
    nbytes = 4096 * 1024 * 2
    (permute,) = transfers(events(tpu_programs["permute"], "v5e:4x4"), "exposed_collective_permute")
    assert permute.seconds == pytest.approx(nbytes / LINK + 3 * HOP_SECONDS)
    (exchange,) = transfers(events(tpu_programs["all_to_all"], "v5e:4x4"), "exposed_all_to_all")
    assert exchange.seconds == pytest.approx(2 * nbytes / 2 / LINK + 3 * HOP_SECONDS)


def test_a_collective_that_runs_behind_products(tpu_programs):
    found = events(tpu_programs["gathered"], "v5e:16x16")
    whole, n = 4096 * 8192 * 2, 256
    expected = whole * (n - 1) / n / (4 * LINK) + 16 * HOP_SECONDS
    gathers = transfers(found, "exposed_all_gather")
    assert len(gathers) == 2 and all(gather.seconds == pytest.approx(expected) for gather in gathers)
    (hidden,) = (gather for gather in gathers if gather.key.startswith("channel "))
    between = found[found.index(hidden) : found.index(Wait(hidden.key))]
    assert [work.flops for work in between if isinstance(work, Work) and work.flops] == [2 * 8192 * 4096 * 8192]


def test_a_windowed_product_passes_pieces_both_ways(tpu_programs):
    found = events(tpu_programs["windowed"], "v5e:4x4")
    flops = sum(times * event.flops for times, event in flat(found) if isinstance(event, Work))
    assert flops == 2 * 2048 * 4096 * 4096
    sent = sum(times for times, event in flat(found) if isinstance(event, Transfer) and "permute" in event.part)
    assert sent == 4 * 4 + 1  # both ways, twice a turn; and one before


def test_between_slices(tpu_programs):
    found = events(tpu_programs["slices"], "2*v5e:4x4")
    sent, received = transfers(found, "exposed_slice_transfers")
    # each device has a sixteenth after the sum within its slice
    assert sent.seconds == pytest.approx(2 * MIB / 2 / 6.25e9) and received.seconds == 0
    assert Wait(sent.key) in found and Wait(received.key) in found
    assert transfers(found, "exposed_reduce_scatter") and transfers(found, "exposed_all_gather")


def test_a_kernel_is_priced_by_the_caller(tpu_programs):
    calls = []

    def price(call):
        calls.append(call)
        return 0.5

    found = list(flat(events(tpu_programs["kernel"], kernel_seconds=price)))
    (kernel,) = ((times, event) for times, event in found if isinstance(event, Work) and event.part == "other_kernels")
    assert kernel == (5, Work("other_kernels", 0.5, 0.5, 12345.0))
    assert [call.name for call in calls] == ["doubled"]
    unknown = list(flat(events(tpu_programs["kernel"], kernel_seconds=lambda call: None)))
    assert (5, Unpriced("kernel doubled")) in unknown


SMALL = """HloModule f, is_scheduled=true

FileNames
1 "/lib/seallm_jax/kernels/cross_entropy/pieces.py"
2 "/lib/optax/transform.py"

FileLocations
1 {file_name_id=1 function_name_id=1 line=1}
2 {file_name_id=2 function_name_id=1 line=1}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

%yes (a: f32[8,8]) -> f32[8,8] {
  %a = f32[8,8] parameter(0)
  ROOT %twice = f32[8,8] add(%a, %a), metadata={stack_frame_id=2}, backend_config={"estimated_cycles":"30"}
}

ENTRY %main (p: f32[8,8], c: pred[]) -> f32[8,8] {
  %p = f32[8,8] parameter(0)
  %c = pred[] parameter(1)
  %not = pred[] not(%c)
  %logits = f32[8,8] dot(%p, %p), rhs_contracting_dims={0}, metadata={op_name="f/dot" stack_frame_id=1}
  %named = f32[8,8] dot(%p, %p), rhs_contracting_dims={0}, metadata={op_name="f/attention/dot"}
  %either = f32[8,8] conditional(%c, %p, %p), true_computation=%yes, false_computation=%yes
  %odd = f32[8,8] custom-call(%p), custom_call_target="Odd"
  ROOT %big = f32[999,99]{1,0:S(1)} broadcast(%p)
}
"""


def test_parts_branches_and_what_nobody_knows():
    found = events(SMALL)
    product, named, choice, odd, big = found
    assert isinstance(named, Work) and named.part == "attention"
    assert isinstance(product, Work) and product.part == "cross_entropy" and product.flops == 2 * 8**3
    assert isinstance(choice, Choice) and len(choice.branches) == 2
    ((update,), _) = choice.branches
    assert isinstance(update, Work) and (update.part, update.compiler) == ("optimizer", 30 / CLOCK)
    assert (odd, big) == (Unpriced("custom call Odd"), Work("elementwise", *[8 * 8 * 4 / HBM] * 2))


def test_a_collective_without_a_name_is_refused(tpu_programs):
    text = tpu_programs["gathered"]
    assert text.count(" all-gather(") >= 3
    with pytest.raises(SeallmError, match="begins a collective that it does not name"):
        events(text.replace(" all-gather(", " copy("), "v5e:16x16")


OFFLOADED = """HloModule f, is_scheduled=true, num_partitions=256

%stub (p: bf16[4096,1024]) -> bf16[4096,1024] {
  %p = bf16[4096,1024]{1,0} parameter(0)
  ROOT %custom-call.1 = bf16[4096,1024]{1,0} custom-call(%p), custom_call_target="SparseCore"
}

%of_the_sparse_core (q: bf16[4096,1024]) -> bf16[4096,1024] {
  %q = bf16[4096,1024]{1,0} parameter(0)
  ROOT %all-reduce.9 = bf16[4096,1024]{1,0} all-reduce(%q), replica_groups=[1,256]<=[256], to_apply=%add
}

ENTRY %main (a: bf16[4096,1024]) -> bf16[4096,1024] {
  %a = bf16[4096,1024]{1,0} parameter(0)
  %all-reduce.2.call-start = ((), s32[8]{0}) async-start(), calls=%stub, backend_config={"offload":"OFFLOAD_COLLECTIVE"}
  %all-reduce.2.call-update = (bf16[4096,1024]{1,0}, (s32[8]{0})) async-update(%all-reduce.2.call-start, %a)
  ROOT %all-reduce.2.call-done = bf16[4096,1024]{1,0} async-done(%all-reduce.2.call-update)
}
"""


def test_a_collective_of_a_sparse_core_begins_when_it_gets_its_operands():
    transfer, wait = events(OFFLOADED, "v6e:16x16")
    inline = Interconnect(Topology.parse("v6e:16x16"))
    assert isinstance(transfer, Transfer) and transfer.part == "exposed_all_reduce" and transfer.key == wait.key
    assert transfer.seconds == pytest.approx(inline.seconds("all-reduce", 8 * MIB, range(256)))
    with pytest.raises(SeallmError, match="all-reduce.2.call-start, which a SparseCore runs, is not in the text"):
        events(OFFLOADED.replace("all-reduce(%q)", "all-gather(%q)"), "v6e:16x16")
