"""How much each neuron matters for a text: by how much the loss would change without it, to first order."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import KernelConfig, ObjectiveConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import parameter_shardings, path_name
from seallm_jax.models.neurons import KINDS
from seallm_jax.objectives.registry import build_objective
from seallm_jax.training import partition
from seallm_jax.training.distributed import global_batch

# Kind of neuron -> the parameters that are zero without the neuron. A hidden activation of the MLP multiplies one row
# of `down`, so that this row alone stands for it; what makes the activation would count it again.
WEIGHTS = {**KINDS, "mlp": {"layers.mlp.down.kernel": KINDS["mlp"]["layers.mlp.down.kernel"]}}


def neuron_importance(
    model: Decoder,
    batches: Iterable[Batch],
    kinds: Sequence[str] = tuple(KINDS),
    *,
    mesh: Mesh,
    rules: ShardingRules = ShardingRules(),
    compute_dtype: Any = jnp.float32,
    kernels: KernelConfig = KernelConfig(),
) -> dict[str, np.ndarray]:
    """Importance of every neuron for the text of `batches`: the mean over them of |sum of weight x gradient|.

    The sum is over the weights of the neuron, the gradient that of the language-modeling loss in nats per token: the
    first-order Taylor criterion of Molchanov et al. (arXiv 1906.10771) for all weights of a neuron together. Zhao et
    al. (arXiv 2402.18815), from whom the neurons are, measure by how much the activations change instead.

    Args:
      model: the decoder, laid out on `mesh`.
      batches: numpy arrays, all of one shape and the same on every process; what has no weight counts nothing. Smaller
        batches cancel less between texts.
      kinds: of `models.neurons.KINDS`.
      rules: how the model is laid out. Rows that the mesh does not divide are on all devices.
      compute_dtype: dtype of the forward and backward pass.
      kernels: implementations of attention and cross-entropy.

    Returns:
      kind -> float32 [layers, neurons].

    Raises:
      ValueError: no batch.
    """
    graph, parameters = nnx.split(model)
    forward = (("compute_dtype", jnp.dtype(compute_dtype)), ("mesh", mesh), ("rules", rules), ("kernels", kernels))
    sums: dict[str, np.ndarray] = {}
    count = 0
    for batch in batches:
        changes = _changes(graph, tuple(kinds), forward, parameters, _placed(batch, mesh, rules))
        for kind, change_LxN in changes.items():
            sums[kind] = sums.get(kind, 0.0) + np.abs(np.asarray(change_LxN, np.float64))
        count += 1
    if not count:
        raise ValueError("no batch to measure importance on")
    return {kind: (sum_LxN / count).astype(np.float32) for kind, sum_LxN in sums.items()}


def _placed(batch: Batch, mesh: Mesh, rules: ShardingRules) -> Batch:
    """The batch as global arrays."""

    def abstract(array: np.ndarray) -> jax.ShapeDtypeStruct:
        sharding = rules.sharding(mesh, "batch", "sequence", shape=array.shape)
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)

    return global_batch(batch, slice(0, batch.shape[0]), jax.tree.map(abstract, batch))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _changes(
    graph: Any, kinds: tuple[str, ...], forward: tuple[tuple[str, Any], ...], parameters: Any, batch: Batch
) -> dict[str, jax.Array]:
    """kind -> float32 [L, N], replicated: the derivative of the loss by a factor on the weights of each neuron."""
    options = dict(forward)
    # memory is what a large model lacks here, and each batch is seen once; the sums by language are not used
    objective = build_objective(ObjectiveConfig(), num_languages=1, remat="full", **options)
    part, rest = partition.split(parameters, [path for kind in kinds for path in WEIGHTS[kind]])

    def loss(part: Any) -> jax.Array:
        sums = objective(nnx.merge(graph, partition.merge(part, rest)), batch)
        return sums.loss / jnp.maximum(sums.count, 1.0)

    gradient = jax.lax.with_sharding_constraint(
        jax.grad(loss)(part), parameter_shardings(part, options["mesh"], options["rules"])
    )
    products = jax.tree.map(lambda w, g: w.astype(jnp.float32) * g.astype(jnp.float32), part, gradient)
    by_path = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(products)}
    changes = {
        kind: sum(
            _by_neuron(by_path[path], dimensions) for path, dimensions in WEIGHTS[kind].items() if path in by_path
        )
        for kind in kinds
    }
    return jax.lax.with_sharding_constraint(changes, NamedSharding(options["mesh"], PartitionSpec()))


def _by_neuron(product: jax.Array, dimensions: tuple[int, ...]) -> jax.Array:
    """float32 [L, N]: sums over all dimensions but the layer and those that count neurons."""
    others = tuple(d for d in range(1, product.ndim) if d not in dimensions)
    return product.sum(axis=others).reshape(product.shape[0], -1)
