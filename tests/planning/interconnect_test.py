"""Times of exchanges from bytes, links and groups; and what programs say about groups."""

from __future__ import annotations

import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.planning.hlo_program import Instruction, parse_hlo
from seallm_jax.planning.interconnect import EFFICIENCY, HOP_SECONDS, Interconnect, group_of, pairs_of, places_of
from seallm_jax.planning.topology import Topology

LINK = 45e9 * EFFICIENCY  # v5e
MIB = 2**20


def ids(topology: str) -> np.ndarray:
    """Devices by their coordinates."""
    parsed = Topology.parse(topology)
    return np.arange(math.prod(parsed.shape)).reshape(parsed.shape)


def seconds(topology: str, kind: str, group) -> float:
    return Interconnect(Topology.parse(topology)).seconds(kind, MIB, tuple(int(i) for i in np.ravel(group)))


@pytest.mark.parametrize(
    ("topology", "group", "links", "hops"),
    [
        ("v5e:16x16", np.s_[:, :], 4, 16),  # both ways round in two dimensions
        ("v5e:16x16", np.s_[3, :], 2, 8),
        ("v5e:16x16", np.s_[:, 3:5], 3, 9),  # round in one, to the neighbour in the other
        ("v5e:4x4", np.s_[:, :], 2, 6),  # without a way round
        ("v5e:4x4", np.s_[:, 1], 1, 3),
        ("v5e:4x8", np.s_[1, ::2], 1 / 2, 6),  # the devices between use the same links
        ("v5e:16x16", np.s_[::4, 0], 2 / 4, 8),
    ],
)
def test_gathering_takes_all_dimensions_at_once(topology, group, links, hops):
    group = ids(topology)[group]
    n = group.size
    expected = MIB * (n - 1) / n / (links * LINK) + hops * HOP_SECONDS
    assert seconds(topology, "all-gather", group) == pytest.approx(expected)
    assert seconds(topology, "reduce-scatter", group) == pytest.approx(expected)
    assert seconds(topology, "all-reduce", group) == pytest.approx(2 * expected)


def test_a_cube_of_v5p_is_linked_round():
    n, rate = 64, 90e9 * EFFICIENCY
    assert seconds("v5p:4x4x4", "all-gather", ids("v5p:4x4x4")) == pytest.approx(
        MIB * (n - 1) / n / (6 * rate) + 6 * HOP_SECONDS
    )
    assert seconds("v5p:2x2x1", "all-gather", ids("v5p:2x2x1")) == pytest.approx(MIB * 3 / 4 / (2 * rate) + 2e-6)


def test_exchanging_is_bound_by_the_middle():
    # a ring of 16: half the devices send half of their data across, over two links each way
    crossing = 8 * MIB / 2
    expected = crossing / (2 * LINK) + 8 * HOP_SECONDS
    assert seconds("v5e:16x16", "all-to-all", ids("v5e:16x16")[0]) == pytest.approx(expected)
    # a row of 4: half of the data of two devices across one link
    expected = 2 * MIB / 2 / LINK + 3 * HOP_SECONDS
    assert seconds("v5e:4x4", "all-to-all", ids("v5e:4x4")[0]) == pytest.approx(expected)


def test_what_takes_no_time_and_what_is_refused():
    assert seconds("v5e:4x4", "all-gather", [5]) == 0
    with pytest.raises(SeallmError, match="a group of 3 devices that is no box"):
        seconds("v5e:4x4", "all-gather", [0, 1, 4])
    with pytest.raises(SeallmError, match="irregular"):
        seconds("v5e:4x4", "all-gather", [0, 1, 3])
    with pytest.raises(SeallmError, match="unknown kind all-shuffle"):
        seconds("v5e:4x4", "all-shuffle", [0, 1])
    with pytest.raises(SeallmError, match="15 places for the devices of a slice of v5e:4x4"):
        Interconnect(Topology.parse("v5e:4x4"), [(0, 0)] * 15)
    with pytest.raises(UsageError, match="times are predicted for v5e, v5p, v6e only"):
        Interconnect(Topology.parse("v4:2x2x1"))


def test_permutations_wait_for_the_busiest_link():
    links = Interconnect(Topology.parse("v5e:16x16"))
    round_ = [(i, (i + 1) % 16) for i in range(16)]
    assert links.permute_seconds(MIB, round_) == pytest.approx(MIB / LINK + HOP_SECONDS)
    assert links.permute_directions(round_) == ("links 1 +1",)
    back = [(target, source) for source, target in round_]
    assert links.permute_directions(back) == ("links 1 -1",)
    # three steps at once: each link carries three messages
    far = [(i, (i + 3) % 16) for i in range(16)]
    assert links.permute_seconds(MIB, far) == pytest.approx(3 * MIB / LINK + 3 * HOP_SECONDS)
    # without a way round the last one passes all the others, but the other way
    open_ = Interconnect(Topology.parse("v5e:4x4"))
    row = [(i, (i + 1) % 4) for i in range(4)]
    assert open_.permute_seconds(MIB, row) == pytest.approx(MIB / LINK + 3 * HOP_SECONDS)
    assert open_.permute_seconds(MIB, []) == 0
    assert open_.directions((0, 1, 2, 3)) == ("links 1 +1", "links 1 -1")


