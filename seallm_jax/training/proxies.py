"""Many small models trained at the same time, each on its own rows, as one program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seallm_jax.core.batch import Batch
from seallm_jax.core.schema import ModelConfig, TrainConfig
from seallm_jax.models.decoder import Decoder
from seallm_jax.models.layout import abstract_decoder, initialize
from seallm_jax.objectives.registry import build_objective
from seallm_jax.training.loop import BatchSource
from seallm_jax.training.optimizer import build_optimizer, whole_update
from seallm_jax.training.schedule import build_schedule
from seallm_jax.training.state import TrainState
from seallm_jax.training.step import train_step


class ProxyTrainer:
    """Trains models of one shape, `at_once` on each device side by side, all from the same parameters.

    The step is that of every training stage, mapped over the models: no model sees another's rows or gradients.

    Attributes:
      size: how many models a call of `train` takes at most.
    """

    def __init__(
        self,
        model: ModelConfig,
        train: TrainConfig,
        mesh: Mesh,
        *,
        total_steps: int,
        num_languages: int,
        at_once: int = 1,
        seed: int = 0,
    ):
        """
        Args:
          model: shape of the models, vocabulary sizes filled in.
          train: batch, optimizer and objective; the whole model is trained.
          mesh: its devices share the models; none of them is split.
          total_steps: length of the learning-rate schedule.
          num_languages: length of the sums by language.
          at_once: models of a device.
          seed: of the first parameters.
        """
        self.size = at_once * mesh.size
        self._graph, _ = abstract_decoder(model)
        self._parameters = nnx.state(initialize(model, seed=seed))
        self._steps = total_steps
        schedule = build_schedule(train.optimizer, total_steps)
        self._optimizer = build_optimizer(train.optimizer, schedule)
        objective = build_objective(
            train.objective,
            num_languages,
            compute_dtype=jnp.dtype(train.compute_dtype),
            remat=train.remat,
            kernels=train.kernels,
        )

        def loss(parameters: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, Any]:
            sums = objective(nnx.merge(self._graph, parameters), batch)
            return sums.loss, sums

        step = functools.partial(
            train_step,
            loss=loss,
            apply_optimizer=functools.partial(whole_update, self._optimizer),
            schedule=schedule,
            micro_batch_rows=train.micro_batch_rows,
            multipliers=train.optimizer.multipliers,
            place_batch=lambda batch: batch,
            place_gradient=lambda gradient: gradient,
            seed=seed,
        )
        over_models = PartitionSpec(mesh.axis_names)
        self._sharding = NamedSharding(mesh, over_models)
        mapped = jax.shard_map(jax.vmap(step), mesh=mesh, in_specs=over_models, out_specs=over_models, check_vma=False)
        self._run = jax.jit(mapped, donate_argnums=0)

    def train(self, sources: Sequence[BatchSource], advance: Callable[..., None]) -> list[Any]:
        """Trains a model on each source, `size` of them at most.

        Args:
          sources: rows, all in as many steps and batches of the same sizes.
          advance: called with (1, note) after each step.

        Returns:
          The parameters of each model, on the host.
        """
        whole = slice(0, sources[0].plan.size_at(0))
        filled = [*sources, *[sources[-1]] * (self.size - len(sources))]  # models too many are trained and dropped
        streams = [source.batches(0, whole) for source in sources]
        state = self._initial()
        for _ in range(self._steps):
            batches = [next(stream) for stream in streams]
            batches += [batches[-1]] * (len(filled) - len(sources))
            stacked = jax.tree.map(lambda *parts: jax.device_put(np.stack(parts), self._sharding), *batches)
            state, metrics = self._run(state, stacked)
            losses = np.asarray(metrics.sums.loss / metrics.sums.count)[: len(sources)]
            advance(1, f"loss {losses.mean():.3f}")
        parameters = jax.device_get(state.params)
        return [jax.tree.map(lambda leaf, place=place: leaf[place], parameters) for place in range(len(sources))]

    def decoder(self, parameters: Any) -> Decoder:
        """A model with these parameters."""
        return nnx.merge(self._graph, parameters)

    def _initial(self) -> TrainState:
        def make(parameters: Any) -> TrainState:
            zero = jnp.zeros((), jnp.int32)
            state = TrainState(parameters, self._optimizer.init(parameters), zero, zero)
            return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.size, *jnp.shape(leaf))), state)

        return jax.jit(make, out_shardings=self._sharding)(self._parameters)
