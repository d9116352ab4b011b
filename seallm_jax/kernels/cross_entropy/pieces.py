"""Linear cross-entropy from pieces of the vocabulary: chunks of it on each device, and a part of it per device.

The forward pass merges the statistics of the pieces; the backward pass asks for the gradient of the logits of one chunk
after another and multiplies it with the chunk and with the hidden states. An implementation is how the statistics and
the gradient of a chunk are computed. A matrix whose columns are split over the devices that also split the rows (fully
sharded data parallelism) is gathered, and its gradient is scattered, chunk by chunk.

Shape letters: N rows of hidden states on a device, M hidden size, V rows of the matrix, w those on a device, v of a
chunk.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seallm_jax.core.sharding import MeshAxes, ShardingRules
from seallm_jax.kernels.cross_entropy.result import TokenLogProbability
from seallm_jax.kernels.precision import matmul_precision
from seallm_jax.kernels.selection import device_of

MASKED = -1e30  # the logit of padding; finite, so that the difference of two is not NaN


class Chunk(NamedTuple):
    """Some rows of the matrix.

    Attributes:
      matrix: [w or v, M], which holds them.
      start: index of the first of them, an int32 scalar.
      size: v, how many; static.
      limit: int32 scalar; those from here on, counted from the first, are padding.
    """

    matrix: jax.Array
    start: jax.Array
    size: int
    limit: jax.Array


class Statistics(NamedTuple):
    """Of the logits of each row over a piece of the vocabulary, float32 [N].

    Attributes:
      maximum: the largest logit.
      total: sum of exp(logit - maximum).
      at_target: logit of the target; 0 where the piece does not hold it.
      moment: sum of exp(logit - maximum) * logit; None unless entropy is asked for.
    """

    maximum: jax.Array
    total: jax.Array
    at_target: jax.Array
    moment: jax.Array | None


class Cotangents(NamedTuple):
    """What the gradient of a row's logits is made of, float32 [N].

    The gradient of a logit x is, with p = exp(x - logsumexp): p * (factor - entropy * x), plus `target` at the target.
    """

    logsumexp: jax.Array
    target: jax.Array
    factor: jax.Array
    entropy: jax.Array | None


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What is static about a call.

    Attributes:
      logical_size: rows of the matrix from here on are padding.
      soft_cap: cap * tanh(logit / cap); 0 is none.
      entropy: whether it is asked for.
      statistics: (pieces, hidden_NxM, chunk, targets_N) -> Statistics; targets are counted from the chunk's first row.
      d_logits: (pieces, hidden_NxM, chunk, targets_N, cotangents) -> [N, v] in the dtype of the hidden states, the
        gradient of the products of rows and hidden states, 0 for padding.
      forward_chunk: v of the forward pass, about; 0 is all of the device's rows, unless they are gathered.
      backward_chunk: v of the backward pass, about.
      mesh: of the devices; None is one.
      rules: where hidden states and matrix lie on it.
      options: of the implementation.
    """

    logical_size: int
    soft_cap: float
    entropy: bool
    statistics: Callable[..., Statistics]
    d_logits: Callable[..., jax.Array]
    forward_chunk: int
    backward_chunk: int
    mesh: Mesh | None
    rules: ShardingRules
    options: Any = None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def log_probability(
    pieces: Pieces, hidden_BxTxM: jax.Array, output_VxM: jax.Array, targets_BxT: jax.Array
) -> TokenLogProbability:
    """See `seallm_jax.kernels.cross_entropy.api.linear_log_probability`."""
    return _forward(pieces, hidden_BxTxM, output_VxM, targets_BxT)[0]


def _forward(pieces, hidden_BxTxM, output_VxM, targets_BxT):
    place = _Place.of(pieces, hidden_BxTxM, output_VxM)

    def local(hidden_BxTxM, output_wxm, targets_BxT):
        hidden_NxM, targets_N = hidden_BxTxM.reshape(-1, hidden_BxTxM.shape[-1]), targets_BxT.reshape(-1)

        def visit(so_far, chunk, first):
            return _merge(so_far, pieces.statistics(pieces, hidden_NxM, chunk, targets_N - first))

        zeros_N = jnp.zeros(targets_N.shape, jnp.float32)
        nothing = Statistics(zeros_N + MASKED, zeros_N, zeros_N, zeros_N if pieces.entropy else None)
        size = pieces.forward_chunk or (pieces.backward_chunk if place.gathered else output_wxm.shape[0])
        found = _over_chunks(pieces, place, visit, nothing, output_wxm, hidden_BxTxM.dtype, size)
        found = _merge_over(place.vocabulary, found)
        return jax.tree.map(lambda x: x.reshape(targets_BxT.shape), found)

    found = place.run(local, (place.rows, place.matrix, place.rows), place.rows)(hidden_BxTxM, output_VxM, targets_BxT)
    logsumexp_BxT = found.maximum + jnp.log(found.total)
    result = TokenLogProbability(
        log_probability=found.at_target - logsumexp_BxT,
        correct=found.at_target >= found.maximum,
        logsumexp=logsumexp_BxT,
        entropy=logsumexp_BxT - found.moment / found.total if pieces.entropy else None,
    )
    return result, (hidden_BxTxM, output_VxM, targets_BxT, logsumexp_BxT, result.entropy)


