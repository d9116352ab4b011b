"""The training step, for every objective: sums over micro-batches, one division, clip, finite check, update."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import UsageError
from seallm_jax.core.schema import AdapterConfig, ModelConfig, OptimizerConfig, TrainConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.models.adapters.attach import enable_dropout
from seallm_jax.models.layout import abstract_decoder, parameter_shardings, path_name
from seallm_jax.models.quantization.quantized_product import warn_unless_faster
from seallm_jax.objectives.losses import LossSums
from seallm_jax.objectives.registry import build_objective
from seallm_jax.training import partition
from seallm_jax.training.compiler_options import compiler_options
from seallm_jax.training.distributed import abstract_batch
from seallm_jax.training.mesh_fit import check_fit
from seallm_jax.training.new_rows import NewRows
from seallm_jax.training.optimizer import build_optimizer, multiplied, whole_update
from seallm_jax.training.rounding import round_like
from seallm_jax.training.schedule import build_schedule
from seallm_jax.training.state import TrainState, abstract_state, shardings_of
from seallm_jax.training.streamed_update import streamed_update
from seallm_jax.training.subset import Subset, chosen_neurons, trained_patterns


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """What one step measured, on the device and replicated.

    Attributes:
      sums: loss, count, losses by language and objective metrics over the whole batch.
      tokens: int32, positions that are not padding.
      gradient_norm: float32, before clipping, over the values that this step trains.
      group_norms: the same by `partition.group_of`.
      learning_rate: float32.
      skipped: int32, updates skipped since the beginning.
    """

    sums: LossSums
    tokens: jax.Array
    gradient_norm: jax.Array
    group_norms: dict[str, jax.Array]
    learning_rate: jax.Array
    skipped: jax.Array


@dataclasses.dataclass(frozen=True)
class StepProgram:
    """A jitted step and the shapes it is for.

    Attributes:
      run: (state, batch) -> (state, StepMetrics); the state given is donated. Batches may be any number of
        micro-batches long; each length is compiled once.
      abstract_state: the state as ShapeDtypeStructs with shardings.
      abstract_batch: a batch of `train.batch_rows` rows likewise.
      optimizer: makes the optimizer state.
      trainable: patterns of the parameters that the optimizer is for.
      neurons: digest of the neurons that are trained alone; "" where there is no such choice.
    """

    run: Any
    abstract_state: TrainState
    abstract_batch: Batch
    optimizer: optax.GradientTransformation
    trainable: tuple[str, ...]
    neurons: str = ""

    def batch_of(self, rows: int) -> Batch:
        """`abstract_batch` with another number of rows."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=x.sharding), self.abstract_batch
        )


