"""The kernels of linear cross-entropy on TPUs, in Pallas: statistics of the logits, and their gradient.

Each kernel works on a tile of logits while the matrix units make the next one, and reads a block of hidden states once
for all rows of the matrix. Statistics are made from transposed tiles: what there is one of for each hidden state
(maximum, sum, target) is then a row vector, and reductions run over sublanes. The gradient is written as the products
after it read it.

Shape letters: N hidden states, M hidden size, w rows of the matrix in memory, v rows of a block, n hidden states of a
block, t those of a tile.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from seallm_jax.kernels.cross_entropy.pieces import MASKED, Chunk, Cotangents, Pieces, Statistics
from seallm_jax.kernels.precision import matmul_precision


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Sizes of blocks.

    Attributes:
      matrix: v, rows of the matrix; a multiple of 128.
      hidden: n, hidden states; a multiple of the tile.
      tile: t, hidden states of a tile; a multiple of 128.
      vmem_bytes: vector memory that a kernel may use.
    """

    matrix: int
    hidden: int
    tile: int
    vmem_bytes: int


def tpu_statistics(pieces: Pieces, hidden_NxM: jax.Array, chunk: Chunk, targets_N: jax.Array) -> Statistics:
    """See `pieces.Pieces.statistics`; its options are `Blocks`."""
    blocks: Blocks = pieces.options
    N, M = hidden_NxM.shape
    rows = 4 if pieces.entropy else 3
    row = pl.BlockSpec((1, blocks.hidden), lambda i, j, *_: (0, i))
    outputs = pl.pallas_call(
        functools.partial(_statistics_kernel, pieces, chunk.size),
        grid_spec=_grid(blocks, N, M, chunk.size, [row], [row] * rows, (blocks.matrix, blocks.tile)),
        out_shape=[jax.ShapeDtypeStruct((1, N), jnp.float32)] * rows,
        compiler_params=_compiler_params(blocks, "parallel", "arbitrary"),
        cost_estimate=_cost(blocks, hidden_NxM, chunk, out_bytes=4 * rows * N),
        name="linear_cross_entropy_statistics",
    )(*_scalars(blocks, chunk), hidden_NxM, chunk.matrix, _own(targets_N, chunk)[None])
    maximum_N, total_N, at_target_N, *moment_N = (x[0] for x in outputs)
    return Statistics(maximum_N, total_N, at_target_N, moment_N[0] if moment_N else None)


def _statistics_kernel(pieces, size, first_block, limit, hidden_ref, matrix_ref, target_ref, *refs):
    maximum_ref, total_ref, at_target_ref, *moment_ref, logits_2xvxt = refs
    blocks: Blocks = pieces.options
    j = pl.program_id(1)

    @pl.when(j == 0)
    def _():
        maximum_ref[...] = jnp.full_like(maximum_ref, MASKED)
        for ref in refs[1:-1]:
            ref[...] = jnp.zeros_like(ref)

    def use(at, products_vxt):
        logits_vxt, _, ids_vxt = _capped(pieces, size, limit, j * blocks.matrix, products_vxt, 0)
        old_1xt = maximum_ref[:, at]
        new_1xt = jnp.maximum(old_1xt, logits_vxt.max(axis=0, keepdims=True))
        weights_vxt, shrink_1xt = jnp.exp(logits_vxt - new_1xt), jnp.exp(old_1xt - new_1xt)
        hit_vxt = ids_vxt == target_ref[:, at] - j * blocks.matrix
        maximum_ref[:, at] = new_1xt
        total_ref[:, at] = shrink_1xt * total_ref[:, at] + weights_vxt.sum(axis=0, keepdims=True)
        at_target_ref[:, at] += jnp.where(hit_vxt, logits_vxt, 0.0).sum(axis=0, keepdims=True)
        for ref in moment_ref:
            ref[:, at] = shrink_1xt * ref[:, at] + (weights_vxt * logits_vxt).sum(axis=0, keepdims=True)

    _by_tiles(blocks, hidden_ref, matrix_ref, logits_2xvxt, use, turned=True)


def tpu_d_logits(
    pieces: Pieces, hidden_NxM: jax.Array, chunk: Chunk, targets_N: jax.Array, cotangents: Cotangents
) -> jax.Array:
    """See `pieces.Pieces.d_logits`; its options are `Blocks`."""
    blocks: Blocks = pieces.options
    N, M = hidden_NxM.shape
    columns = [x[:, None] for x in (_own(targets_N, chunk), *cotangents) if x is not None]
    column = pl.BlockSpec((blocks.hidden, 1), lambda i, j, *_: (i, 0))
    out = pl.BlockSpec((blocks.hidden, blocks.matrix), lambda i, j, *_: (i, j))
    return pl.pallas_call(
        functools.partial(_d_logits_kernel, pieces, chunk.size),
        grid_spec=_grid(blocks, N, M, chunk.size, [column] * len(columns), out, (blocks.tile, blocks.matrix)),
        out_shape=jax.ShapeDtypeStruct((N, chunk.size), hidden_NxM.dtype),
        compiler_params=_compiler_params(blocks, "parallel", "parallel"),
        cost_estimate=_cost(blocks, hidden_NxM, chunk, out_bytes=chunk.size * N * hidden_NxM.dtype.itemsize),
        name="linear_cross_entropy_d_logits",
    )(*_scalars(blocks, chunk), hidden_NxM, chunk.matrix, *columns)