@given(st.permutations(range(8)), st.integers(1, 2**30))
def test_a_permutation_is_no_faster_than_its_hops_allow(order, nbytes):
    links = Interconnect(Topology.parse("v5e:2x4"))
    places = list(itertools.product(range(2), range(4)))
    pairs = list(enumerate(order))
    hops = sum(abs(places[a][0] - places[b][0]) + abs(places[a][1] - places[b][1]) for a, b in pairs)
    directed_links = 2 * (4 + 2 * 3)
    assert links.permute_seconds(nbytes, pairs) >= hops / directed_links * nbytes / LINK


def test_between_slices():
    links, rate = Interconnect(Topology.parse("4*v5e:4x4")), 6.25e9
    assert links.network_seconds("ALL_REDUCE", MIB, 4) == pytest.approx(2 * MIB * 3 / 4 / rate)
    assert links.network_seconds("ALL_GATHER", MIB, 4) == pytest.approx(MIB * 3 / 4 / rate)
    assert links.network_seconds("REDUCE_SCATTER", MIB, 2) == pytest.approx(MIB / 2 / rate)
    assert links.network_seconds("ONE_TO_ONE", MIB, 2) == pytest.approx(MIB / rate)


def test_places_are_of_one_slice_in_the_order_of_the_mesh():
    class Device:
        def __init__(self, slice_index, *coords):
            self.slice_index, self.coords = slice_index, list(coords)

    devices = [Device(1, 0, 1, 0), Device(0, 0, 0, 0), Device(1, 0, 0, 0), Device(0, 0, 1, 0)]
    assert places_of(devices) == [(0, 1, 0), (0, 0, 0)]
    # a mesh that crosses the slice the other way: neighbours in it are neighbours along the other dimension
    turned = [(i % 4, i // 4, 0) for i in range(16)]
    plain, other = (Interconnect(Topology.parse("v5e:4x4"), places) for places in (None, turned))
    assert plain.directions((0, 1)) == ("links 1 +1", "links 1 -1")
    assert other.directions((0, 1)) == ("links 0 +1", "links 0 -1")


def instruction(attributes: str) -> Instruction:
    return Instruction("c", "all-gather", (), (), "", attributes)


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(range(len(s))))
    )
)
def test_groups_in_short_form(case):
    sizes, order = case
    ids = np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(-1, sizes[order[-1]])
    shape = f"[{ids.shape[0]},{ids.shape[1]}]<=[{','.join(map(str, sizes))}]T({','.join(map(str, order))})"
    assert group_of(instruction(f", replica_groups={shape}, x"), 99) == tuple(ids[0])


def test_groups_in_all_forms():
    assert group_of(instruction("replica_groups={}, a"), 3) == (0, 1, 2)
    assert group_of(instruction("replica_groups={{0,4},{1,5}}, a"), 8) == (0, 4)
    assert group_of(instruction("replica_groups=[2,4]<=[8], a"), 8) == (0, 1, 2, 3)
    mesh = "replica_groups=mesh['a'=2,'b'=2,'c'=4] "
    assert group_of(instruction(mesh + "{'c'}"), 16) == (0, 1, 2, 3)
    assert group_of(instruction(mesh + "{'a','c'}"), 16) == (0, 1, 2, 3, 8, 9, 10, 11)
    for unknown in ("", "replica_groups=odd", mesh + "{'d'}", mesh + "{'c':(1)2}"):
        with pytest.raises(SeallmError, match="the devices of the collective c are not understood"):
            group_of(instruction(unknown), 16)
    with pytest.raises(SeallmError, match="not understood"):
        pairs_of(instruction(""))


def test_groups_of_real_programs(tpu_programs):
    def collectives(name):
        entry = parse_hlo(tpu_programs[name]).entry
        return [i for i in entry.instructions if "replica_groups" in i.attributes or "source_target" in i.attributes]

    # axes x, y of 4 x 4 devices; y is the last one
    for axes, group in (("y", (0, 1, 2, 3)), ("x", (0, 4, 8, 12)), ("xy", tuple(range(16)))):
        assert group_of(collectives(f"all_gather {axes}")[0], 16) == group
    assert (0, 4) in pairs_of(collectives("permute")[0]) and (15, 3) in pairs_of(collectives("permute")[0])
    assert jax.default_backend() == "cpu"  # nothing here touches a TPU
