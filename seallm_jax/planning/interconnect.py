"""How long devices take to exchange data: over the links of a slice's torus, and over the network between slices.

Collectives run along all dimensions of the torus that a group of devices spans at once, both ways round where the ends
of a dimension are linked (How to Scale Your Model, chapter 3, jax-ml.github.io/scaling-book).
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.hlo_program import Instruction
from seallm_jax.planning.topology import Topology

EFFICIENCY = 0.85  # of the bandwidth of links
HOP_SECONDS = 1e-6  # for the first byte to pass from one chip to the next

Place = tuple[int, ...]  # coordinates of a chip in its slice


@dataclasses.dataclass(frozen=True)
class _Span:
    """A dimension of the torus along which a group of devices lies.

    Attributes:
      devices: of the group, along it.
      links: that each of them can send over, 1 or 2, divided by the groups that share them.
      hops: to the farthest device.
    """

    devices: int
    links: float
    hops: int


class Interconnect:
    """The links between the devices of a slice, and the network to other slices."""

    def __init__(self, topology: Topology, places: Sequence[Place] | None = None) -> None:
        """
        Args:
          topology: the slices, which are equal.
          places: of the devices of a slice in the order of the mesh (`places_of`); by default they follow each other
            along the last dimension first.

        Raises:
          SeallmError: there are not as many places as devices in a slice.
        """
        self._topology, self._rates = topology, topology.rates
        every = itertools.product(*(range(size) for size in topology.shape))
        self._places = [tuple(place) for place in (every if places is None else places)]
        if len(self._places) * topology.slices != topology.devices:
            raise SeallmError(f"{len(self._places)} places for the devices of a slice of {topology.name}")
        self._spans_of = functools.cache(self._spans)

    def seconds(self, kind: str, nbytes: float, group: tuple[int, ...]) -> float:
        """Of a collective within a slice, while all groups like this one do the same.

        Args:
          kind: all-gather, all-reduce, reduce-scatter, all-to-all.
          nbytes: what a device ends up with after gathering, or has before reducing or exchanging.
          group: devices that take part.

        Raises:
          SeallmError: another kind, or a group that is no box of chips in regular distances.
        """
        spans, passes = self._spans_of(group), 2 if kind == "all-reduce" else 1
        if not spans:
            return 0.0
        rate = EFFICIENCY * self._rates.link_bytes
        if kind in ("all-gather", "all-reduce", "reduce-scatter"):
            moving = nbytes * (len(group) - 1) / len(group) / (rate * sum(span.links for span in spans))
        elif kind in ("all-to-all", "ragged-all-to-all"):
            # half of the data of one half of a dimension passes its middle, over as many links as leave a device
            moving = max(nbytes * span.devices / 4 / (rate * span.links) for span in spans)
        else:
            raise SeallmError(f"the program has a collective of the unknown kind {kind}")
        return passes * (moving + HOP_SECONDS * sum(span.hops for span in spans))

    def permute_seconds(self, nbytes: float, pairs: Sequence[tuple[int, int]]) -> float:
        """Of sending so many bytes from the first to the second device of each pair, along one dimension after another.

        The busiest link decides.
        """
        load: collections.Counter[tuple[Place, int, int]] = collections.Counter()
        hops = 0
        for source, target in pairs:
            path = self._path(self._places[source], self._places[target])
            hops = max(hops, len(path))
            load.update(path)
        busiest = max(load.values(), default=0)
        return busiest * nbytes / (EFFICIENCY * self._rates.link_bytes) + hops * HOP_SECONDS

    def directions(self, group: tuple[int, ...]) -> tuple[str, ...]:
        """Names of the links that a collective of a group takes: dimensions of the torus, and ways along them."""
        along = [
            index for index in range(len(self._topology.shape)) if len({self._places[i][index] for i in group}) > 1
        ]
        return tuple(f"links {index} {way:+d}" for index in along for way in (1, -1))

    def permute_directions(self, pairs: Sequence[tuple[int, int]]) -> tuple[str, ...]:
        """Names of the links that a permutation takes."""
        paths = (self._path(self._places[source], self._places[target]) for source, target in pairs)
        return tuple(sorted({f"links {index} {way:+d}" for path in paths for _, index, way in path}))

    def network_seconds(self, transfer: str, nbytes: float, slices: int) -> float:
        """Of an exchange between slices, each device with its like.

        Args:
          transfer: as the compiler names it, such as ALL_REDUCE.
          nbytes: that a device gives or gets, whichever is more.
          slices: that take part.
        """
        moved = nbytes * (2 if transfer == "ALL_REDUCE" else 1)
        share = (slices - 1) / slices if transfer.startswith(("ALL_", "REDUCE_")) else 1.0
        return moved * share / self._rates.network_bytes

    def _spans(self, group: tuple[int, ...]) -> list[_Span]:
        """The dimensions along which the devices of one slice lie."""
        spans = []
        for dimension, size in enumerate(self._topology.shape):
            values = sorted({self._places[device][dimension] for device in group})
            steps = {after - before for before, after in itertools.pairwise(values)}
            if len(steps) > 1:
                raise SeallmError(f"devices at {values} along a dimension are in irregular distances")
            if steps:
                step = steps.pop()
                closed = len(values) * step == size and self._wraps(size)
                hops = size // 2 if closed else values[-1] - values[0]
                # the groups between the devices of this one use the same links
                spans.append(_Span(len(values), (2 if closed else 1) / step, hops))
        if math.prod(span.devices for span in spans) != len(group):
            raise SeallmError(f"a group of {len(group)} devices that is no box in the torus of {self._topology.name}")
        return spans

    def _wraps(self, size: int) -> bool:
        return size % self._rates.wraps == 0

    def _path(self, source: Place, target: Place) -> list[tuple[Place, int, int]]:
        """Links as (chip, dimension, direction)."""
        path, here = [], list(source)
        for dimension, size in enumerate(self._topology.shape):
            distance = target[dimension] - here[dimension]
            if self._wraps(size) and abs(distance) > size // 2:
                distance -= size if distance > 0 else -size
            direction = 1 if distance > 0 else -1
            for _ in range(abs(distance)):
                path.append((tuple(here), dimension, direction))
                here[dimension] = (here[dimension] + direction) % size
        return path


def places_of(devices: Iterable[Any]) -> list[Place]:
    """Where the devices of the first slice are that the TPU compiler knows, such as `mesh.devices.flat`, in order."""
    places = [(getattr(device, "slice_index", None) or 0, tuple(device.coords)) for device in devices]
    return [coordinates for of_slice, coordinates in places if of_slice == places[0][0]]


def group_of(instruction: Instruction, devices: int) -> tuple[int, ...]:
    """The first group of devices that a collective is for; the others are like it.

    Raises:
      SeallmError: groups that are written in a way that is not understood.
    """
    match = _GROUPS.search(instruction.attributes)
    if match is None:
        raise SeallmError(f"the devices of the collective {instruction.name} are not understood")
    if match["every"]:
        return tuple(range(devices))
    if match["first"]:
        return tuple(int(device) for device in match["first"].split(","))
    if match["axes"]:  # the devices that differ in these axes only
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match["axes"])}
        names = re.findall(r"'([^']+)'", match["along"])
        if not set(names) <= set(sizes) or "(" in match["along"]:
            raise SeallmError(f"the devices of the collective {instruction.name} are not understood")
        index = tuple(slice(None) if name in names else 0 for name in sizes)
        return tuple(
            int(device) for device in np.arange(math.prod(sizes.values())).reshape(*sizes.values())[index].flat
        )
    shape, order, turned = (
        [int(size) for size in match[name].split(",")] if match[name] else [] for name in ("shape", "order", "turned")
    )
    ids = np.arange(math.prod(order)).reshape(order)
    return tuple(int(device) for device in (ids.transpose(turned) if turned else ids).reshape(shape)[0])


_GROUPS = re.compile(
    r"\breplica_groups=(?:"
    r"(?P<every>\{\})|"
    r"\{\{(?P<first>[\d,]+)\}|"
    r"mesh\[(?P<axes>[^\]]*)\] ?\{(?P<along>[^}]*)\}|"
    r"\[(?P<shape>[\d,]+)\]<=\[(?P<order>[\d,]+)\](?:T\((?P<turned>[\d,]+)\))?)"
)


def pairs_of(instruction: Instruction) -> list[tuple[int, int]]:
    """Who sends to whom in a collective-permute. Raises SeallmError where it does not say."""
    text = instruction.attribute(r"\bsource_target_pairs=(\{\{.*?\}\})")
    if text is None:
        raise SeallmError(f"the devices of the collective {instruction.name} are not understood")
    return [(int(source), int(target)) for source, target in re.findall(r"\{(\d+),(\d+)\}", text)]
