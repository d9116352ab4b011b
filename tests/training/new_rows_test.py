"""New rows first: nothing else moves by a bit until the switch, and then AdamW goes on as optax has it."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_job import LANGUAGES, MODEL, VOCABULARY, FakeSource, Settings, iterate, make_job, run

from seallm_jax.core.errors import UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, OptimizerConfig, TrainConfig
from seallm_jax.models.layout import initialize, path_name
from seallm_jax.objectives.registry import build_objective
from seallm_jax.training.checkpoint import restore_parameters
from seallm_jax.training.distributed import global_batch, local_rows
from seallm_jax.training.new_rows import MATRICES
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import build_step

ROWS, STEPS, SWITCH, OLD = 8, 6, 3, 40
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, schedule="linear", warmup_fraction=0.2, new_rows_first=SWITCH / STEPS)


def by_path(tree) -> dict[str, np.ndarray]:
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def trace(*, axes=None, model=MODEL, optimizer=OPTIMIZER):
    """(parameters by path, gradient norm) before the first step and after each."""
    mesh = build_mesh(MeshConfig(**axes or {}), jax.devices()[: 8 if axes else 1])
    train = TrainConfig(batch_rows=ROWS, compute_dtype="float32", optimizer=optimizer)
    program = build_step(
        model, train, mesh, sequence_length=24, total_steps=STEPS, num_languages=len(LANGUAGES), first_new_row=OLD
    )
    params = nnx.state(initialize(model, seed=0, mesh=mesh))
    states = [by_path(params)]
    state = TrainState.create(params, program.optimizer, shardings_of(program.abstract_state), program.trainable)
    rows, norms = local_rows(program.abstract_batch), []
    for batch in FakeSource(ROWS * STEPS, ROWS).batches(0, rows):
        state, metrics = program.run(state, global_batch(batch, rows, program.abstract_batch))
        states.append(by_path(state.params))
        norms.append(float(metrics.gradient_norm))
    return states, norms


@pytest.fixture(scope="module")
def one_device():
    return trace()


def assert_only_new_rows_moved(before, after):
    for name, value in after.items():
        held = value[:OLD] if name in MATRICES else value
        np.testing.assert_array_equal(held.view(np.uint32), before[name][: len(held)].view(np.uint32), err_msg=name)
        if name in MATRICES:
            assert (value[OLD:VOCABULARY] != before[name][OLD:VOCABULARY]).any(axis=1).all()


@pytest.mark.parametrize("tied", [False, True])
def test_only_new_rows_move_before_the_switch_and_everything_after(one_device, tied):
    model = dataclasses.replace(MODEL, tie_embeddings=True)
    states, _ = trace(model=model) if tied else one_device
    assert_only_new_rows_moved(states[0], states[SWITCH])
    for name, value in states[SWITCH + 1].items():
        padding = VOCABULARY if name in MATRICES else None
        assert (value[:padding] != states[SWITCH][name][:padding]).mean() > 0.5, name


def test_against_optax_with_masked_gradients(one_device):
    """The oracle: the whole gradient, zeroed outside the new rows, and an update zeroed the same way."""
    graph, params = nnx.split(initialize(MODEL, seed=0))
    objective = build_objective(TrainConfig().objective, len(LANGUAGES), compute_dtype=jnp.float32)

    def mean(params, batch):
        sums = objective(nnx.merge(graph, params), batch)
        return sums.loss / sums.count

    def masked(tree):
        def zero(path, leaf):
            name, array = path_name(path), np.array(leaf)
            array[: OLD if name in MATRICES else None] = 0
            return jnp.asarray(array)

        return jax.tree_util.tree_map_with_path(zero, tree)

    gradient = jax.jit(jax.grad(mean))
    rise, fall = optax.linear_schedule(1e-2, 1e-2, 1), optax.linear_schedule(1e-2, 1e-3, 5)
    adamw = optax.adamw(
        optax.join_schedules([rise, fall], [1]),
        b1=0.9,
        b2=0.95,
        weight_decay=0.1,
        mask=lambda p: jax.tree_util.tree_map_with_path(lambda path, _: "norm" not in path_name(path), p),
    )
    state = adamw.init(params)
    for index, batch in enumerate(FakeSource(ROWS * STEPS, ROWS).batches(0, slice(0, ROWS))):
        first = index < SWITCH
        g = gradient(params, batch)
        g = masked(g) if first else g
        norm = optax.global_norm(g)
        assert one_device[1][index] == pytest.approx(float(norm), rel=1e-4)
        g = jax.tree.map(lambda x, n=norm: x / jnp.maximum(n, 1.0), g)
        updates, state = adamw.update(g, state, params)
        params = optax.apply_updates(params, masked(updates) if first else updates)
        for name, value in by_path(params).items():
            np.testing.assert_allclose(one_device[0][index + 1][name], value, atol=5e-5, err_msg=f"{index} {name}")


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")
def test_sharded_is_unsharded(one_device):
    states, norms = trace(axes={"fsdp": 2, "tensor": 4})
    assert_only_new_rows_moved(states[0], states[SWITCH])
    np.testing.assert_allclose(norms, one_device[1], rtol=1e-4)
    for name, value in states[-1].items():
        np.testing.assert_allclose(value, one_device[0][-1][name], atol=2e-4, err_msg=name)


def job_of(directory, checkpoint_every):
    job = make_job(Settings(directory=str(directory), steps=STEPS, devices=1, checkpoint_every=checkpoint_every))
    train = dataclasses.replace(job.train, optimizer=OPTIMIZER)
    return dataclasses.replace(job, train=train, first_new_row=OLD)


def parameters_of(job) -> dict[str, np.ndarray]:
    program = build_step(
        job.model, job.train, job.mesh, sequence_length=24, total_steps=STEPS, num_languages=2, first_new_row=OLD
    )
    return by_path(restore_parameters(pathlib.Path(job.checkpoints), program.abstract_state.params, job.model))


@pytest.mark.parametrize("stop", [2, 3])
def test_a_run_continues_across_the_switch(tmp_path, one_device, stop):
    job = job_of(tmp_path, checkpoint_every=stop)
    steps = iterate(job)
    first = [next(steps) for _ in range(stop + 1)]  # the checkpoint is written after its step is seen
    steps.close()
    infos = first[:stop] + run(job)
    assert [info.step for info in infos] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([info.gradient_norm for info in infos], one_device[1], rtol=1e-5)
    for name, value in parameters_of(job).items():
        np.testing.assert_array_equal(value, one_device[0][-1][name], err_msg=name)


def test_one_stands_for_the_whole_stage():
    """Together with `trainable` it trains new rows only, and no other optimizer state is kept."""
    states, _ = trace(optimizer=dataclasses.replace(OPTIMIZER, new_rows_first=1.0, trainable=MATRICES))
    assert_only_new_rows_moved(states[0], states[-1])


@pytest.mark.parametrize(
    ("first", "options", "message"),
    [
        (None, {}, "new_rows_first is 0.5, but no vocabulary extension added rows before this stage; set it to 0"),
        (VOCABULARY, {}, "no vocabulary extension added rows"),
        (OLD, {"trainable": ("layers.*",)}, r"trainable = layers.\* leaves out embedding.kernel and head.kernel"),
    ],
)
def test_nothing_to_train_first(first, options, message):
    train = TrainConfig(batch_rows=8, optimizer=OptimizerConfig(new_rows_first=0.5, **options))
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    with pytest.raises(UsageError, match=message):
        build_step(MODEL, train, mesh, sequence_length=24, total_steps=2, num_languages=2, first_new_row=first)
