"""A stage that trains an adapter: what is trained, what is stored, and that it resumes bit for bit."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import nnx
from small_job import LANGUAGES, FakeSource

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import AdapterConfig, MeshConfig, ModelConfig, OptimizerConfig, TrainConfig
from seallm_jax.models.adapters.parameters import by_path
from seallm_jax.models.layout import abstract_decoder, initialize
from seallm_jax.training.adapter_stage import adapted_parameters, restore_adapted
from seallm_jax.training.checkpoint import restore_parameters
from seallm_jax.training.loop import TrainingJob, train
from seallm_jax.training.step import build_step

MODEL = ModelConfig(
    vocabulary_size=60,
    padded_vocabulary_size=256,
    hidden_size=64,
    intermediate_size=64,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=2,
    head_size=32,
)
ADAPTER = AdapterConfig(rank=4, targets=("*",), dropout=0.1, quantize="nf4")
STEPS = 5


def make_job(directory, adapter, mesh) -> TrainingJob:
    return TrainingJob(
        name="test",
        directory=directory,
        model=MODEL,
        train=TrainConfig(
            optimizer=OptimizerConfig(learning_rate=1e-2),
            adapter=adapter,
            batch_rows=8,
            compute_dtype="float32",
            checkpoint_every=2,
            log_every=1,
        ),
        languages=LANGUAGES,
        source=FakeSource(STEPS * 8, batch_rows=8),
        tokenizer_digest="tokenizer",
        mesh=mesh,
    )


def base_parameters(mesh):
    return nnx.state(initialize(MODEL, seed=7, mesh=mesh))


def run(job, steps=None):
    """Losses of the first steps; stopping early leaves the checkpoints of a run that was killed."""

    def initial(_):
        return adapted_parameters(base_parameters(job.mesh), MODEL, job.train.adapter, job.mesh, seed=job.seed)

    return [info.loss for info in itertools.islice(train(job, initial, Progress.silent()), steps)]


def restored(job):
    base, adapter = base_parameters(job.mesh), job.train.adapter
    parameters = restore_adapted(job.checkpoints, base, MODEL, adapter, job.mesh, trainable=job.train.trainable)
    return {path: np.asarray(value) for path, value in by_path(parameters).items()}


@pytest.fixture(scope="module")
def one_device():
    return build_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def uninterrupted(one_device, tmp_path_factory):
    job = make_job(tmp_path_factory.mktemp("whole"), ADAPTER, one_device)
    return job, run(job)


def test_only_the_adapter_is_trained_and_stored(uninterrupted):
    job, losses = uninterrupted
    assert losses[-1] < losses[0]
    found, base = restored(job), by_path(base_parameters(job.mesh))
    fresh = by_path(adapted_parameters(base_parameters(job.mesh), MODEL, ADAPTER, job.mesh, seed=0))
    for path, value in found.items():
        same = np.array_equal(value, np.asarray(fresh[path]))
        assert same != path.endswith(("lora_a", "lora_b", "new_rows")), path
    assert found["layers.mlp.down.kernel.codes"].dtype == np.uint8
    np.testing.assert_array_equal(found["embedding.kernel"], base["embedding.kernel"])

    program = build_step(MODEL, job.train, job.mesh, sequence_length=24, total_steps=STEPS, num_languages=2)
    trained = {p: v.shape for p, v in found.items() if p.endswith(("lora_a", "lora_b", "new_rows"))}
    for moments in (program.abstract_state.optimizer_state[1][0].mu, program.abstract_state.optimizer_state[1][0].nu):
        assert {path: leaf.shape for path, leaf in by_path(moments).items()} == trained
    stored = sum(file.stat().st_size for file in (job.checkpoints / str(STEPS) / "parameters").rglob("*"))
    assert 0 < stored < 4 * sum(value.size for value in found.values())  # bytes; numbers are float32 or codes


def test_a_resumed_run_is_the_uninterrupted_one(uninterrupted, one_device, tmp_path):
    whole, losses = uninterrupted
    job = make_job(tmp_path, ADAPTER, one_device)
    first = run(job, steps=3)  # the newest checkpoint is that of step 2
    assert first == losses[:3]
    assert run(job) == losses[2:]
    expected = restored(whole)
    for path, value in restored(job).items():
        np.testing.assert_array_equal(value, expected[path], path)


def test_another_adapter_does_not_continue(uninterrupted, one_device):
    job, _ = uninterrupted
    for change in ({"alpha": 8.0}, {"quantize": "int8"}):
        adapter = dataclasses.replace(ADAPTER, **change)
        with pytest.raises(SeallmError, match="trained with another adapter"):
            run(dataclasses.replace(job, train=dataclasses.replace(job.train, adapter=adapter)))


def test_a_mesh_computes_what_one_device_does(uninterrupted, tmp_path):
    alone, losses = uninterrupted
    spread = make_job(tmp_path, ADAPTER, build_mesh(MeshConfig(fsdp=4, tensor=2)))
    np.testing.assert_allclose(run(spread), losses, rtol=1e-5)
    expected = restored(alone)
    for path, value in restored(spread).items():
        np.testing.assert_allclose(value, expected[path], rtol=1e-3, atol=2e-4, err_msg=path)


def test_an_adapter_is_not_taken_for_a_model(uninterrupted):
    job, _ = uninterrupted
    _, abstract = abstract_decoder(MODEL)
    with pytest.raises(SeallmError, match="holds only an adapter"):
        restore_parameters(job.checkpoints, abstract, MODEL)


def test_codes_are_not_trained(one_device):
    config = TrainConfig(optimizer=OptimizerConfig(trainable=("layers.*",)), adapter=ADAPTER, batch_rows=8)
    with pytest.raises(UsageError, match="is quantised; leave it out"):
        build_step(MODEL, config, one_device, sequence_length=24, total_steps=STEPS, num_languages=2)
