"""From stages to weights: mixtures, epoch caps and transitions become one piecewise-constant integer schedule."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Sequence

import numpy as np

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import StageConfig
from seallm_jax.data.batch_plan import BatchPlan
from seallm_jax.data.schedule import WeightSchedule, quantize, scale_bits, spread
from seallm_jax.data.source import Source

TRANSITION_BLOCKS = 256


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """A stage after resolution.

    Attributes:
      name: the stage's name.
      start, stop: its rows.
      notes: what differs from the configuration, in words.
      batch_rows: rows of its steps.
    """

    name: str
    start: int
    stop: int
    notes: tuple[str, ...]
    batch_rows: int


def resolve_mixture(
    stages: Sequence[StageConfig], sources: Sequence[Source], *, sequence_length: int, batch_rows: int
) -> tuple[WeightSchedule, tuple[StagePlan, ...]]:
    """Resolves a curriculum to integer weights of every source at every row.

    Stage s ends at row floor(tokens of the stages up to s / sequence_length). A transition of X rows is cut into
    min(256, X / batch_rows, rounded up) blocks of equal length, each with the weights that its middle row should have.
    Epoch caps hold at the end of a stage, for all rows served since the beginning of the first. Last, the whole
    schedule is cut to whole batches: of `batch_rows`, or of the stage's own.

    Raises:
      SeallmError: no source has rows, a mixture without sources, a stage below one row or a total below one batch.
    """
    if not stages:
        raise SeallmError("the curriculum has no stages; give it at least one in config.<stage>.curriculum")
    if not any(source.rows > 0 for source in sources):
        raise SeallmError(f"no source has a row of {sequence_length} tokens; pack more text or shorten sequence_length")
    ends = np.cumsum([stage.tokens for stage in stages]) // sequence_length
    scale = 1 << scale_bits(int(ends[-1]))
    quotas = [0] * len(sources)
    previous: list[float] | None = None
    segments: list[tuple[int, list[int]]] = []
    plans = []
    start = 0
    for stage, rows in zip(stages, np.diff(ends, prepend=0).tolist(), strict=True):
        if rows == 0:
            raise SeallmError(
                f"stage {stage.name!r} has {stage.tokens} tokens, less than one row of {sequence_length}; raise tokens"
            )
        size = stage.batch_rows or batch_rows
        resolver = _StageResolver(stage, sources, rows, sequence_length, size, scale, quotas, previous)
        resolved = resolver.resolve()
        segments += resolved
        stop = start + sum(length for length, _ in resolved)
        plans.append(StagePlan(stage.name, start, stop, tuple(resolver.notes), size))
        start = stop
        if resolved:
            previous = [weight / scale for weight in resolved[-1][1]]
        for length, weights in resolved:
            quotas = [quota + length * weight for quota, weight in zip(quotas, weights, strict=True)]
    total = BatchPlan.of([plan.stop for plan in plans], [plan.batch_rows for plan in plans]).total_rows
    if total == 0:
        raise SeallmError(
            f"the curriculum has {start} rows of {sequence_length} tokens, less than one batch of {size} rows; "
            "raise the tokens of its stages (or maximum_epochs), or lower batch_rows"
        )
    plans = [dataclasses.replace(p, start=min(p.start, total), stop=min(p.stop, total)) for p in plans]
    starts = np.cumsum([0, *(length for length, _ in segments)])
    kept = int(np.searchsorted(starts, total, side="left"))
    table = np.array([weights for _, weights in segments[:kept]], np.int64)
    return WeightSchedule(np.append(starts[:kept], total).astype(np.int64), table, scale), tuple(plans)


def base_shares(stage: StageConfig, sources: Sequence[Source]) -> tuple[list[float], list[str]]:
    """Shares of the sources, summing to 1, before epoch caps; and notes.

    Raises:
      SeallmError: no source with rows has a weight, or weights are given to a mixture that takes none.
    """
    sizes = [source.rows for source in sources]
    notes: list[str] = []
    if stage.mixture in ("explicit", "group_uniform"):
        raw = _grouped(stage, sources, notes)
    elif stage.weights:
        raise SeallmError(
            f"stage {stage.name!r} has weights, which a {stage.mixture} mixture does not use; make it explicit or "
            "group_uniform"
        )
    else:
        alpha = {"proportional": 1.0, "temperature": stage.alpha, "unimax": 0.0}[stage.mixture]
        raw = [_power(size, alpha) for size in sizes]
    total = math.fsum(raw)
    return [share / total for share in raw], notes


def fill(shares: Sequence[float], limits: Sequence[float]) -> tuple[list[float], set[int]]:
    """Scales `shares` to sum to 1 with none above its limit: what a capped source cannot take goes to the others.

    With equal shares this is UniMax (arXiv 2304.09151). Returns the shares, which sum to less than 1 only when all
    sources are at their limit, and the set of sources at their limit.
    """
    capped: set[int] = set()
    while True:
        free = [i for i, share in enumerate(shares) if share > 0 and i not in capped]
        left = 1.0 - math.fsum(limits[i] for i in capped)
        total = math.fsum(shares[i] for i in free)
        over = {i for i in free if shares[i] * left >= limits[i] * total * (1 - 1e-12)}
        if not over:
            break
        capped |= over
    result = [
        limits[i] if i in capped else share * left / total if share > 0 else 0.0 for i, share in enumerate(shares)
    ]
    return result, capped


def _grouped(stage: StageConfig, sources: Sequence[Source], notes: list[str]) -> list[float]:
    alpha = stage.alpha if stage.mixture == "explicit" else 0.0
    members: dict[str, list[int]] = {key: [] for key in stage.weights}
    for index, source in enumerate(sources):
        key = _key_of(source.name, stage.weights)
        if key is not None and source.rows > 0:
            members[key].append(index)
    raw = [0.0] * len(sources)
    for key, indices in members.items():
        share = stage.weights[key]
        if share > 0 and not indices:
            notes.append(f"{key} matches no source with rows: its share {share:g} is spread over the others")
        powers = [_power(sources[i].rows, alpha) for i in indices]
        for i, power in zip(indices, powers, strict=True):
            raw[i] = share * power / math.fsum(powers)
    if not any(raw):
        keys = "; ".join(key for key, share in stage.weights.items() if share > 0) or "(no positive weight)"
        names = ", ".join(source.name for source in sources if source.rows > 0)
        raise SeallmError(f"stage {stage.name!r}: {keys} matches no source with rows; there are {names}")
    return raw


def _key_of(name: str, keys: Iterable[str]) -> str | None:
    """The key that lists this very name, else the one with the longest matching pattern (of equals, the first)."""
    best, best_length = None, -1
    for key in keys:
        for pattern in (part.strip() for part in key.split(",")):
            if pattern == name:
                return key
            if len(pattern) > best_length and fnmatch.fnmatchcase(name, pattern):
                best, best_length = key, len(pattern)
    return best


def _power(size: int, alpha: float) -> float:
    return float(size) ** alpha if size > 0 else 0.0


@dataclasses.dataclass
class _StageResolver:
    """Weights of one stage, given what was served before it."""

    stage: StageConfig
    sources: Sequence[Source]
    rows: int
    sequence_length: int
    batch_rows: int
    scale: int
    quotas: list[int]
    previous: list[float] | None
    notes: list[str] = dataclasses.field(default_factory=list)

    def resolve(self) -> list[tuple[int, list[int]]]:
        """(rows, integer weights) of each segment; empty when every source is exhausted already."""
        stage = self.stage
        new, notes = base_shares(stage, self.sources)
        self.notes += notes
        if stage.replay and self.previous is None:
            self.notes.append("no stage comes before this one: there is nothing to replay")
        elif self.previous is not None:
            new = [share + stage.replay * (old - share) for share, old in zip(new, self.previous, strict=True)]
        limits = self._limits()
        moving = 0
        if stage.transition != "step":
            moving = min(stage.transition_tokens // self.sequence_length, self.rows)
            if self.previous is None and moving:
                self.notes.append("no stage comes before this one: its transition is left out")
                moving = 0
        rows, old = self.rows, self.previous or new
        while True:  # until the budget has shrunk to what the caps allow
            blocks = self._blocks(min(moving, rows))
            ageing = math.fsum(length * (1 - progress) for length, progress in blocks)  # rows' worth of the old mixture
            old_shares, shares, capped = self._shares(old, new, limits, rows, ageing)
            reach = self._reach(limits, rows, new, old_shares, ageing)
            if reach >= rows:
                break
            rows = reach
            if rows == 0:
                break
        if rows < self.rows:
            self.notes.append(
                f"every source reached {stage.maximum_epochs:g} epochs: the budget shrank from "
                f"{self.rows * self.sequence_length} to {rows * self.sequence_length} tokens"
            )
        if rows == 0:
            return []
        self._note_caps(old, new, old_shares, shares, capped, rows, ageing)
        return self._segments(blocks, rows, old_shares, shares, capped, limits)

    def _limits(self) -> list[int | None]:
        """Quota, in units of 1 / scale rows, that each source may still take; None without a cap."""
        if not self.stage.maximum_epochs:
            return [None] * len(self.sources)
        allowed = [math.floor(self.stage.maximum_epochs * source.rows) * self.scale for source in self.sources]
        return [max(limit - quota, 0) for limit, quota in zip(allowed, self.quotas, strict=True)]

    def _blocks(self, moving: int) -> list[tuple[int, float]]:
        """(rows, progress from the old mixture to the new in 0 .. 1) of each block of a transition of `moving` rows."""
        count = min(TRANSITION_BLOCKS, -(-moving // self.batch_rows))
        blocks = []
        for block in range(count):
            length = moving * (block + 1) // count - moving * block // count
            middle = (block + 0.5) / count
            progress = middle if self.stage.transition == "linear" else 0.5 - 0.5 * math.cos(math.pi * middle)
            blocks.append((length, progress))
        return blocks

    def _shares(self, old, new, limits, rows, ageing) -> tuple[list[float], list[float], set[int]]:
        """Old and new shares within the caps, and the sources at their cap."""
        caps = [math.inf if limit is None else limit / self.scale for limit in limits]
        capped: set[int] = set()
        if ageing:
            old, capped = fill(old, [cap / ageing for cap in caps])
            lacking = 1 - math.fsum(old)
            if lacking > 1e-9:
                more, _ = fill(new, [(cap / ageing - share) / lacking for cap, share in zip(caps, old, strict=True)])
                old = [share + extra * lacking for share, extra in zip(old, more, strict=True)]
        if rows - ageing <= 0:
            return old, new, capped
        left = [max(cap - share * ageing, 0) / (rows - ageing) for cap, share in zip(caps, old, strict=True)]
        new, at_limit = fill(new, left)
        return old, new, capped | at_limit

    def _reach(self, limits, rows, new, old_shares, ageing) -> int:
        """Rows that the sources of this stage can fill, at most `rows`."""
        total = 0
        for limit, share, old_share in zip(limits, new, old_shares, strict=True):
            if share > 0 and limit is None:
                return rows
            if share > 0:
                total += limit
            elif old_share > 0 and ageing:
                total += int(old_share * ageing * self.scale)
        reach = total // self.scale
        if reach >= rows:
            return rows
        return max(reach - 1, 0) if ageing else reach  # a row of slack, because blocks are not exact

    def _segments(self, blocks, rows, old_shares, shares, capped, limits) -> list[tuple[int, list[int]]]:
        segments = []
        for length, progress in blocks:
            mixed = [(1 - progress) * a + progress * b for a, b in zip(old_shares, shares, strict=True)]
            segments.append((length, quantize(mixed, self.scale, capped=frozenset(capped))))
        tail = rows - sum(length for length, _ in segments)
        if not tail:
            return segments
        if not capped:
            return [*segments, (tail, quantize(shares, self.scale))]
        totals = [int(share * self.scale) * tail for share in shares]
        for i in capped:  # exactly the cap
            limit = limits[i]
            assert limit is not None
            totals[i] = max(limit - sum(length * weights[i] for length, weights in segments), 0) if shares[i] > 0 else 0
        free = [i for i, share in enumerate(shares) if share > 0 and i not in capped]
        largest = max(free or range(len(totals)), key=lambda i: totals[i])
        totals[largest] += tail * self.scale - sum(totals)
        return segments + spread(totals, tail)

    def _note_caps(self, old, new, old_shares, shares, capped, rows, ageing) -> None:
        for i in sorted(capped):
            wanted = old[i] * ageing + new[i] * (rows - ageing)
            got = old_shares[i] * ageing + shares[i] * (rows - ageing)
            if wanted - got > 1e-6 * rows:
                self.notes.append(
                    f"{self.sources[i].name} is capped at {self.stage.maximum_epochs:g} epochs: "
                    f"{(wanted - got) / rows:.2%} of the stage's tokens went to the other sources"
                )
