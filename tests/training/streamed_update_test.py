"""Moments in the host's memory: the same update as without, skipped ones and checkpoints included."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from small_job import LANGUAGES, MODEL

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, OptimizerConfig, TrainConfig
from seallm_jax.models import remat
from seallm_jax.training.checkpoint import Checkpoints
from seallm_jax.training.identity import Identity
from seallm_jax.training.optimizer import build_optimizer, whole_update
from seallm_jax.training.state import TrainState, abstract_state, shardings_of
from seallm_jax.training.step import build_step
from seallm_jax.training.streamed_update import streamed_update

LAYERS = {
    "attention": {"query": {"kernel": (3, 16, 2, 4), "bias": (3, 2, 4)}},
    "mlp": {"up": {"kernel": (3, 16, 24)}, "down": {"kernel": (3, 24, 16)}},
    "mlp_norm": {"scale": (3, 16)},
}
REST = {"embedding": {"kernel": (40, 16)}, "final_norm": {"scale": (16,)}}


def draw(shapes, mesh, seed):
    rng = np.random.default_rng(seed)

    def array(shape):
        split = next((axis for axis, size in enumerate(shape) if size % 8 == 0), len(shape))  # never the layers
        spec = PartitionSpec(*[None] * split, *(["fsdp"] if split < len(shape) else []))
        return jax.device_put(rng.normal(size=shape).astype(np.float32), NamedSharding(mesh, spec))

    return jax.tree.map(array, shapes, is_leaf=lambda leaf: isinstance(leaf, tuple))


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")
@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"weight_decay": 0.3}, REST | {"layers": LAYERS}),
        ({"name": "lion", "state_dtype": "bfloat16", "clip_norm": 0.0}, {"layers": LAYERS}),
        ({"name": "muon"}, REST | {"layers": LAYERS}),
    ],
    ids=["adamw", "lion of the layers", "muon"],
)
def test_it_is_the_update_without_offload(monkeypatch, tmp_path, options, shapes):
    monkeypatch.setattr(remat, "_offloads", lambda device: True)
    mesh = build_mesh(MeshConfig(), jax.devices()[:8])
    config = OptimizerConfig(**{"learning_rate": 1e-2, "clip_norm": 0.1} | options)
    params = draw(shapes, mesh, 0)
    whole, unclipped = (build_optimizer(c, 1e-2) for c in (config, OptimizerConfig(**options | {"clip_norm": 0.0})))
    updates = {
        False: functools.partial(whole_update, whole),
        True: functools.partial(streamed_update, unclipped, clip_norm=config.clip_norm),
    }
    final = {}
    for offload, update in updates.items():
        abstract = abstract_state(params, whole, mesh, offload=offload)
        fresh = TrainState.create(params, whole, shardings_of(abstract))
        state = fresh.optimizer_state
        run = jax.jit(update, out_shardings=(shardings_of(params), shardings_of(abstract.optimizer_state)))
        for step in range(3):
            found, state = run(draw(shapes, mesh, step + 1), state, params, jnp.asarray(step != 1))
        final[offload] = found, state
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(*map(np.asarray, (a, b)), rtol=2e-5, atol=1e-8), *final.values()
    )
    for offload, (_, state) in final.items():
        kinds = {leaf.sharding.memory_kind for leaf in jax.tree.leaves(state) if leaf.ndim > 1}
        assert kinds == {"pinned_host" if offload else "device"}

    saved = TrainState(params, state, fresh.step, fresh.skipped)
    checkpoints = Checkpoints(tmp_path, Identity(MODEL, "", "", batch_rows=8, seed=0))
    checkpoints.save(saved, step=3, rows=24, telemetry={})
    checkpoints.wait()
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), saved)
    restored = checkpoints.restore(like).state
    checkpoints.close()
    assert shardings_of(restored) == shardings_of(saved)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), restored, saved)


def test_the_step_keeps_moments_on_the_host(monkeypatch):
    mesh, train = (
        build_mesh(MeshConfig(), jax.devices()[:1]),
        TrainConfig(optimizer=OptimizerConfig(offload_state=True)),
    )
    build = functools.partial(build_step, sequence_length=24, total_steps=4, num_languages=len(LANGUAGES))
    with pytest.raises(SeallmError, match="^optimizer.offload_state needs .* TPUs and GPUs, and not cpu; leave it out"):
        build(MODEL, train, mesh)
    monkeypatch.setattr(remat, "_offloads", lambda device: True)
    program = build(MODEL, train, mesh)
    loop = str(jax.make_jaxpr(program.run)(program.abstract_state, program.abstract_batch))
    # within the loop over layers: a slice of a moment in the host's memory, taken from it and put back
    assert "f32<host>[2,16,32]" in loop and "f32<host>[1,16,32]" in loop


def test_adafactor_has_nothing_to_offload():
    with pytest.raises(ValueError, match="offload_state is True; adafactor has no large state"):
        OptimizerConfig(name="adafactor", offload_state=True)
