"""What the TPU attention kernels share: blocks, masks and the scores of a tile.

Scores are kept transposed, keys x queries. What there is one of for each query (maximum, sum, first visible key) is
then a row vector: reductions run over sublanes, and the product with the values fills matrix units that are wider than
a head. They are in units of log 2, for the exponential that the hardware has.

Shape letters: B rows, T queries, S keys, H query heads, K key/value heads, D head size, t queries of a block, s keys of
a tile.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seallm_jax.kernels.attention.block_sizes import BlockSizes
from seallm_jax.kernels.attention.schedule import MASK_CAUSAL, MASK_START
from seallm_jax.kernels.precision import matmul_precision

MASKED = -1e30  # finite, so that the difference of two masked scores is not NaN
LOG2_E = math.log2(math.e)


@dataclasses.dataclass(frozen=True)
class Scores:
    """What is static about a call: the function of the scores, and the blocks.

    Attributes:
      scale: factor of the scores.
      soft_cap: cap * tanh(score / cap); 0 is none.
      alibi: whether slopes times distances are added.
      anchor: whether key 0 is visible to all queries.
      sizes: the blocks.
    """

    scale: float
    soft_cap: float
    alibi: bool
    anchor: bool
    sizes: BlockSizes


class Places(NamedTuple):
    """Where queries and keys lie in their row: in runs of equal length, one after another in the arrays.

    Attributes:
      queries: int32, position of the first query of each run.
      keys: int32, position of the first key of each run.
    """

    queries: jax.Array
    keys: jax.Array

    def of_blocks(self, T: int, S: int, block: int) -> tuple[jax.Array, jax.Array]:
        """Positions of the first query and of the first key of each block. Blocks divide the runs."""

        def firsts(runs: jax.Array, length: int) -> jax.Array:
            return (runs[:, None] + jnp.arange(0, length // len(runs), block, dtype=jnp.int32)).reshape(-1)

        return firsts(self.queries, T), firsts(self.keys, S)


def tiles(block: int, tile: int, causal: bool) -> list[tuple[Any, Any]]:
    """Tiles of keys and the queries that may see them: on the diagonal, none before the tile."""
    firsts = range(0, block, min(tile, block))
    return [(pl.ds(first, min(tile, block)), pl.ds(first * causal, block - first * causal)) for first in firsts]


def by_mask(flags, visit: Callable[[bool, bool], None]) -> None:
    """Calls `visit(causal, bounded)` for the masks that the step needs."""
    for causal in (False, True):
        for bounded in (False, True):
            wanted = MASK_CAUSAL * causal | MASK_START * bounded
            pl.when(flags & (MASK_CAUSAL | MASK_START) == wanted)(functools.partial(visit, causal, bounded))


def masked_scores(scores, q_txD, k_sxD, slope, first_query, first_key, start_1xt, causal: bool):
    """Scores in units of log 2, and their derivative by the scaled products where it is not 1.

    Args:
      first_query: its position in the row.
      first_key: its position in the row.
      start_1xt: position of the first visible key; None when all are.
      causal: whether some key comes after some query.
    """
    products_sxt, slope_sxt = dot(k_sxD, q_txD, (1, 1)), None
    if scores.soft_cap:
        capped_sxt = jnp.tanh(products_sxt * (scores.scale / scores.soft_cap))
        scores_sxt, slope_sxt = capped_sxt * (scores.soft_cap * LOG2_E), 1 - capped_sxt**2
    else:
        scores_sxt = products_sxt * (scores.scale * LOG2_E)
    if not (scores.alibi or causal or start_1xt is not None):
        return scores_sxt, slope_sxt
    keys_sxt = jax.lax.broadcasted_iota(jnp.int32, scores_sxt.shape, 0)
    queries_sxt = jax.lax.broadcasted_iota(jnp.int32, scores_sxt.shape, 1) + (first_query - first_key)
    if scores.alibi:
        scores_sxt += (LOG2_E * slope) * (keys_sxt - queries_sxt).astype(jnp.float32)
    if start_1xt is not None:
        start_1xt = start_1xt - first_key
        visible_sxt = keys_sxt >= start_1xt
        if scores.anchor:  # not for padding, which begins to see after itself
            visible_sxt |= (keys_sxt + first_key == 0) & (start_1xt <= queries_sxt)
        scores_sxt = jnp.where(visible_sxt, scores_sxt, MASKED)
    if causal:
        scores_sxt = jnp.where(keys_sxt <= queries_sxt, scores_sxt, MASKED)
    return scores_sxt, slope_sxt


def dot(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """float32 product of two matrices over one axis of each."""
    return jax.lax.dot_general(
        a,
        b,
        (((axes[0],), (axes[1],)), ((), ())),
        precision=matmul_precision(a.dtype),
        preferred_element_type=jnp.float32,
    )


def compiler_params(scores: Scores, dimensions: int) -> pltpu.CompilerParams:
    """Heads are independent, steps are not."""
    return pltpu.CompilerParams(
        dimension_semantics=[pltpu.PARALLEL] + [pltpu.ARBITRARY] * (dimensions - 1),
        vmem_limit_bytes=scores.sizes.vmem_bytes,
    )


def cost(q_BxHxTxD: jax.Array, k_BxKxSxD: jax.Array, *, products: int) -> pl.CostEstimate:
    """Of rows with one document: `products` matrix products for each pair of a query and a key that it sees."""
    B, H, T, D = q_BxHxTxD.shape
    pairs = B * H * (T * k_BxKxSxD.shape[2] + T) // 2
    nbytes = q_BxHxTxD.dtype.itemsize * (q_BxHxTxD.size + k_BxKxSxD.size) * (products if products > 2 else 2)
    return pl.CostEstimate(flops=2 * products * pairs * D, bytes_accessed=nbytes, transcendentals=pairs)
