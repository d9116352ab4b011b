"""The walk of the TPU kernels along a list of block pairs: its grid, and the blocks of each step.

Shape letters are those of `tpu_scores.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seallm_jax.kernels.attention.schedule import FLAG_BITS, Steps, list_steps, most_pairs
from seallm_jax.kernels.attention.tpu_scores import Places


class Scalars(NamedTuple):
    """What the steps of a kernel go by: the list, one word a step, positions of the blocks, and ALiBi slopes."""

    steps: Any
    query_positions: Any
    key_positions: Any
    slopes: Any


class Step(NamedTuple):
    """One step of the list (`schedule.Steps`)."""

    row: Any
    outer: Any
    inner: Any
    flags: Any


@dataclasses.dataclass(frozen=True)
class Packing:
    """How the fields of a step share a word: scalar memory is small, and the list of a long row is long.

    Attributes:
      widths: bits of flags, inner block, outer block and row, from the lowest bit on.
    """

    widths: tuple[int, ...]

    @classmethod
    def of(cls, rows: int, outer: int, inner: int) -> Packing:
        """For so many rows and blocks. Raises ValueError where a word is too short."""
        widths = (FLAG_BITS, *((count - 1).bit_length() for count in (inner, outer, rows)))
        if sum(widths) > 32:
            raise ValueError(f"{rows} rows of {outer} and {inner} blocks are too many for one list of steps")
        return cls(widths)

    def pack(self, steps: Steps) -> jax.Array:
        """uint32 [N] as int32."""
        words, shift = jnp.zeros_like(steps.flags), 0
        for field, width in zip((steps.flags, steps.inner, steps.outer, steps.rows), self.widths, strict=True):
            if width:
                words |= field << shift
            shift += width
        return words

    def read(self, words: Any, n: Any) -> Step:
        """The step `n` of a list."""
        word, shift, fields = words[n], 0, []
        for width in self.widths:
            field = jax.lax.shift_right_logical(word, jnp.int32(shift)) if shift and width else word
            fields.append(field & (1 << width) - 1 if shift + width < 32 else field)
            shift += width
        flags, inner, outer, row = fields
        return Step(row, outer, inner, flags)


class Blocks(NamedTuple):
    """What a step reads or writes: of queries [block, D], of keys [block, D], the same turned [D, block], of the first
    visible keys [1, block], and of what else there is one of for each query [1, block].
    """

    query: pl.BlockSpec
    key: pl.BlockSpec
    turned_key: pl.BlockSpec
    start: pl.BlockSpec
    statistic: pl.BlockSpec


class Walk(NamedTuple):
    """Attributes:
    packing: of the list.
    scalars: the arrays, to be passed before all others.
    grid: query heads and steps; for a key-major walk key/value heads, steps and the query heads of each.
    blocks: of a step.
    """

    packing: Packing
    scalars: Scalars
    grid: tuple[Any, ...]
    blocks: Blocks

    def grid_spec(self, in_specs, out_specs, scratch_shapes) -> pltpu.PrefetchScalarGridSpec:
        """The grid of a kernel that gets the scalars first."""
        return pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(self.scalars),
            grid=self.grid,
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=scratch_shapes,
        )


def plan_walk(
    q_BxHxTxD: jax.Array,
    k_BxKxSxD: jax.Array,
    start_BxT: jax.Array,
    slopes_H: jax.Array,
    places: Places,
    block: int,
    *,
    anchor: bool,
    key_major: bool = False,
) -> Walk:
    """The walk over all blocks of `block` positions that see each other.

    Args:
      key_major: keys are the outer blocks, and each pair takes a step for every query head of its key/value head.
      The others are those of `tpu_forward` and of `schedule.list_steps`.
    """
    (B, H, T, D), (K, S) = q_BxHxTxD.shape, k_BxKxSxD.shape[1:3]
    G = H // K
    query_positions, key_positions = places.of_blocks(T, S, block)
    Q, n_keys = T // block, S // block
    most = most_pairs(Q, n_keys, same=T == S and len(places.queries) == len(places.keys) == 1)
    steps = list_steps(start_BxT, query_positions, key_positions, block, anchor=anchor, key_major=key_major, most=most)
    packing = Packing.of(B, *((n_keys, Q) if key_major else (Q, n_keys)))

    def spec(shape: tuple[int, ...], index: Callable[..., Any]) -> pl.BlockSpec:
        """`index` is of the row, the heads of queries and of keys, and the blocks of queries and of keys."""

        def of_queries_first(h, n, steps, *_):
            row, i, j, _ = packing.read(steps, n)
            return index(row, h, h // G, i, j)

        def of_keys_first(k, n, g, steps, *_):
            row, j, i, _ = packing.read(steps, n)
            return index(row, k * G + g, k, i, j)

        return pl.BlockSpec(shape, of_keys_first if key_major else of_queries_first)

    blocks = Blocks(
        query=spec((1, 1, block, D), lambda row, h, k, i, j: (row, h, i, 0)),
        key=spec((1, 1, block, D), lambda row, h, k, i, j: (row, k, j, 0)),
        turned_key=spec((1, 1, D, block), lambda row, h, k, i, j: (row, k, 0, j)),
        start=spec((1, 1, block), lambda row, h, k, i, j: (row, 0, i)),
        statistic=spec((1, 1, 1, block), lambda row, h, k, i, j: (row, h, 0, i)),
    )
    grid = (K, steps.total, G) if key_major else (H, steps.total)
    return Walk(packing, Scalars(packing.pack(steps), query_positions, key_positions, slopes_H), grid, blocks)
