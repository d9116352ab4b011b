"""Linear cross-entropy on TPUs: kernels for the logits and their gradient, XLA for the two products after it."""

from __future__ import annotations

import math

import jax

from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.cross_entropy.pieces import Pieces, log_probability, rows_sharding
from seallm_jax.kernels.cross_entropy.result import TokenLogProbability
from seallm_jax.kernels.cross_entropy.tpu_kernels import Blocks, tpu_d_logits, tpu_statistics
from seallm_jax.kernels.selection import device_of
from seallm_jax.kernels.vector_memory import vector_memory

CHUNK = 4096  # columns of the gradient of the logits in memory at a time


def pallas_tpu_log_probability(
    hidden_BxTxM: jax.Array,
    output_VxM: jax.Array,
    targets_BxT: jax.Array,
    *,
    logical_size: int,
    soft_cap: float = 0.0,
    entropy: bool = False,
    mesh: jax.sharding.Mesh | None = None,
    rules: ShardingRules = ShardingRules(),
    chunk: int = CHUNK,
    blocks: Blocks | None = None,
) -> TokenLogProbability:
    """See `seallm_jax.kernels.cross_entropy.api.linear_log_probability`, which asks `obstacle_to_pallas` first.

    Args:
      chunk: columns of the gradient of the logits in memory at a time; a multiple of the blocks' rows of the matrix.
      blocks: instead of those that fit into the device's vector memory.
    """
    if blocks is None:
        rows = _local_rows(hidden_BxTxM, mesh, rules)
        itemsizes = hidden_BxTxM.dtype.itemsize, output_VxM.dtype.itemsize
        blocks = choose_blocks(device_of(mesh).device_kind, rows, hidden_BxTxM.shape[-1], *itemsizes)
    pieces = Pieces(logical_size, soft_cap, entropy, tpu_statistics, tpu_d_logits, 0, chunk, mesh, rules, blocks)
    return log_probability(pieces, hidden_BxTxM, output_VxM, targets_BxT)


def choose_blocks(device_kind: str, rows: int, hidden_size: int, itemsize: int, matrix_itemsize: int) -> Blocks:
    """The largest blocks that fit into vector memory: hidden states first, which decide how often the matrix is read.

    Args:
      device_kind: `jax.Device.device_kind`.
      rows: hidden states on a device; a multiple of 128.
      hidden_size: their size.
      itemsize: bytes of a number of the hidden states.
      matrix_itemsize: of the matrix.
    """
    budget = vector_memory(device_kind).beside_products
    for hidden in (1024, 512, 256, 128):
        for matrix in (256, 128):
            tile = min(512, hidden)
            inputs = 2 * hidden_size * (hidden * itemsize + matrix * matrix_itemsize)
            cast = hidden_size * matrix * itemsize if matrix_itemsize != itemsize else 0
            rest = matrix * (2 * hidden * itemsize + 6 * tile * 4) + 8 * hidden * 512
            fits = inputs + cast + rest < 0.8 * budget  # leaves the compiler some room
            if rows % hidden == 0 and (fits or hidden == matrix == 128):
                return Blocks(matrix, hidden, tile, budget)
    raise AssertionError("rows are a multiple of 128")


def obstacle_to_pallas(hidden_BxTxM: jax.Array, mesh: jax.sharding.Mesh | None, rules: ShardingRules) -> str | None:
    """Why the kernels cannot serve a call; None when they can."""
    rows, M = _local_rows(hidden_BxTxM, mesh, rules), hidden_BxTxM.shape[-1]
    if rows % 128:
        return f"a device has {rows} tokens, which is no multiple of 128"
    if M % 128:
        return f"the hidden size is {M}, which is no multiple of 128"
    return None


def _local_rows(hidden_BxTxM: jax.Array, mesh: jax.sharding.Mesh | None, rules: ShardingRules) -> int:
    leading = hidden_BxTxM.shape[:-1]
    if mesh is not None:
        leading = rows_sharding(mesh, rules, leading).shard_shape(leading)
    return math.prod(leading)