def _backward(pieces, residuals, d_result):
    hidden_BxTxM, output_VxM, targets_BxT, logsumexp_BxT, entropy_BxT = residuals
    place = _Place.of(pieces, hidden_BxTxM, output_VxM)
    # the log-sum-exp enters both results; the derivative of the entropy by x is -p * (x - logsumexp + entropy)
    factor_BxT = d_result.logsumexp - d_result.log_probability
    if pieces.entropy:
        factor_BxT += d_result.entropy * (logsumexp_BxT - entropy_BxT)
    cotangents = Cotangents(
        logsumexp_BxT, d_result.log_probability, factor_BxT, d_result.entropy if pieces.entropy else None
    )
    dtype = hidden_BxTxM.dtype
    dot = functools.partial(jax.lax.dot_general, precision=matmul_precision(dtype), preferred_element_type=jnp.float32)

    def local(hidden_BxTxM, output_wxm, targets_BxT, cotangents):
        hidden_NxM, targets_N = hidden_BxTxM.reshape(-1, hidden_BxTxM.shape[-1]), targets_BxT.reshape(-1)
        cotangents = jax.tree.map(lambda x: x.reshape(-1), cotangents)

        def visit(so_far, chunk, first):
            d_hidden_NxM, d_output_wxm = so_far
            d_logits_Nxv = pieces.d_logits(pieces, hidden_NxM, chunk, targets_N - first, cotangents)
            chunk_vxM = rows_of(pieces, chunk, dtype)
            d_hidden_NxM += dot(d_logits_Nxv, chunk_vxM, (((1,), (0,)), ((), ())))
            d_chunk_vxm = place.reduce(dot(d_logits_Nxv, hidden_NxM, (((0,), (0,)), ((), ())))).astype(output_wxm.dtype)
            start = first - place.first(output_wxm)
            d_chunk_vxm = _bits(pieces, d_chunk_vxm)
            return d_hidden_NxM, jax.lax.dynamic_update_slice_in_dim(d_output_wxm, d_chunk_vxm, start, 0)

        nothing = (
            jnp.zeros(hidden_NxM.shape, jnp.float32),
            _bits(pieces, jax.lax.empty(output_wxm.shape, output_wxm.dtype)),
        )
        size = pieces.backward_chunk
        d_hidden_NxM, d_output_wxm = _over_chunks(pieces, place, visit, nothing, output_wxm, dtype, size)
        if place.vocabulary:
            d_hidden_NxM = jax.lax.psum(d_hidden_NxM, place.vocabulary)
        return d_hidden_NxM.astype(dtype).reshape(hidden_BxTxM.shape), _from_bits(d_output_wxm, output_wxm.dtype)

    specs = place.rows, place.matrix, place.rows, place.rows
    run = place.run(local, specs, (place.rows, place.matrix))
    return *run(hidden_BxTxM, output_VxM, targets_BxT, cotangents), None


log_probability.defvjp(_forward, _backward)


def rows_sharding(mesh: Mesh, rules: ShardingRules, leading: tuple[int, ...]) -> NamedSharding:
    """Where the rows of hidden states lie, whose shape is `leading`: rows, positions, and whatever else."""
    names = (("batch", "sequence") + (None,) * len(leading))[: len(leading)]
    return rules.sharding(mesh, *names, shape=leading)


def rows_of(pieces: Pieces, chunk: Chunk, dtype: Any) -> jax.Array:
    """[v, M], the rows of a chunk, in a dtype."""
    bits = jax.lax.dynamic_slice_in_dim(_bits(pieces, chunk.matrix), chunk.start, chunk.size)
    return _from_bits(bits, chunk.matrix.dtype).astype(dtype)


def _bits(pieces: Pieces, x: jax.Array) -> jax.Array:
    """On CPUs the bits of 16-bit numbers: XLA would slice them there as float32, after it has widened all of them."""
    narrow = x.dtype.itemsize == 2 and device_of(pieces.mesh).platform == "cpu"
    return jax.lax.bitcast_convert_type(x, jnp.uint16) if narrow else x


