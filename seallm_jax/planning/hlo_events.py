"""A compiled program as events in time: work of the core one after another, and transfers that run beside it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.peak_flops import peak_flops
from seallm_jax.planning.hlo_costs import KINDS, HloCosts, collective_kind
from seallm_jax.planning.hlo_loops import Loops
from seallm_jax.planning.hlo_program import HOST, Computation, HloProgram, Instruction
from seallm_jax.planning.interconnect import Interconnect, group_of, pairs_of
from seallm_jax.planning.kernel_call import KernelCall, kernel_call
from seallm_jax.planning.topology import Topology

# what of their peak the units reach in good programs
MATRIX_UNITS, MEMORY, HOST_LINK = 0.95, 0.85, 0.8
LEAST_SHARE = 0.2  # of the compiler's estimate that an operation in vector memory takes at least


@dataclasses.dataclass(frozen=True)
class Work:
    """What the core does itself.

    Attributes:
      part: what it is for.
      roofline: seconds at the peak of matrix units or memory.
      compiler: seconds by the compiler's estimate; those of the roofline where it has none.
      flops: of matrix products.
    """

    part: str
    roofline: float
    compiler: float
    flops: float = 0.0


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What begins to run beside the core.

    Attributes:
      key: by which it is waited for.
      part: what waiting for it is.
      channels: that it takes for itself.
      seconds: that it takes.
      host_bytes: to or from the host.
    """

    key: str
    part: str
    channels: tuple[str, ...]
    seconds: float
    host_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Wait:
    """For the transfer `key` to end."""

    key: str


@dataclasses.dataclass(frozen=True)
class Unpriced:
    """Something that takes time nobody knows, and counts as nothing."""

    what: str


@dataclasses.dataclass(frozen=True)
class Repeat:
    """Events that happen so often."""

    turns: int
    events: tuple[Event, ...]


@dataclasses.dataclass(frozen=True)
class Choice:
    """Events of which one group happens; the dearest is counted."""

    branches: tuple[tuple[Event, ...], ...]


Event = Work | Transfer | Wait | Unpriced | Repeat | Choice

_FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "optimization-barrier",
    "add-dependency",
    "domain",
)
_SMALL = 2**16  # bytes; results in vector memory that take next to no time
_FREE_CALLS = (
    "ConcatBitcast",
    "GatherScatterIndicesBitpacked",
    "AllocateBuffer",
    "Sharding",
    "SPMDFullToShardShape",
    "SPMDShardToFullShape",
    "AssumeGatherIndicesInBound",
)
_COPIES = ("copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start")