def build_step(
    model: ModelConfig,
    train: TrainConfig,
    mesh: Mesh,
    rules: ShardingRules = ShardingRules(),
    *,
    sequence_length: int,
    total_steps: int,
    num_languages: int,
    reference_columns: int = 0,
    first_new_row: int | None = None,
    stage_starts: Sequence[int] = (),
    token_bytes: np.ndarray | None = None,
    seed: int = 0,
) -> StepProgram:
    """The step of a training stage on a mesh, not compiled yet. Allocates nothing.

    Args:
      model: shape of the model, vocabulary sizes filled in.
      train: objective, optimizer, rows, accumulation, dtype and remat.
      mesh: the device mesh.
      rules: how logical axes are split over it.
      sequence_length: positions per row.
      total_steps: length of the learning-rate schedule.
      num_languages: length of the sums by language.
      reference_columns: width of the batch's `reference_logps`; 0 for a batch without them.
      first_new_row: size of the vocabulary before its extension, for `optimizer.new_rows_first`; None without one.
      stage_starts: the step that each stage of `train.curriculum` begins with; none is one stage.
      token_bytes: int [V], bytes that each id stands for; with them losses by language come in bits per byte, too.
      seed: of an adapter's dropout, which is a function of it, the step and the micro-batch, and of rounding.

    Raises:
      UsageError: rows, positions or sizes of the model cannot be split over the mesh; a pattern that matches no
        parameter or names no layer; neurons that the model has not; `new_rows_first` where there are no new rows.
    """
    check_fit(model, train, sequence_length, mesh, rules)
    if train.matmul_dtype != "none":
        warn_unless_faster(train.matmul_dtype, mesh.devices.flat[0])
    batch = abstract_batch(train.batch_rows, sequence_length, mesh, rules, reference_columns=reference_columns)
    dtype = jnp.dtype(train.parameter_dtype)
    graph, parameters = abstract_decoder(
        model,
        param_dtype=dtype,
        adapter=train.adapter,
        matmul_dtype=train.matmul_dtype,
        # positions that are split over devices cannot be merged with rows
        merged=mesh.devices.flat[0].platform == "cpu" and mesh.shape["context"] == 1,
    )
    parameters = jax.tree.map(_with_sharding, parameters, parameter_shardings(parameters, mesh, rules))
    neurons = chosen_neurons(train.optimizer)
    trainable = trained_patterns(train, parameters, neurons)
    partition.check_patterns(parameters, trainable, "optimizer.trainable")
    partition.check_patterns(parameters, train.optimizer.multipliers, "optimizer.multipliers")
    part, _ = partition.split(parameters, trainable)
    for path, leaf in jax.tree_util.tree_leaves_with_path(part):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise UsageError(f"optimizer.trainable takes in {path_name(path)}, which is quantised; leave it out")
    stages, starts = (train.curriculum, stage_starts) if train.curriculum and stage_starts else ((), (0,))
    schedule = build_schedule(train.optimizer, total_steps, stages, starts)
    optimizer = build_optimizer(train.optimizer, schedule)
    subset = Subset.of(trainable, neurons, part)
    abstract = abstract_state(parameters, optimizer, mesh, trainable, offload=train.optimizer.offload_state)
    objective = build_objective(
        train.objective,
        num_languages,
        token_bytes=token_bytes,
        compute_dtype=jnp.dtype(train.compute_dtype),
        remat=train.remat,
        mesh=mesh,
        rules=rules,
        kernels=train.kernels,
    )
    step = functools.partial(
        train_step,
        loss=_loss_of(graph, objective, train.adapter),
        apply_optimizer=_application(optimizer, train.optimizer, schedule),
        schedule=schedule,
        micro_batch_rows=train.micro_batch_rows,
        trainable=trainable,
        seed=seed,
        multipliers=train.optimizer.multipliers,
        subset=subset,
        new_rows=NewRows.of(train.optimizer, total_steps, first_new_row, part, model.vocabulary_size),
        place_batch=lambda micro_batch: jax.lax.with_sharding_constraint(micro_batch, shardings_of(batch)),
        place_gradient=lambda gradient: jax.lax.with_sharding_constraint(gradient, shardings_of(part)),
    )
    replicated = NamedSharding(mesh, PartitionSpec())
    run = jax.jit(
        step,
        in_shardings=(shardings_of(abstract), shardings_of(batch)),
        out_shardings=(shardings_of(abstract), replicated),
        donate_argnums=0,
        compiler_options=compiler_options(mesh.devices.flat[0]),
    )
    return StepProgram(run, abstract, batch, optimizer, trainable, neurons.digest if neurons else "")


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    loss: Callable[[Any, Batch, jax.Array], tuple[jax.Array, LossSums]],
    apply_optimizer: Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]],
    schedule: optax.Schedule,
    micro_batch_rows: int,
    place_batch: Callable[[Batch], Batch],
    place_gradient: Callable[[Any], Any],
    trainable: tuple[str, ...] = partition.ALL,
    seed: int = 0,
    multipliers: Mapping[str, float] | None = None,
    subset: Subset | None = None,
    new_rows: NewRows | None = None,
) -> tuple[TrainState, StepMetrics]:
    """One optimizer step. Without dropout, the loss and the gradient depend neither on `micro_batch_rows` nor the mesh.

    An update whose loss or gradient is not finite, or for which nothing in the batch has weight, is left out and
    counted. Frozen parameters are constants of the loss and leave as they came, and so does what of an array is held.

    Args:
      apply_optimizer: as `optimizer.whole_update` or `streamed_update`, for an optimizer.
    """
    params, frozen = partition.split(state.params, trainable)
    accumulation = batch.shape[0] // micro_batch_rows
    step_key = jax.random.fold_in(jax.random.key(seed), state.step)

    def loss_of_part(params: Any, micro_batch: Batch, key: jax.Array) -> tuple[jax.Array, LossSums]:
        return loss(partition.merge(params, frozen), micro_batch, key)

    def micro_step(carry, xs):
        index, micro_batch = xs
        key = jax.random.fold_in(step_key, index)
        (_, sums), gradient = jax.value_and_grad(loss_of_part, has_aux=True)(params, place_batch(micro_batch), key)
        return jax.tree.map(jnp.add, carry, (sums, place_gradient(gradient))), None

    micro_batches = _split_rows(batch, accumulation)
    zeros = (
        _zeros_like_sums(lambda params, batch: loss(params, batch, step_key), state.params, micro_batches),
        place_gradient(jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)),
    )
    (sums, gradient), _ = jax.lax.scan(micro_step, zeros, (jnp.arange(accumulation), micro_batches))

    gradient = jax.tree.map(lambda g: g / jnp.maximum(sums.count, 1.0), gradient)
    update = state.step - state.skipped
    held = functools.partial(_held, update=update, subset=subset, new_rows=new_rows)
    gradient = held(gradient, jax.tree.map(jnp.zeros_like, gradient))
    norm = optax.global_norm(gradient)
    healthy = jnp.isfinite(sums.loss) & jnp.isfinite(norm) & (sums.count > 0)
    updates, optimizer_state = apply_optimizer(gradient, state.optimizer_state, params, healthy)  # clips first
    updates = multiplied(updates, multipliers or {})
    new_params = jax.tree.map(lambda p, u: p.astype(jnp.float32) + u, params, updates)
    new_params = round_like(new_params, params, jax.random.fold_in(step_key, accumulation))
    new_params = held(new_params, params)  # weight decay needs no gradient
    new_params = jax.tree.map(lambda new, old: jnp.where(healthy, new, old), new_params, params)
    skipped = state.skipped + jnp.where(healthy, 0, 1)
    metrics = StepMetrics(
        sums=sums,
        tokens=jnp.sum(batch.segment_ids != 0, dtype=jnp.int32),
        gradient_norm=norm,
        group_norms=_norms_by_group(gradient),
        learning_rate=jnp.asarray(schedule(update), jnp.float32),
        skipped=skipped,
    )
    return TrainState(partition.merge(new_params, frozen), optimizer_state, state.step + 1, skipped), metrics


