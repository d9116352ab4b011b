"""Models trained side by side are those that the training step makes of them one by one."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx
from small_job import LANGUAGES, MODEL, FakeSource

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, OptimizerConfig, TrainConfig
from seallm_jax.models.layout import initialize
from seallm_jax.training.distributed import global_batch
from seallm_jax.training.proxies import ProxyTrainer
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import build_step

ROWS, STEPS = 8, 3
TRAIN = TrainConfig(
    batch_rows=ROWS, accumulation=2, compute_dtype="float32", optimizer=OptimizerConfig(learning_rate=1e-2)
)
SOURCES = [FakeSource(ROWS * STEPS, ROWS, seed=seed) for seed in range(3)]


def alone(source):
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    program = build_step(MODEL, TRAIN, mesh, sequence_length=24, total_steps=STEPS, num_languages=len(LANGUAGES))
    params = nnx.state(initialize(MODEL, seed=0, mesh=mesh))
    state = TrainState.create(params, program.optimizer, shardings_of(program.abstract_state))
    for batch in source.batches(0, slice(0, ROWS)):
        state, _ = program.run(state, global_batch(batch, slice(0, ROWS), program.abstract_batch))
    return jax.device_get(state.params)


@pytest.mark.parametrize(("devices", "at_once"), [(1, 2), (8, 1)])
def test_side_by_side_and_alone(devices, at_once):
    if jax.device_count() < devices:
        pytest.skip("needs 8 emulated devices")
    mesh = build_mesh(MeshConfig(fsdp=max(devices // 2, 1), tensor=min(devices, 2)), jax.devices()[:devices])
    trainer = ProxyTrainer(MODEL, TRAIN, mesh, total_steps=STEPS, num_languages=len(LANGUAGES), at_once=at_once)
    assert trainer.size == devices * at_once
    sources = SOURCES[: trainer.size]
    notes = []
    found = trainer.train(sources, lambda n, note: notes.append(n))
    assert len(found) == len(sources) and notes == [1] * STEPS
    for source, parameters in zip(sources, found, strict=True):
        # Adam divides by the gradient's size, so where that is nearly zero rounding shows: absolute, at rates of 1e-2
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), parameters, alone(source))
    assert trainer.decoder(found[0]).config == MODEL