class HloEvents:
    """Makes events of the computations of a program."""

    def __init__(
        self,
        program: HloProgram,
        topology: Topology,
        interconnect: Interconnect,
        kernel_seconds: Callable[[KernelCall], float | None],
    ) -> None:
        self._program, self._interconnect, self._kernel_seconds = program, interconnect, kernel_seconds
        self._rates, self._costs, self._loops = topology.rates, HloCosts(program), Loops(program)
        peak = peak_flops(self._rates.device_kind)
        assert peak is not None
        self._peak: float = peak
        self._asynchronous = self._channels_of("AsyncCollectiveStart")

    def of(self, computation: Computation) -> tuple[Event, ...]:
        """What happens while a computation runs.

        Raises:
          SeallmError: an operation that is not understood.
        """
        return tuple(event for instruction in computation.instructions for event in self._of(computation, instruction))

    def _of(self, here: Computation, it: Instruction) -> tuple[Event, ...]:
        opcode = it.opcode
        if opcode in _FREE:
            return ()
        if opcode == "async-update":
            offloaded = self._offloaded(here, it)
            return () if offloaded is None else (offloaded,)
        if opcode == "while":
            return (Repeat(self._loops.turns(here, it), self.of(self._loops.body(it))),)
        if opcode == "call":
            return self.of(self._program.computations[it.calls[0]])
        if opcode == "conditional":
            return (Choice(tuple(self.of(self._program.computations[name]) for name in it.calls)),)
        if opcode in _COPIES:
            return (self._copy(here, it),)
        if opcode == "custom-call":
            return self._custom_call(here, it)
        if opcode in ("send", "recv", "send-done", "recv-done"):
            return self._between_slices(here, it)
        if opcode.endswith("-done"):
            return (Wait(_started(here, it)),)
        if collective_kind(it):
            transfer = self._collective(here, it, it.name)
            return (transfer,) if opcode.endswith("-start") else (transfer, Wait(it.name))
        if opcode == "async-start":
            if _offloaded_kind(it):
                return ()  # it begins when it is given its operands
            found = self._costs.collective(self._program.computations[it.calls[0]])
            return (self._collective(*found, it.name),) if found else (self._copy(here, it),)
        if opcode == "fusion":
            return self._fusion(here, it)
        return self._work(here, it)

    def _fusion(self, here: Computation, it: Instruction) -> tuple[Event, ...]:
        """Work; or a collective, its beginning or its end; steps of a collective that has begun are part of work."""
        inside = self._program.computations[it.calls[0]]
        found = self._costs.collective(inside)
        if found is None:
            return self._work(here, it)
        targets = {i.attribute(r'\bcustom_call_target="(\w+)"') for i in inside.instructions}
        channel = _channel(found[1])
        if "AsyncCollectiveStart" in targets:
            return (self._collective(*found, f"channel {channel}"),)
        if "AsyncCollectiveDone" in targets:
            return (Wait(f"channel {channel}"),)
        if channel in self._asynchronous or self._costs.products(here, it).flops:
            return self._work(here, it)
        kind = "reduce-scatter" if "all-reduce-scatter" in inside.name else None
        return self._collective(*found, it.name, kind), Wait(it.name)

    def _work(self, here: Computation, it: Instruction) -> tuple[Event, ...]:
        products, estimate = self._costs.products(here, it), it.estimated_cycles
        if estimate is None and not products.flops and all(array.size <= 1 for array in it.results):
            return ()  # of the scalar core
        compiler = None if estimate is None else estimate / self._rates.clock_hz
        roofline = self._costs.hbm_bytes(here, it) / (MEMORY * self._rates.hbm_bytes)
        if products.flops:
            roofline = max(roofline, products.passes_flops / (MATRIX_UNITS * self._peak))
        elif compiler is not None:
            roofline = min(compiler, max(roofline, LEAST_SHARE * compiler))
        if not roofline and compiler is None:
            written = here.operand(it, 1).nbytes if it.opcode == "dynamic-update-slice" else it.nbytes
            if written <= _SMALL:
                return ()
            return (Unpriced(it.opcode),)
        part = self._part_of_product(it) if products.flops else self._part(it, "elementwise")
        return (Work(part, roofline, roofline if compiler is None else compiler, products.flops),)

    def _custom_call(self, here: Computation, it: Instruction) -> tuple[Event, ...]:
        target = it.attribute(r'\bcustom_call_target="([^"]*)"')
        if target in _FREE_CALLS:
            return ()
        if target != "tpu_custom_call":
            return self._work(here, it) if it.estimated_cycles is not None else (Unpriced(f"custom call {target}"),)
        call = kernel_call(here, it)
        seconds = self._kernel_seconds(call)
        if seconds is None:
            return (Unpriced(f"kernel {call.name}"),)
        named = [part for part in ("attention", "cross_entropy") if part in call.name]
        part = named[0] if named else self._part(it, "other_kernels")
        return (Work(part, seconds, seconds, call.flops),)

    def _collective(self, here: Computation, it: Instruction, key: str, kind: str | None = None) -> Transfer:
        kind = kind or collective_kind(it)
        assert kind is not None
        given = sum(here.by_name[name].nbytes for name in it.operands)
        links = self._interconnect
        if kind == "collective-permute":
            pairs = pairs_of(it)
            seconds, channels = links.permute_seconds(given, pairs), links.permute_directions(pairs)
        else:
            group = group_of(it, self._program.partitions)
            payload = given * len(group) if kind == "all-gather" else given
            seconds, channels = links.seconds(kind, payload, group), links.directions(group)
        return Transfer(key, f"exposed_{kind.replace('-', '_')}", channels, seconds)

    def _offloaded(self, here: Computation, it: Instruction) -> Transfer | None:
        """A collective that a SparseCore runs, if this gives it its operands. Its program is elsewhere; the two have
        the operands' size in common."""
        start = here.operand(it, 0)
        kind = _offloaded_kind(start)
        if kind is None:
            return None
        given = sum(here.by_name[name].nbytes for name in it.operands[1:])
        for computation in self._program.computations.values():
            root = computation.root
            if collective_kind(root) == kind and sum(computation.by_name[n].nbytes for n in root.operands) == given:
                return self._collective(computation, root, start.name, kind)
        raise SeallmError(f"the program of {start.name}, which a SparseCore runs, is not in the text")

    def _copy(self, here: Computation, it: Instruction) -> Transfer:
        """Between HBM and vector memory, or to or from the host."""
        arrays = [array for array in it.results if array.shape]
        if it.opcode == "dynamic-update-slice-start":
            nbytes = here.operand(it, 1).nbytes
        else:
            nbytes = min((array.nbytes for array in arrays), default=0)
        if not any(array.memory == HOST for array in arrays):
            return Transfer(it.name, "exposed_hbm_copies", ("memory",), nbytes / (MEMORY * self._rates.hbm_bytes))
        # the result of a copy comes first, that of a slice behind what it is taken from
        to_host = it.opcode == "dynamic-update-slice-start" or (it.opcode == "copy-start" and arrays[0].memory == HOST)
        seconds = nbytes / (HOST_LINK * self._rates.host_bytes)
        return Transfer(it.name, "exposed_host_transfers", ("to host" if to_host else "from host",), seconds, nbytes)

    def _between_slices(self, here: Computation, it: Instruction) -> tuple[Event, ...]:
        """The runtime between slices exchanges what is sent before it is received, so it is counted once, as sent."""
        kind = it.attribute(r'_xla_megascale_transfer_type="(\w+)"')
        if it.opcode.endswith("-done"):
            started = here.operand(it, 0)
            return (Wait(it.operands[0]),) if started.attribute(r"(_xla_megascale_transfer_type)") else ()
        if kind is None:
            return (Unpriced(it.opcode),)
        target = it.attribute(r'_xla_megascale_target="\{([^}]*)\}') or ""
        nbytes = it.results[0].nbytes
        if it.opcode == "recv" and kind != "ALL_GATHER" or it.opcode == "send" and kind == "ALL_GATHER":
            nbytes = 0  # a gathered array is larger than what each sends
        seconds = self._interconnect.network_seconds(kind, nbytes, _count(target))
        return (Transfer(it.name, "exposed_slice_transfers", ("network",), seconds),)

    def _part(self, it: Instruction, otherwise: str) -> str:
        """What an operation is for: what most of its instructions are for, if it is a fusion."""
        if it.opcode == "fusion":
            inside = self._program.computations[it.calls[0]].instructions
            votes = collections.Counter(self._purpose(inner) or otherwise for inner in inside if _is_named(inner))
            if votes:
                return votes.most_common(1)[0][0]
        return self._purpose(it) or otherwise

    def _part_of_product(self, it: Instruction) -> str:
        """What a matrix product is for, whatever is fused with it."""
        while it.opcode == "fusion":
            inside = self._program.computations[it.calls[0]]
            it = next(inner for inner in inside.instructions if self._costs.products(inside, inner).flops)
        return self._purpose(it) or "matmul"

    def _purpose(self, it: Instruction) -> str | None:
        """By the source files that the metadata of an instruction leads to, or by its name where there are none."""
        frame = it.attribute(r"\bstack_frame_id=(\d+)")
        sources = self._program.sources.get(int(frame)) if frame else None
        if sources is None:
            name = it.attribute(r'\bop_name="([^"]*)"') or ""
            return next((part for part, _ in _SOURCES if part in name), None)
        return next((part for part, path in _SOURCES if any(path in source for source in sources)), None)

    def _channels_of(self, target: str) -> set[str | None]:
        """Channels of collectives in computations that call `target`."""
        channels: set[str | None] = set()
        for computation in self._program.computations.values():
            if any(target in i.attributes for i in computation.instructions if i.opcode == "custom-call"):
                found = self._costs.collective(computation)
                if found is None:
                    raise SeallmError(f"{computation.name} of the program begins a collective that it does not name")
                channels.add(_channel(found[1]))
        return channels


