"""Each optimizer against optax's own, used plainly; what decay leaves alone; how moments are kept."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers

from seallm_jax.core.schema import OptimizerConfig
from seallm_jax.training.optimizer import build_optimizer, decay_mask, map_moments

RATE, DECAY = 0.03, 0.2
OPTIONS = {"b1": 0.8, "b2": 0.9, "epsilon": 1e-5, "weight_decay": DECAY, "momentum": 0.9, "clip_norm": 0.0}
SHAPES = {
    "layers": {
        "attention": {
            "query": {"kernel": (2, 6, 2, 4), "bias": (2, 2, 4)},
            "output": {"kernel": (2, 2, 4, 6)},
        },
        "mlp": {"up": {"kernel": (2, 6, 10)}, "down": {"kernel": (2, 10, 6)}},
        "mlp_norm": {"scale": (2, 6)},
    },
    "embedding": {"kernel": (130, 140)},
}
IS_SHAPE = {"is_leaf": lambda leaf: isinstance(leaf, tuple)}


def draw(seed, dtype=jnp.float32):
    normal = np.random.default_rng(seed).standard_normal  # each shape of jax.random would be compiled
    return jax.tree.map(lambda shape: jnp.asarray(normal(shape), dtype), SHAPES, **IS_SHAPE)


def follow(optimizer, dtype=jnp.float32, steps=3):
    """Parameters after some updates."""

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return jax.tree.map(lambda p, u: p + u, params, updates), state

    params = draw(0, dtype)
    state = optimizer.init(params)
    for number in range(steps):
        params, state = step(params, state, draw(1 + number))
    return params, state


def plain(name):
    """What optax makes of the same settings."""
    mask = {"mask": decay_mask, "weight_decay": DECAY}
    if name == "adamw":
        return optax.adamw(RATE, b1=0.8, b2=0.9, eps=1e-5, **mask)
    if name == "lion":
        return optax.lion(RATE, b1=0.8, b2=0.9, **mask)
    return optax.adafactor(RATE, weight_decay_rate=RATE * DECAY, weight_decay_mask=decay_mask)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor"])
def test_it_is_that_of_optax(name):
    params, state = follow(build_optimizer(OptimizerConfig(name=name, **OPTIONS), RATE))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, follow(plain(name))[0])
    if name == "adafactor":  # the moments of a matrix are a row and a column
        sizes = [leaf.size for path, leaf in jax.tree_util.tree_leaves_with_path(state) if "embedding" in str(path)]
        assert sum(sizes) < 300


def test_muon_is_that_of_optax_one_matrix_at_a_time():
    """Layers and heads unfolded to the matrices that they are, AdamW on the rest."""
    params, _ = follow(build_optimizer(OptimizerConfig(name="muon", **OPTIONS), RATE))
    layers = params["layers"]
    for kernel, reads in (("query", 1), ("output", 2)):
        shape = SHAPES["layers"]["attention"][kernel]["kernel"]
        rows = int(np.prod(shape[1 : 1 + reads]))
        alone = optax.contrib.muon(
            RATE,
            beta=0.9,
            eps=1e-5,
            weight_decay=DECAY,
            consistent_rms=0.2,
            muon_weight_dimension_numbers={"w": MuonDimensionNumbers()},
        )
        update = jax.jit(alone.update)
        for layer in range(2):
            cut = lambda tree: {"w": tree["layers"]["attention"][kernel]["kernel"][layer].reshape(rows, -1)}  # noqa: B023, E731
            matrix = cut(draw(0))
            state = alone.init(matrix)
            for number in range(3):
                updates, state = update(cut(draw(1 + number)), state, matrix)
                matrix = optax.apply_updates(matrix, updates)
            found = layers["attention"][kernel]["kernel"][layer].reshape(rows, -1)
            np.testing.assert_allclose(found, matrix["w"], rtol=1e-3, atol=1e-5)
    adam = optax.adamw(RATE, b1=0.8, b2=0.9, eps=1e-5, nesterov=True, mask=decay_mask, weight_decay=DECAY)
    rest = follow(adam)[0]
    np.testing.assert_allclose(params["embedding"]["kernel"], rest["embedding"]["kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layers["mlp_norm"]["scale"], rest["layers"]["mlp_norm"]["scale"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lion", "adafactor", "muon"])
def test_moments_are_kept_in_half_the_memory(name):
    config = OptimizerConfig(name=name, state_dtype="bfloat16", **OPTIONS)
    params, state = follow(build_optimizer(config, RATE), steps=2)
    exact, wide = follow(build_optimizer(OptimizerConfig(name=name, **OPTIONS), RATE), steps=2)
    kept = []
    map_moments(lambda leaf, _: kept.append(leaf.dtype) or leaf, state, params)
    assert kept and set(kept) == {jnp.dtype(jnp.bfloat16)}
    assert jax.tree.structure(state) == jax.tree.structure(wide)
    change = jax.tree.map(lambda a, b: np.abs(np.asarray(a - b)).mean(), params, exact)
    assert max(jax.tree.leaves(change)) < 0.05 * RATE


def test_narrow_parameters_do_not_narrow_the_update():
    """Gradients and moments are float32 although the parameters are bfloat16."""
    optimizer = build_optimizer(OptimizerConfig(**OPTIONS), RATE)
    params = draw(0, jnp.bfloat16)
    updates, state = jax.jit(optimizer.update)(draw(1), optimizer.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(optax.tree_utils.tree_get(state, "nu"))} == {jnp.dtype(jnp.float32)}


def test_second_moments_that_would_not_move_are_refused():
    with pytest.raises(ValueError, match=r"b2 is 0.999; state_dtype=bfloat16 needs at most 0.99"):
        OptimizerConfig(state_dtype="bfloat16", b2=0.999)
    assert OptimizerConfig(name="adafactor", state_dtype="bfloat16", b2=0.999)


def test_update_is_adamw_with_clipping_and_no_decay_on_norms():
    config = OptimizerConfig(weight_decay=0.5, clip_norm=1.0)
    params = {"final_norm": {"scale": jnp.ones(3)}, "head": {"kernel": jnp.full((2, 2), 2.0)}}
    gradients = jax.tree.map(lambda p: jnp.full_like(p, 3.0), params)
    optimizer = build_optimizer(config, 0.1)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # the first Adam update is the sign of the gradient, whatever its scale
    np.testing.assert_allclose(updates["final_norm"]["scale"], -0.1, rtol=1e-5)
    np.testing.assert_allclose(updates["head"]["kernel"], -0.1 * (1 + 0.5 * 2.0), rtol=1e-5)


def test_clip_norm_zero_does_not_clip():
    gradients = {"kernel": jnp.full((4,), 100.0)}
    for clip_norm, expected in ((0.0, 100.0), (1.0, 0.5)):
        optimizer = build_optimizer(OptimizerConfig(clip_norm=clip_norm, b1=0.0), 0.1)
        _, state = optimizer.update(gradients, optimizer.init(gradients), gradients)
        np.testing.assert_allclose(optax.tree_utils.tree_get(state, "mu")["kernel"], expected, rtol=1e-6)


def test_decay_mask_goes_by_path():
    mask = decay_mask({"layers": {"attention_norm": {"scale": 1}, "mlp": {"gate": {"kernel": 1}}}})
    assert mask == {"layers": {"attention_norm": {"scale": False}, "mlp": {"gate": {"kernel": True}}}}