def _held(new: Any, old: Any, *, update: jax.Array, subset: Subset | None, new_rows: NewRows | None) -> Any:
    """`new` where this update may change a value, else `old`."""
    if subset is not None:
        new = subset.select(new, old)
    return new if new_rows is None else new_rows.select(update, new, old)


def _application(
    optimizer: optax.GradientTransformation, config: OptimizerConfig, schedule: optax.Schedule
) -> Callable[..., tuple[Any, Any]]:
    if not config.offload_state:
        return functools.partial(whole_update, optimizer)
    by_layer = build_optimizer(dataclasses.replace(config, clip_norm=0.0), schedule)  # clipping looks at all layers
    return functools.partial(streamed_update, by_layer, clip_norm=config.clip_norm)


def _norms_by_group(gradient: Any) -> dict[str, jax.Array]:
    squares: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        squares.setdefault(partition.group_of(path_name(path)), []).append(jnp.sum(leaf**2))
    return {group: jnp.sqrt(sum(found)) for group, found in sorted(squares.items())}


def _loss_of(
    graph: Any, objective: Callable[..., LossSums], adapter: AdapterConfig | None
) -> Callable[[Any, Batch, jax.Array], tuple[jax.Array, LossSums]]:
    def loss(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, LossSums]:
        model = nnx.merge(graph, params)
        if adapter is not None and adapter.dropout:
            enable_dropout(model, key)
        sums = objective(model, batch)
        return sums.loss, sums

    return loss


def _split_rows(batch: Batch, accumulation: int) -> Batch:
    """[B, ...] to [accumulation, B / accumulation, ...]. Micro-batch a takes rows a, a + accumulation, ...: each device
    splits its own rows and none move."""
    return jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)


def _zeros_like_sums(loss: Callable[..., Any], params: Any, micro_batches: Batch) -> LossSums:
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), micro_batches)
    _, sums = jax.eval_shape(loss, params, first)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sums)


def _with_sharding(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
