"""The trainable partition: what is frozen keeps its bits and costs nothing; what is trained moves as optax says."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from small_job import LANGUAGES, MODEL, FakeSource

from seallm_jax.core.errors import UsageError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, OptimizerConfig, TrainConfig
from seallm_jax.models.layout import initialize, path_name
from seallm_jax.objectives.registry import build_objective
from seallm_jax.training import partition
from seallm_jax.training.distributed import global_batch, local_rows
from seallm_jax.training.optimizer import decay_mask
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import build_step

ROWS, STEPS = 8, 3
PATTERNS = ("layers.mlp.*", "final_norm.scale")
OPTIMIZER = OptimizerConfig(
    learning_rate=1e-2,
    schedule="constant",
    warmup_fraction=0,
    trainable=PATTERNS,
    multipliers={"layers.mlp.*": 0.5, "layers.mlp.up.kernel": 0.25},
)


def by_path(tree) -> dict[str, np.ndarray]:
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def trained(optimizer, *, axes=None, steps=STEPS):
    mesh = build_mesh(MeshConfig(**axes or {}), jax.devices()[: 8 if axes else 1])
    train = TrainConfig(batch_rows=ROWS, compute_dtype="float32", optimizer=optimizer)
    program = build_step(MODEL, train, mesh, sequence_length=24, total_steps=steps, num_languages=len(LANGUAGES))
    params = nnx.state(initialize(MODEL, seed=0, mesh=mesh))
    state = TrainState.create(params, program.optimizer, shardings_of(program.abstract_state), program.trainable)
    rows, norms = local_rows(program.abstract_batch), []
    for batch in FakeSource(ROWS * steps, ROWS).batches(0, rows):
        state, metrics = program.run(state, global_batch(batch, rows, program.abstract_batch))
        norms.append(float(metrics.gradient_norm))
    return state, norms


@pytest.fixture(scope="module")
def one_device():
    return trained(OPTIMIZER)


def test_trained_and_frozen_against_optax_on_the_trained_part_alone(one_device):
    """The oracle: a dictionary of the trained arrays only, autodiff without scan, optax built by hand."""
    graph, params = nnx.split(initialize(MODEL, seed=0))
    flat = dict(nnx.to_flat_state(params))
    names = {path: ".".join(map(str, path)) for path in flat}
    part = {names[p]: v[...] for p, v in flat.items() if p[:2] == ("layers", "mlp") or p == ("final_norm", "scale")}
    objective = build_objective(TrainConfig().objective, len(LANGUAGES), compute_dtype=jnp.float32)

    def mean(part, batch):
        whole = {p: v.replace(part[names[p]]) if names[p] in part else v for p, v in flat.items()}
        sums = objective(nnx.merge(graph, nnx.from_flat_state(whole)), batch)
        return sums.loss / sums.count

    gradient = jax.jit(jax.grad(mean))
    rates = {"final_norm.scale": 1e-2, "layers.mlp.gate.kernel": 5e-3, "layers.mlp.down.kernel": 5e-3}
    rates["layers.mlp.up.kernel"] = 2.5e-3
    decays = {name: 0.0 if "norm" in name else 0.1 for name in rates}
    optimizers = {n: optax.adamw(r, b1=0.9, b2=0.95, weight_decay=decays[n]) for n, r in rates.items()}
    states = {n: o.init(part[n]) for n, o in optimizers.items()}
    norms = []
    for batch in FakeSource(ROWS * STEPS, ROWS).batches(0, slice(0, ROWS)):
        g = gradient(part, batch)
        norm = np.sqrt(sum(float(jnp.sum(x**2)) for x in g.values()))
        norms.append(norm)
        for name, optimizer in optimizers.items():
            update, states[name] = optimizer.update(g[name] / max(norm, 1.0), states[name], part[name])
            part[name] = part[name] + update

    state, measured = one_device
    np.testing.assert_allclose(measured, norms, rtol=1e-5)
    for name, value in by_path(state.params).items():
        if name in part:
            np.testing.assert_allclose(value, part[name], atol=2e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(value, np.asarray(by_path(params)[name]), err_msg=name)
    for moment in ("mu", "nu"):
        assert set(by_path(optax.tree_utils.tree_get(state.optimizer_state, moment))) == set(part)


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 emulated devices")
def test_sharded_is_unsharded(one_device):
    state, norms = trained(OPTIMIZER, axes={"fsdp": 4, "tensor": 2})
    np.testing.assert_allclose(norms, one_device[1], rtol=2e-5)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(one_device[0].params), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_no_gradient_of_a_frozen_parameter_is_computed():
    """The compiled step with the layers frozen does far less work than the whole one."""

    def flops(patterns):
        optimizer = dataclasses.replace(OptimizerConfig(), trainable=patterns)
        model = dataclasses.replace(MODEL, hidden_size=64, intermediate_size=256)
        train = TrainConfig(batch_rows=1, compute_dtype="float32", optimizer=optimizer)
        mesh = build_mesh(MeshConfig(), jax.devices()[:1])
        program = build_step(model, train, mesh, sequence_length=24, total_steps=2, num_languages=2)
        shapes = [leaf.shape for leaf in jax.tree.leaves(optax.tree_utils.tree_get(program.abstract_state, "mu"))]
        jaxpr = str(jax.make_jaxpr(program.run)(program.abstract_state, program.abstract_batch))
        return jaxpr.count("dot_general"), len(shapes)

    whole, all_moments = flops(("*",))
    head, one_moment = flops(("head.kernel",))
    assert one_moment == 1 < all_moments and head < 0.6 * whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainable": ("*", "layer.*")}, r"optimizer.trainable: 'layer.\*' matches no parameter; there are .*head"),
        ({"multipliers": {"lm_head": 2.0}}, r"optimizer.multipliers: 'lm_head' matches no parameter; there are "),
    ],
)
def test_a_pattern_that_matches_nothing_lists_the_paths(change, message):
    train = TrainConfig(batch_rows=8, optimizer=OptimizerConfig(**change))
    mesh = build_mesh(MeshConfig(), jax.devices()[:1])
    with pytest.raises(UsageError, match=message) as error:
        build_step(MODEL, train, mesh, sequence_length=24, total_steps=2, num_languages=2)
    assert "\n" not in str(error.value)


@given(st.lists(st.sampled_from(["*", "a.*", "*.bias", "b.kernel", "a.x.*", "?.kernel"]), min_size=1, max_size=3))
def test_the_parts_make_the_whole(patterns):
    tree = {"a": {"x": {"kernel": 1, "bias": 2}, "kernel": 3}, "b": {"kernel": 4, "bias": 5}}
    trainable, frozen = partition.split(tree, patterns)
    assert partition.merge(trainable, frozen) == partition.merge(frozen, trainable) == tree
    assert sorted(jax.tree.leaves(trainable) + jax.tree.leaves(frozen)) == [1, 2, 3, 4, 5]


def test_the_longest_pattern_gives_the_multiplier():
    multipliers = {"*": 3.0, "layers.*": 2.0, "layers.mlp.*": 0.5}
    paths = {"head.kernel": 3.0, "layers.attention.query.kernel": 2.0, "layers.mlp.up.kernel": 0.5}
    assert {path: partition.multiplier(path, multipliers) for path in paths} == paths
    assert partition.multiplier("head.kernel", {"layers.*": 2.0}) == 1.0


def test_norms_and_biases_do_not_decay():
    tree = {"layers": {"attention": {"query": {"kernel": 1, "bias": 1}, "query_norm": {"scale": 1}}}}
    mask = by_path(decay_mask(tree))
    assert {path for path, decays in mask.items() if decays} == {"layers.attention.query.kernel"}


@pytest.mark.parametrize("options", [{"trainable": ()}, {"multipliers": {"*": 0.0}}, {"new_rows_first": 1.5}])
def test_wrong_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        OptimizerConfig(**options)


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("embedding.kernel", "embedding"),
        ("head.kernel", "head"),
        ("layers.attention.query.kernel", "attention"),
        ("layers.attention.query_norm.scale", "norm"),
        ("layers.mlp_norm.scale", "norm"),
        ("layers.mlp.down.bias", "mlp"),
        ("layers.mlp.down.lora_a", "adapter"),
        ("embedding.new_rows", "adapter"),
    ],
)
def test_groups_of_telemetry(path, group):
    assert partition.group_of(path) == group
