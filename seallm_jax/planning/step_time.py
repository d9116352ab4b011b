"""The time of one step, predicted from the program that the TPU compiler made of it; no TPU is needed."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Sequence

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.hlo_events import Choice, Event, HloEvents, Repeat, Transfer, Unpriced, Wait, Work
from seallm_jax.planning.hlo_program import parse_hlo
from seallm_jax.planning.interconnect import Interconnect
from seallm_jax.planning.kernel_call import KernelCall
from seallm_jax.planning.topology import Topology

ERROR = (
    "on four published runs the method was off by -2 % to +14 %, mostly too slow, and two of them were fitted, "
    "so differences under 10 % are noise; contention of copies and links, launch gaps and throttling are not modelled"
)


@dataclasses.dataclass(frozen=True)
class StepTime:
    """A PREDICTION of one step on one device, in seconds; nothing was run.

    Attributes:
      seconds: the best guess: each operation takes the geometric mean of its roofline and the compiler's estimate.
      roofline_seconds: by the roofline: matrix units at 95 % of their peak, memory at 85 % of its bandwidth.
      compiler_seconds: by the compiler's estimates.
      parts: where `seconds` goes; they add up to it. `matmul`, `attention`, `cross_entropy` (with its matrix
        products), `optimizer`, `elementwise` (norms, rotations, copies, reductions and the like),
        `exposed_all_gather`, `exposed_all_reduce`, ... (collectives, by kind, that nothing hides), `exposed_hbm_copies`
        (waiting for copies between HBM and vector memory), `exposed_host_transfers`, `exposed_slice_transfers` (between
        slices), `other_kernels`. Parts that take no time are left out.
      hidden_collective_seconds: collectives that run behind other work.
      executed_flops: operations of matrix products, recomputation included; of kernels what they say themselves.
      host_bytes: moved between the device and its host.
      unpriced: operations that have no price and count as nothing: how often each kind runs.
      error: what is known of the method's error, in one sentence.
    """

    seconds: float
    roofline_seconds: float
    compiler_seconds: float
    parts: dict[str, float]
    hidden_collective_seconds: float
    executed_flops: float
    host_bytes: float
    unpriced: dict[str, int]
    error: str = ERROR


def predict_step_time(
    program_text: str,
    topology: Topology,
    kernel_seconds: Callable[[KernelCall], float | None],
    places: Sequence[tuple[int, ...]] | None = None,
) -> StepTime:
    """Replays a scheduled program in its order, with copies and collectives beside it.

    Args:
      program_text: what the TPU compiler made, see `hlo_program`.
      topology: the slice that it was compiled for.
      kernel_seconds: what a call of a Pallas kernel takes (`kernel_seconds.KernelSeconds`); None where it is not known.
      places: of each device of a slice in the order of the mesh, its coordinates (`interconnect.places_of`); by default
        devices follow each other along the last dimension first.

    Raises:
      UsageError: a generation whose rates are not known.
      SeallmError: text that is not understood, such as a loop whose turns are not known when it is compiled.
    """
    program = parse_hlo(program_text)
    events = HloEvents(program, topology, Interconnect(topology, places), kernel_seconds).of(program.entry)
    middle = _Replay(lambda work: math.sqrt(work.roofline * work.compiler))
    seconds = middle.run(events)
    return StepTime(
        seconds=seconds,
        roofline_seconds=_Replay(lambda work: work.roofline).run(events),
        compiler_seconds=_Replay(lambda work: work.compiler).run(events),
        parts=dict(sorted(middle.parts.items(), key=lambda part: -part[1])),
        hidden_collective_seconds=max(0.0, middle.collectives - middle.waiting_for_collectives),
        executed_flops=middle.flops,
        host_bytes=middle.host_bytes,
        unpriced=dict(middle.unpriced),
    )


class _Replay:
    """Runs events against the clock of the core, while transfers take their channels one after another.

    Attributes:
      parts: seconds of the core by part, waiting included; those that are 0 left out.
      collectives: seconds of collectives, hidden or not.
    """

    def __init__(self, price: Callable[[Work], float]) -> None:
        self._price = price
        self.parts: collections.defaultdict[str, float] = collections.defaultdict(float)
        self.unpriced: collections.Counter[str] = collections.Counter()
        self.collectives = self.waiting_for_collectives = self.flops = self.host_bytes = 0.0

    def run(self, events: Sequence[Event], times: int = 1) -> float:
        """Seconds of events that all begin when nothing is under way; what they are adds up `times` times."""
        now, free, pending = 0.0, dict[str, float](), dict[str, tuple[Transfer, float]]()
        for event in events:
            match event:
                case Work():
                    seconds = self._price(event)
                    now += seconds
                    self.parts[event.part] += seconds * times
                    self.flops += event.flops * times
                case Transfer():
                    end = max([now, *(free.get(channel, 0.0) for channel in event.channels)]) + event.seconds
                    free |= dict.fromkeys(event.channels, end)
                    pending[event.key] = event, end
                    self.collectives += event.seconds * times if _is_collective(event) else 0.0
                    self.host_bytes += event.host_bytes * times
                case Wait():
                    if event.key not in pending:
                        raise SeallmError(f"the program waits for {event.key}, which has not begun")
                    transfer, end = pending.pop(event.key)
                    waiting = max(0.0, end - now)
                    now += waiting
                    if waiting:
                        self.parts[transfer.part] += waiting * times
                    self.waiting_for_collectives += waiting * times if _is_collective(transfer) else 0.0
                case Repeat():
                    now += self.run(event.events, times * event.turns) * event.turns if event.turns else 0.0
                case Choice():
                    dearest = max(event.branches, key=_Replay(self._price).run)
                    now += self.run(dearest, times)
                case Unpriced():
                    self.unpriced[event.what] += times
        return now


def _is_collective(transfer: Transfer) -> bool:
    return any(channel.startswith(("links", "network")) for channel in transfer.channels)
