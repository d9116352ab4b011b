"""Which blocks of a packed batch have work: the list of steps that the TPU kernels walk.

Documents lie one after another in a row, so what a query sees is one range of keys, from `start` to itself, and the
starts never fall along a row. Whether a block of queries sees a block of keys is then known from the positions of the
blocks, which need not follow each other: a device may hold any parts of a row.

Letters: B rows, T queries, S keys, Q and K blocks of them, N pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

MASK_CAUSAL, MASK_START, FIRST, LAST, INNER_FIRST, INNER_LAST = 1, 2, 4, 8, 16, 32  # bits of `flags`
FLAG_BITS = 6


class Steps(NamedTuple):
    """Pairs of blocks in the order of their visit. Entries from `total` on mean nothing.

    Attributes:
      rows: int32 [N], row of each pair.
      outer: int32 [N], block that stays while `inner` passes: queries in a query-major list, keys in a key-major one.
      inner: int32 [N], the block of the other kind.
      flags: int32 [N], MASK_CAUSAL where some key comes after some query, MASK_START where some key lies before what
        some query sees, FIRST and LAST at the ends of an outer block, INNER_FIRST and INNER_LAST at the first and the
        last visit of an inner block.
      total: int32 scalar, pairs that have work.
    """

    rows: jax.Array
    outer: jax.Array
    inner: jax.Array
    flags: jax.Array
    total: jax.Array


def first_visible(segment_ids_BxT: jax.Array, window: int | jax.Array | None = None) -> jax.Array:
    """int32 [B, T], the first key that each query sees: the start of its document, or of the sliding window.

    Padding (segment 0) gets its own index + 1, so that it sees nothing. Never falls along a row.
    """
    index_T = jnp.arange(segment_ids_BxT.shape[1], dtype=jnp.int32)
    changed_BxT = jnp.diff(segment_ids_BxT, axis=1, prepend=segment_ids_BxT[:, :1] - 1) != 0
    start_BxT = jax.lax.cummax(jnp.where(changed_BxT, index_T, 0), axis=1)
    if window is not None:
        start_BxT = jnp.maximum(start_BxT, index_T - window + 1)
    return jnp.where(segment_ids_BxT == 0, index_T + 1, start_BxT).astype(jnp.int32)


def list_steps(
    start_BxT: jax.Array,
    query_positions_Q: jax.Array,
    key_positions_K: jax.Array,
    block: int,
    *,
    anchor: bool = False,
    key_major: bool = False,
    most: int | None = None,
) -> Steps:
    """All pairs of a block of queries and a block of keys that it sees, and at least one pair for every block.

    Args:
      start_BxT: `first_visible`, as a position in the row.
      query_positions_Q: int32, position in the row of the first query of each block; a multiple of `block`.
      key_positions_K: int32, the same for keys.
      block: positions in a block of either kind.
      anchor: whether queries also see position 0, whatever their start.
      key_major: keys are the outer blocks.
      most: pairs of a row that the list has room for; all by default, and `most_pairs` are always enough.
    """
    lowest_BxQ, highest_BxQ = start_BxT[:, ::block], start_BxT[:, block - 1 :: block]
    visible_BxQxK = key_positions_K + block > lowest_BxQ[:, :, None]
    if anchor:
        visible_BxQxK |= key_positions_K == 0
    visible_BxQxK &= key_positions_K <= query_positions_Q[:, None]
    # a block without work is visited once, wholly masked, so that its zeros are written
    idle_BxQx1 = ~visible_BxQxK.any(axis=2, keepdims=True)
    visible_BxQxK |= idle_BxQx1 & (jnp.arange(len(key_positions_K)) == 0)
    idle_Bx1xK = ~visible_BxQxK.any(axis=1, keepdims=True)
    visible_BxQxK |= idle_Bx1xK & (jnp.arange(len(query_positions_Q)) == 0)[:, None]

    causal_QxK = key_positions_K >= query_positions_Q[:, None]
    bounded_BxQxK = highest_BxQ[:, :, None] > key_positions_K
    flags = MASK_CAUSAL * causal_QxK | MASK_START * bounded_BxQxK
    if key_major:
        visible_BxQxK, flags = visible_BxQxK.swapaxes(1, 2), flags.swapaxes(1, 2)
    for axis, first, last in ((2, FIRST, LAST), (1, INNER_FIRST, INNER_LAST)):
        seen = jnp.cumsum(visible_BxQxK, axis=axis)
        flags |= first * (seen == 1) | last * (seen == visible_BxQxK.sum(axis=axis, keepdims=True))
    size = visible_BxQxK.size if most is None else visible_BxQxK.shape[0] * most
    rows, outer, inner = jnp.nonzero(visible_BxQxK, size=size)
    listed = (rows, outer, inner, flags[rows, outer, inner], visible_BxQxK.sum())
    return Steps(*(array.astype(jnp.int32) for array in listed))


def most_pairs(query_blocks: int, key_blocks: int, *, same: bool) -> int:
    """Pairs of a row that a list can hold at most; `same` where queries and keys are at the same positions."""
    # a block of keys that nobody sees, and that is visited once, leaves out its pair on the diagonal
    return query_blocks * (query_blocks + 1) // 2 if same else query_blocks * key_blocks
