"""Everything that a step changes: parameters, optimizer state, step counters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seallm_jax.models.remat import HOST_MEMORY, check_host_memory
from seallm_jax.training import partition
from seallm_jax.training.optimizer import map_moments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """State of a training stage.

    Attributes:
      params: the model's parameters, as `flax.nnx.State`, frozen ones included.
      optimizer_state: the optimizer's state for the trainable parameters; arrays that belong to a
        parameter are laid out as that parameter.
      step: int32 scalar, steps taken, skipped ones included.
      skipped: int32 scalar, updates left out because loss or gradient was not finite or nothing had weight.
    """

    params: Any
    optimizer_state: Any
    step: Any
    skipped: Any

    @classmethod
    def create(
        cls,
        params: Any,
        optimizer: optax.GradientTransformation,
        shardings: TrainState,
        trainable: tuple[str, ...] = partition.ALL,
    ) -> TrainState:
        """A fresh state around `params`, which keep their layout; the optimizer state is made in place on the mesh."""
        part, _ = partition.split(params, trainable)
        optimizer_state = jax.jit(optimizer.init, out_shardings=shardings.optimizer_state)(part)
        zeros = jax.jit(lambda: (jnp.zeros((), jnp.int32),) * 2, out_shardings=(shardings.step, shardings.skipped))
        step, skipped = zeros()
        return cls(params, optimizer_state, step, skipped)


def abstract_state(
    abstract_params: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    trainable: tuple[str, ...] = partition.ALL,
    *,
    offload: bool = False,
) -> TrainState:
    """The state as ShapeDtypeStructs with shardings.

    Args:
      abstract_params: the parameters as ShapeDtypeStructs with shardings.
      optimizer: what the optimizer state is for.
      mesh: where scalars are replicated.
      trainable: patterns of the parameters that the optimizer state is for.
      offload: whether what the optimizer keeps for each parameter lies in the host's memory.

    Raises:
      SeallmError: devices that cannot keep arrays there.
    """
    if offload:
        check_host_memory(mesh, "optimizer.offload_state", "leave it out")
    replicated = NamedSharding(mesh, PartitionSpec())
    part, _ = partition.split(abstract_params, trainable)

    def place(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    def place_moment(leaf: Any, parameter: Any) -> jax.ShapeDtypeStruct:
        sharding = _sharding_like(parameter, leaf.shape)
        return place(leaf, sharding.with_memory_kind(HOST_MEMORY) if offload else sharding)

    optimizer_state = map_moments(
        place_moment,
        jax.eval_shape(optimizer.init, part),
        part,
        other=lambda leaf: place(leaf, replicated),
    )
    counter = jax.ShapeDtypeStruct((), jnp.int32, sharding=replicated)
    return TrainState(abstract_params, optimizer_state, counter, counter)


def _sharding_like(parameter: jax.ShapeDtypeStruct, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of an array that has some of a parameter's dimensions, in order: split where they are."""
    sharding = parameter.sharding
    assert isinstance(sharding, NamedSharding)
    if shape == parameter.shape:
        return sharding
    axes = [*sharding.spec, *[None] * (len(parameter.shape) - len(sharding.spec))]
    remaining = list(zip(parameter.shape, axes, strict=True))
    found = []
    for size in shape:
        while remaining and remaining[0][0] != size:
            remaining.pop(0)
        found.append(remaining.pop(0)[1] if remaining else None)
    return NamedSharding(sharding.mesh, PartitionSpec(*found))


def shardings_of(abstract: Any) -> Any:
    """The shardings of a pytree of ShapeDtypeStructs or arrays."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)