def _from_bits(x: jax.Array, dtype: Any) -> jax.Array:
    return x if x.dtype == dtype else jax.lax.bitcast_convert_type(x, dtype)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the arrays lie, and what devices exchange.

    Attributes:
      mesh: None is one device.
      rows: of hidden states and targets.
      matrix: of the output matrix.
      vocabulary: mesh axes over which its rows are split.
      gathered: mesh axes over which its columns are split; they also split the rows of hidden states.
      others: the other mesh axes over which rows are split.
    """

    mesh: Mesh | None
    rows: PartitionSpec
    matrix: PartitionSpec
    vocabulary: tuple[str, ...]
    gathered: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, pieces: Pieces, hidden_BxTxM: jax.Array, output_VxM: jax.Array) -> _Place:
        mesh, rules = pieces.mesh, pieces.rules
        if mesh is None:
            return cls(None, PartitionSpec(), PartitionSpec(), (), (), ())
        leading = hidden_BxTxM.shape[:-1]
        rows = rows_sharding(mesh, rules, leading).spec
        vocabulary, columns = rules.sharding(mesh, "vocabulary", "hidden", shape=output_VxM.shape).spec
        row_axes = tuple(axis for entry in rows for axis in _axes(mesh, entry))
        if not set(_axes(mesh, columns)) <= set(row_axes):
            columns = None
        gathered = _axes(mesh, columns)
        others = tuple(axis for axis in row_axes if axis not in gathered)
        return cls(mesh, rows, PartitionSpec(vocabulary, columns), _axes(mesh, vocabulary), gathered, others)

    def run(self, function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
        """`function` on the local parts."""
        if self.mesh is None:
            return function
        return jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def first(self, output_wxm: jax.Array) -> jax.Array | int:
        """Index in the whole matrix of the device's first row."""
        return jax.lax.axis_index(self.vocabulary) * output_wxm.shape[0] if self.vocabulary else 0

    def reduce(self, d_chunk_vxM: jax.Array) -> jax.Array:
        """Sum over the devices that have other rows; the own columns of it."""
        if self.others:
            d_chunk_vxM = jax.lax.psum(d_chunk_vxM, self.others)
        if self.gathered:
            d_chunk_vxM = jax.lax.psum_scatter(d_chunk_vxM, self.gathered, scatter_dimension=1, tiled=True)
        return d_chunk_vxM


def _over_chunks(pieces, place, visit, carry, output_wxm, dtype, most):
    """`visit(carry, chunk, index of its first row in the whole matrix)` for each chunk."""
    w, first = output_wxm.shape[0], place.first(output_wxm)

    def one(carry, start, size):
        chunk = output_wxm, start
        if place.gathered:
            own_vxm = jax.lax.dynamic_slice_in_dim(output_wxm, start, size).astype(dtype)
            chunk = jax.lax.all_gather(own_vxm, place.gathered, axis=1, tiled=True), jnp.zeros_like(start)
        limit = jnp.asarray(pieces.logical_size - first - start, jnp.int32)
        return visit(carry, Chunk(*chunk, size, limit), first + start)

    size = min(most, w)
    whole = w // size
    if whole > 1:
        starts = jnp.arange(whole, dtype=jnp.int32) * size
        carry, _ = jax.lax.scan(lambda carry, start: (one(carry, start, size), None), carry, starts)
    else:
        carry = one(carry, jnp.int32(0), size)
    return one(carry, jnp.int32(whole * size), w % size) if w % size else carry


def _merge(a: Statistics, b: Statistics) -> Statistics:
    maximum = jnp.maximum(a.maximum, b.maximum)
    of_a, of_b = jnp.exp(a.maximum - maximum), jnp.exp(b.maximum - maximum)
    moment = None if a.moment is None or b.moment is None else of_a * a.moment + of_b * b.moment
    return Statistics(maximum, of_a * a.total + of_b * b.total, a.at_target + b.at_target, moment)


def _merge_over(axes: tuple[str, ...], found: Statistics) -> Statistics:
    if not axes:
        return found
    maximum = jax.lax.pmax(found.maximum, axes)
    share = jnp.exp(found.maximum - maximum)
    total, at_target, moment = jax.lax.psum(
        (share * found.total, found.at_target, None if found.moment is None else share * found.moment), axes
    )
    return Statistics(maximum, total, at_target, moment)


def _axes(mesh: Mesh, entry: MeshAxes) -> tuple[str, ...]:
    names = (entry,) if isinstance(entry, str) else entry or ()
    return tuple(axis for axis in names if mesh.shape[axis] > 1)
