"""The numbers of a step: the same on every mesh and for every accumulation; skipped when they are not finite."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from small_job import LANGUAGES, MODEL, FakeSource

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import KernelConfig, MeshConfig, OptimizerConfig, TrainConfig
from seallm_jax.models import decoder
from seallm_jax.models.layout import initialize
from seallm_jax.objectives.registry import build_objective
from seallm_jax.training.distributed import global_batch, local_rows, to_host
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import build_step

ROWS, STEPS = 16, 4
TRAIN = TrainConfig(batch_rows=ROWS, compute_dtype="float32", optimizer=OptimizerConfig(learning_rate=1e-2))


def build(mesh, train=TRAIN):
    program = build_step(MODEL, train, mesh, sequence_length=24, total_steps=STEPS, num_languages=len(LANGUAGES))
    params = nnx.state(initialize(MODEL, seed=0, mesh=mesh))
    return program, TrainState.create(params, program.optimizer, shardings_of(program.abstract_state))


def trace(mesh, accumulation=1):
    program, state = build(mesh, dataclasses.replace(TRAIN, accumulation=accumulation))
    rows, numbers = local_rows(program.abstract_batch), []
    for batch in FakeSource(ROWS * STEPS, ROWS).batches(0, rows):
        state, metrics = program.run(state, global_batch(batch, rows, program.abstract_batch))
        metrics = to_host(metrics)
        numbers.append(
            [metrics.sums.loss / metrics.sums.count, metrics.gradient_norm, *metrics.sums.by_language["loss"]]
        )
    return np.array(numbers), jax.tree.map(np.asarray, jax.device_get(state.params)), state, program


@pytest.fixture(scope="module")
def one_device():
    return trace(build_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")
@pytest.mark.parametrize(
    ("mesh", "accumulation"),
    [(None, 4), ({"fsdp": 8}, 1), ({"fsdp": 4, "tensor": 2}, 2), ({"data": 2, "fsdp": 4}, 2)],
)
def test_mesh_and_accumulation_change_nothing_but_rounding(one_device, mesh, accumulation):
    devices = jax.devices()[:1] if mesh is None else jax.devices()[:8]
    numbers, params, state, program = trace(build_mesh(MeshConfig(**mesh or {}), devices), accumulation)
    np.testing.assert_allclose(numbers, one_device[0], rtol=2e-5)
    # Adam divides by the gradient's size, so where that is nearly zero rounding shows: absolute, against rates of 1e-2
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), params, one_device[1])
    for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(program.abstract_state), strict=True):
        assert leaf.sharding.is_equivalent_to(expected.sharding, leaf.ndim)


def test_one_step_is_the_gradient_of_the_mean_through_optax(one_device):
    """Against plain autodiff of the mean over the whole batch, without scan or mesh."""
    graph, params = nnx.split(initialize(MODEL, seed=0))
    batch = next(FakeSource(ROWS, ROWS).batches(0, slice(0, ROWS)))
    objective = build_objective(TRAIN.objective, len(LANGUAGES), compute_dtype=jnp.float32)

    def mean(params):
        sums = objective(nnx.merge(graph, params), batch)
        return sums.loss / sums.count

    loss, gradient = jax.jit(jax.value_and_grad(mean))(params)
    np.testing.assert_allclose(one_device[0][0][:2], [loss, optax.global_norm(gradient)], rtol=1e-5)


def test_parameters_are_split_over_the_devices():
    if jax.device_count() < 8:
        pytest.skip("needs 8 emulated devices")
    _, state = build(build_mesh(MeshConfig(fsdp=8), jax.devices()[:8]))
    for tree in (state.params, optax.tree_utils.tree_get(state.optimizer_state, "mu")):
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            is_norm = "norm" in jax.tree_util.keystr(path)
            assert leaf.addressable_shards[0].data.size == leaf.size // (1 if is_norm else 8)


def test_an_update_that_is_not_finite_is_left_out_and_counted():
    program, state = build(build_mesh(MeshConfig(), jax.devices()[:1]))
    rows = local_rows(program.abstract_batch)
    good = next(FakeSource(ROWS, ROWS).batches(0, rows))
    before = jax.tree.map(np.asarray, jax.device_get((state.params, state.optimizer_state)))
    for count, weight in enumerate((np.nan, np.inf, 0.0), start=1):
        bad = dataclasses.replace(good, loss_weights=np.where(good.loss_weights > 0, np.float32(weight), 0))
        state, metrics = program.run(state, global_batch(bad, rows, program.abstract_batch))
        jax.tree.map(np.testing.assert_array_equal, jax.device_get((state.params, state.optimizer_state)), before)
        assert (int(state.step), int(state.skipped), int(metrics.skipped)) == (count, count, count)
    rate = float(metrics.learning_rate)
    state, metrics = program.run(state, global_batch(good, rows, program.abstract_batch))
    assert (int(state.step), int(state.skipped)) == (4, 3)
    assert float(metrics.learning_rate) == rate  # the schedule counts updates that happened
    assert not np.array_equal(jax.tree.leaves(state.params)[0], jax.tree.leaves(before[0])[0])


def test_rows_that_do_not_split_are_an_error_with_the_way_out():
    mesh = build_mesh(MeshConfig(), jax.devices())
    if mesh.size == 1:
        pytest.skip("needs several devices")
    with pytest.raises(UsageError, match=r"batch_rows / accumulation is 3, .* multiple of"):
        build_step(
            MODEL, TrainConfig(batch_rows=6, accumulation=2), mesh, sequence_length=24, total_steps=1, num_languages=1
        )


def test_kernel_options_reach_the_operators(monkeypatch):
    seen = {}

    def spy(name):
        real = getattr(decoder, name)

        def called(*arguments, **options):
            seen[name] = options
            return real(*arguments, **options)

        monkeypatch.setattr(decoder, name, called)

    spy("attention")
    spy("linear_log_probability")
    kernels = KernelConfig("reference", "chunked_xla", "ring", document_length=8)
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    program, state = build(mesh, dataclasses.replace(TRAIN, kernels=kernels))
    jax.eval_shape(program.run, state, program.abstract_batch)
    options = seen["attention"]
    assert (options["implementation"], options["context_parallelism"], options["document_length"]) == (
        "reference",
        "ring",
        8,
    )
    assert seen["linear_log_probability"]["implementation"] == "chunked_xla"


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (KernelConfig(attention="pallas_tpu"), "24 positions, which is no multiple of 128"),
        (KernelConfig(cross_entropy="pallas_tpu"), "pallas_tpu"),
    ],
)
def test_an_implementation_that_is_named_is_never_replaced(kernels, message):
    program, state = build(build_mesh(MeshConfig(), jax.devices()[:1]), dataclasses.replace(TRAIN, kernels=kernels))
    with pytest.raises(SeallmError, match=message):
        jax.eval_shape(program.run, state, program.abstract_batch)