_SOURCES = (
    ("cross_entropy", "/kernels/cross_entropy/"),
    ("attention", "/kernels/attention/"),
    ("optimizer", "/training/optimizer.py"),
    ("optimizer", "/optax/"),
)


def _is_named(it: Instruction) -> bool:
    return it.opcode not in _FREE and "op_name=" in it.attributes


def _channel(collective: Instruction) -> str | None:
    return collective.attribute(r"\bchannel_id=(\d+)")


def _started(here: Computation, done: Instruction) -> str:
    """The name of what an operation waits for."""
    source = here.operand(done, 0)
    while source.opcode in ("async-update", "get-tuple-element", "bitcast"):
        source = here.operand(source, 0)
    return source.name


def _offloaded_kind(start: Instruction) -> str | None:
    """The kind of collective that an `async-start` hands to a SparseCore; None for anything else."""
    if start.opcode != "async-start" or start.operands or '"OFFLOAD_COLLECTIVE"' not in start.attributes:
        return None
    return next((kind for kind in KINDS if start.name.startswith(kind)), None)


def _count(numbers: str) -> int:
    """How many are in a list such as 1,2,4:7."""
    total = 0
    for numbered in filter(None, numbers.split(",")):
        first, _, last = numbered.partition(":")
        total += int(last or first) - int(first) + 1
    return max(total, 1)