def _d_logits_kernel(pieces, size, first_block, limit, hidden_ref, matrix_ref, target_ref, *refs):
    logsumexp_ref, d_target_ref, factor_ref, *d_entropy_ref, out_ref, logits_2xtxv = refs
    first = pl.program_id(1) * pieces.options.matrix

    def use(at, products_txv):
        logits_txv, slope_txv, ids_txv = _capped(pieces, size, limit, first, products_txv, 1)
        factor_txv = factor_ref[at]
        for ref in d_entropy_ref:
            factor_txv = factor_txv - ref[at] * logits_txv
        d_logits_txv = factor_txv * jnp.exp(logits_txv - logsumexp_ref[at])
        d_logits_txv += jnp.where(ids_txv == target_ref[at] - first, d_target_ref[at], 0.0)
        if slope_txv is not None:
            d_logits_txv *= slope_txv
        out_ref[at] = d_logits_txv.astype(out_ref.dtype)

    _by_tiles(pieces.options, hidden_ref, matrix_ref, logits_2xtxv, use, turned=False)


def _by_tiles(blocks: Blocks, hidden_ref, matrix_ref, logits_ref, use: Callable[..., None], *, turned: bool) -> None:
    """`use(hidden states of the tile, products)` for each tile, behind the product of the next one.

    The products are [v, t] if `turned`, else [t, v].
    """
    tiles = blocks.hidden // blocks.tile
    matrix_vxM = matrix_ref[...].astype(hidden_ref.dtype)

    def at(tile):
        return pl.ds(pl.multiple_of(tile * blocks.tile, blocks.tile), blocks.tile)

    def product(tile):
        return jax.lax.dot_general(
            *((matrix_vxM, hidden_ref[at(tile)]) if turned else (hidden_ref[at(tile)], matrix_vxM)),
            (((1,), (1,)), ((), ())),
            precision=matmul_precision(hidden_ref.dtype),
            preferred_element_type=jnp.float32,
        )

    logits_ref[0] = product(0)

    def step(tile, _):
        logits_ref[(tile + 1) % 2] = product(tile + 1)
        use(at(tile), logits_ref[tile % 2])

    jax.lax.fori_loop(0, tiles - 1, step, None)
    use(at(tiles - 1), logits_ref[(tiles - 1) % 2])


def _capped(pieces: Pieces, size: int, limit, first, products, axis: int):
    """Logits, their derivative by the products where it is not 1, and the indices of their rows in the block.

    `axis` is that of the rows of the matrix, of which the block's first is `first` of the chunk.
    """
    logits, slope = products, None
    if pieces.soft_cap:
        bounded = jnp.tanh(products * (1 / pieces.soft_cap))
        logits, slope = pieces.soft_cap * bounded, 1 - bounded**2
    ids = jax.lax.broadcasted_iota(jnp.int32, logits.shape, axis)
    return jnp.where(ids < jnp.minimum(limit[0], size) - first, logits, MASKED), slope, ids


def _grid(blocks: Blocks, N: int, M: int, size: int, vectors, out_specs, tile) -> pltpu.PrefetchScalarGridSpec:
    """Blocks of hidden states; within them, blocks of the matrix."""
    return pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(N // blocks.hidden, pl.cdiv(size, blocks.matrix)),
        in_specs=[
            pl.BlockSpec((blocks.hidden, M), lambda i, j, *_: (i, 0)),
            pl.BlockSpec((blocks.matrix, M), lambda i, j, first_block, *_: (first_block[0] + j, 0)),
            *vectors,
        ],
        out_specs=out_specs,
        scratch_shapes=[pltpu.VMEM((2, *tile), jnp.float32)],
    )


def _own(targets_N: jax.Array, chunk: Chunk) -> jax.Array:
    """-1 for targets behind the chunk, which its last block may reach beyond."""
    return jnp.where(targets_N < chunk.size, targets_N, -1)


def _scalars(blocks: Blocks, chunk: Chunk) -> tuple[jax.Array, jax.Array]:
    return (chunk.start // blocks.matrix)[None], chunk.limit[None]


def _compiler_params(blocks: Blocks, *dimensions: Literal["parallel", "arbitrary"]) -> pltpu.CompilerParams:
    return pltpu.CompilerParams(dimension_semantics=dimensions, vmem_limit_bytes=blocks.vmem_bytes)


def _cost(blocks: Blocks, hidden_NxM: jax.Array, chunk: Chunk, *, out_bytes: int) -> pl.CostEstimate:
    """One product; the matrix is read once for each block of hidden states."""
    N, M = hidden_NxM.shape
    read = hidden_NxM.nbytes + N // blocks.hidden * chunk.size * M * chunk.matrix.dtype.itemsize
    return pl.CostEstimate(
        flops=2 * N * M * chunk.size, bytes_accessed=read + out_bytes, transcendentals=N * chunk.size
    )
