"""Cycles of a TPU kernel, read from the instruction bundles that the compiler has scheduled.

The compiler writes the final bundles of each kernel as text: one bundle a cycle, with marks where a loop begins, where
a branch leaves and where it lands. A Pallas kernel is one loop over the steps of its grid. Part of its body runs in
every step, part below a `pl.when` only in some. Both are counted here; how often each runs, the caller knows. Bundles
do not tell when a matrix unit is still busy, so products are replayed against the time that each takes.

These are predictions: stalls of copies from and to HBM are not in them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.topology import RATES


@dataclasses.dataclass(frozen=True)
class Core:
    """What a bundle does not tell about a chip.

    Attributes:
      clock_hz: bundles in a second.
      flops_per_cycle: of all matrix units together, bfloat16.
      product_cycles: how long one matrix instruction keeps its unit busy, bfloat16 and float32.
      cores: of a device, which share the independent part of a kernel's grid.
    """

    clock_hz: float
    flops_per_cycle: int
    product_cycles: tuple[int, int]
    cores: int = 1


CORES = {
    "v5e": Core(RATES["v5e"].clock_hz, 131_072, (16, 8)),
    "v5p": Core(RATES["v5p"].clock_hz, 262_144, (16, 8), cores=2),
    "v6e": Core(RATES["v6e"].clock_hz, 524_288, (8, 4)),
}


@dataclasses.dataclass(frozen=True)
class KernelCycles:
    """Cycles of the parts of a kernel, each in the order of the program.

    Attributes:
      step: what every step of the grid pays.
      opening: regions without matrix products before the first one that has some.
      products: regions with matrix products.
      closing: the other regions.
    """

    step: int
    opening: tuple[int, ...]
    products: tuple[int, ...]
    closing: tuple[int, ...]

    def keep(self, opening: int, closing: int) -> KernelCycles:
        """The same with so many regions nearest to the products; others, which copy windows, are part of every step."""
        first = max(len(self.opening) - opening, 0)
        more = sum(self.opening[:first]) + sum(self.closing[closing:])
        return KernelCycles(self.step + more, self.opening[first:], self.products, self.closing[:closing])

    def total(self, steps: int, opening: Sequence[int], products: Sequence[int], closing: Sequence[int]) -> int:
        """Cycles of a call, given how often each part runs.

        Raises:
          ValueError: other numbers of regions than the kernel has.
        """
        counts = (tuple(opening), tuple(products), tuple(closing))
        parts = (self.opening, self.products, self.closing)
        if [len(count) for count in counts] != [len(part) for part in parts]:
            raise ValueError(f"counts {counts} for regions of {parts} cycles")
        runs = zip((n for count in counts for n in count), (c for part in parts for c in part), strict=True)
        return steps * self.step + sum(count * cycles for count, cycles in runs)


@dataclasses.dataclass
class _Region:
    first: int
    end: int
    inner: list[_Region] = dataclasses.field(default_factory=list)


_BUNDLE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(LH|LB|LE|PB|PF|CT)?\s*:")
_BRANCH = re.compile(
    r"sbr\.rel (?:\(!?%p\w+\) )?target(?: bundleno = \d+(?: \(0x[0-9a-f]+\))?)?(?:, region)? = \$region(\d+)"
)
_MARK = re.compile(r"(Start/End empty|Start) region (\d+)")
_PRODUCT = re.compile(r"\bvmatmul([a-z0-9.]*?)\.mxu(\d)")
_STORE = re.compile(r"\bvst\b")
_DELAY_SLOTS = 4  # bundles after a branch that run whether it is taken or not
_QUEUED = 2  # products that may wait at a matrix unit
_FEWEST_STORES = 8  # a region with fewer, such as the start of a copy, is counted as run in every step


def read_kernel(text: str, core: Core) -> KernelCycles:
    """The cycles of the kernel whose final bundles are `text`.

    Raises:
      SeallmError: the text has no loop, or no matrix product in a region of its own.
    """
    bundles, first_loop, end, branches = _grid_loop(text)
    regions = [
        _Region(i + 1 + _DELAY_SLOTS, target)
        for i, target in branches
        if first_loop <= i and i + 1 + _DELAY_SLOTS < target <= end
    ]
    loop = _Region(first_loop, end)
    for region in sorted(regions, key=lambda region: (region.first, -region.end)):
        parent = loop
        while parent.inner and parent.inner[-1].end >= region.end:
            parent = parent.inner[-1]
        parent.inner.append(region)

    leaves = _leaves(loop, bundles)
    has_products = [_PRODUCT.search("\n".join(bundles[leaf.first : leaf.end])) is not None for leaf in leaves]
    if True not in has_products:
        raise SeallmError("the compiler's bundles show no matrix product below a condition")
    cycles = [replay(bundles[leaf.first : leaf.end], core) for leaf in leaves]
    begin = has_products.index(True)
    after = range(begin, len(leaves))
    return KernelCycles(
        step=end - first_loop - sum(leaf.end - leaf.first for leaf in leaves),
        opening=tuple(cycles[:begin]),
        products=tuple(cycles[i] for i in after if has_products[i]),
        closing=tuple(cycles[i] for i in after if not has_products[i]),
    )


def read_step(text: str, core: Core) -> int:
    """The cycles of a step of a kernel that does the same in every step.

    What it does in some steps only, such as writing first zeros, is counted in each.

    Raises:
      SeallmError: the steps hold a loop, whose turns the bundles do not tell.
    """
    bundles, first, end, branches = _grid_loop(text)
    if any(first < target <= i for i, target in branches):
        raise SeallmError("the steps of the kernel hold a loop")
    return replay(bundles[first:end], core)


def replay(bundles: Sequence[str], core: Core) -> int:
    """Cycles of bundles that run one after another: a cycle each, and waiting for matrix units that are busy."""
    free: dict[str, int] = {}
    now = 0
    for bundle in bundles:
        now += 1
        for kind, unit in _PRODUCT.findall(bundle):
            busy = core.product_cycles[0 if "bf16" in kind else 1]
            now = max(now, free.get(unit, 0) - _QUEUED * busy)
            free[unit] = max(now, free.get(unit, 0)) + busy
    return max([now, *free.values()])


def _grid_loop(text: str) -> tuple[list[str], int, int, list[tuple[int, int]]]:
    """All bundles, the first of the loop over the grid, the end of that loop, and (bundle, target) of all branches."""
    bundles = _split(text)
    first_loop = next((i for i, bundle in enumerate(bundles) if _label(bundle) == "LB"), None)
    targets: dict[int, int] = {}
    for index, bundle in enumerate(bundles):
        for _, region in _MARK.findall(bundle):
            targets.setdefault(int(region), index)
    branches = [(i, targets.get(int(m[1]), -1)) for i, bundle in enumerate(bundles) for m in _BRANCH.finditer(bundle)]
    last_loop = max((i for i, target in branches if 0 <= target <= i), default=None)
    if first_loop is None or last_loop is None:
        raise SeallmError("the compiler's bundles show no loop over the steps of the kernel; is its grid one step?")
    return bundles, first_loop, last_loop + 1 + _DELAY_SLOTS, branches


def _split(text: str) -> list[str]:
    bundles: list[str] = []
    for line in text.splitlines():
        if _BUNDLE.match(line):
            bundles.append(line)
        elif bundles:
            bundles[-1] += "\n" + line
    return bundles


def _label(bundle: str) -> str | None:
    match = _BUNDLE.match(bundle)
    return match[1] if match else None


def _leaves(region: _Region, bundles: Sequence[str]) -> list[_Region]:
    """The innermost regions below `region` that do work."""
    found = []
    for inner in region.inner:
        below = _leaves(inner, bundles)
        text = "\n".join(bundles[inner.first : inner.end])
        if below:
            found += below
        elif _PRODUCT.search(text) or len(_STORE.findall(text)) >= _FEWEST_STORES:
            found.append(inner)
    return found
