from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.cross_entropy.api import linear_log_probability
from seallm_jax.kernels.cross_entropy.chunked_xla import chunked_xla_log_probability
from seallm_jax.kernels.cross_entropy.reference import reference_log_probability

B, T, M = 2, 5, 16
VARIANTS = {
    "one chunk": functools.partial(chunked_xla_log_probability, chunk=1024),
    "many chunks": functools.partial(chunked_xla_log_probability, chunk=16),
    "reference": reference_log_probability,
}


def random_problem(seed: int, V: int, logical_size: int, rows: int = B, positions: int = T):
    keys = jax.random.split(jax.random.key(seed), 4)
    hidden = jax.random.normal(keys[0], (rows, positions, M))
    output = jax.random.normal(keys[1], (V, M))
    targets = jax.random.randint(keys[2], (rows, positions), 0, logical_size)
    cotangent = jax.random.normal(keys[3], (rows, positions))
    return hidden, output, targets, cotangent


@functools.partial(jax.jit, static_argnames=("variant", "logical_size"))
def values_and_gradients(hidden, output, targets, cotangent, *, variant, logical_size):
    def run(hidden, output):
        return tuple(VARIANTS[variant](hidden, output, targets, logical_size=logical_size))[:2]

    log_probability, pullback, correct = jax.vjp(run, hidden, output, has_aux=True)
    return log_probability, correct, *pullback(cotangent)


@pytest.mark.parametrize("variant", ["one chunk", "many chunks"])
@pytest.mark.parametrize(("V", "logical_size"), [(256, 256), (256, 131), (128, 1), (37, 30)])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([0.01, 1.0, 100.0]))
def test_values_and_gradients_are_those_of_the_oracle(variant, V, logical_size, seed, scale):
    hidden, output, targets, cotangent = random_problem(seed, V, logical_size)
    run = functools.partial(values_and_gradients, scale * hidden, output, targets, cotangent, logical_size=logical_size)
    found, expected = run(variant=variant), run(variant="reference")
    np.testing.assert_array_equal(found[1], expected[1])
    for name, i in {"value": 0, "d hidden": 2, "d output": 3}.items():
        x, y = found[i], expected[i]
        # Rounding of the logits, which grow with the scale, becomes a relative error of the probabilities.
        np.testing.assert_allclose(x, y, rtol=2e-5 * max(1.0, scale), atol=2e-5 * max(1.0, scale), err_msg=name)


@functools.partial(jax.jit, static_argnames=("variant", "logical_size", "soft_cap", "entropy"))
def all_values_and_gradients(hidden, output, targets, cotangents, *, variant, **options):
    """Every differentiable result, and the gradients of all of them at once; `cotangents` [3, B, T]."""

    def run(hidden, output):
        result = VARIANTS[variant](hidden, output, targets, **options)
        values = result.log_probability, result.logsumexp, result.entropy
        return tuple(x for x in values if x is not None), result.correct

    values, pullback, correct = jax.vjp(run, hidden, output, has_aux=True)
    return *values, correct, *pullback(tuple(cotangents[: len(values)]))


@pytest.mark.parametrize("variant", ["one chunk", "many chunks"])
@pytest.mark.parametrize("soft_cap", [0.0, 3.0])
@pytest.mark.parametrize("entropy", [False, True], ids=["", "entropy"])
@pytest.mark.parametrize(("V", "logical_size"), [(256, 256), (256, 131)])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**20), scale=st.sampled_from([0.01, 1.0, 10.0]))
def test_switches_alone_and_together_are_those_of_the_oracle(variant, soft_cap, entropy, V, logical_size, seed, scale):
    hidden, output, targets, _ = random_problem(seed, V, logical_size)
    cotangents = jax.random.normal(jax.random.key(seed + 1), (3, B, T))
    run = functools.partial(
        all_values_and_gradients,
        scale * hidden,
        output,
        targets,
        cotangents,
        logical_size=logical_size,
        soft_cap=soft_cap,
        entropy=entropy,
    )
    found, expected = run(variant=variant), run(variant="reference")
    for x, y in zip(found, expected, strict=True):
        if y.dtype == jnp.bool_:
            if not soft_cap:  # where the cap flattens large logits, which of two is larger is a matter of rounding
                np.testing.assert_array_equal(x, y)
            continue
        np.testing.assert_allclose(x, y, rtol=2e-5 * max(1.0, scale), atol=3e-5 * max(1.0, scale))


def test_values_and_gradients_are_those_of_float64():
    hidden, output, targets, _ = random_problem(0, 256, 131)
    cotangents = jax.random.normal(jax.random.key(1), (3, B, T))
    found = all_values_and_gradients(
        hidden, output, targets, cotangents, variant="many chunks", logical_size=131, soft_cap=3.0, entropy=True
    )
    torch = pytest.importorskip("torch")
    h, w = (torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True) for x in (hidden, output))
    logits = 3.0 * torch.tanh((h @ w[:131].T) / 3.0)  # as Gemma2ForCausalLM caps them
    distribution = torch.distributions.Categorical(logits=logits)
    values = distribution.log_prob(torch.tensor(np.asarray(targets))), logits.logsumexp(-1), distribution.entropy()
    sum((c * x).sum() for c, x in zip(torch.tensor(np.asarray(cotangents)), values, strict=True)).backward()
    expected = [x.detach().numpy() for x in (*values, h.grad, w.grad)]
    for x, y in zip((*found[:3], *found[4:]), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_z_loss_has_the_gradient_of_finite_differences(variant):
    hidden, output, targets, _ = random_problem(3, 64, 50, rows=1, positions=2)
    direction = jax.random.normal(jax.random.key(9), hidden.shape)

    def loss(step):
        result = VARIANTS[variant](hidden + step * direction, output, targets, logical_size=50, soft_cap=20.0)
        return (-result.log_probability + 0.1 * result.logsumexp**2).sum()

    slope = (loss(1e-2) - loss(-1e-2)) / 2e-2
    np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=1e-3)


def test_oracle_is_the_cross_entropy_of_optax():
    hidden, output, targets, _ = random_problem(0, 64, 50)
    found = linear_log_probability(hidden, output, targets, logical_size=50, implementation="reference")
    logits = jnp.einsum("btm,vm->btv", hidden, output[:50], precision="highest")
    expected = -optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    np.testing.assert_allclose(found.log_probability, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.correct, logits.argmax(-1) == targets)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_rows_of_the_matrix_change_nothing_and_get_no_gradient(variant):
    hidden, output, targets, cotangent = random_problem(0, 256, 131)
    run = functools.partial(values_and_gradients, hidden, targets=targets, cotangent=cotangent, variant=variant)
    found = run(output=output, logical_size=131)
    other = run(output=output.at[131:].set(1e4), logical_size=131)
    for x, y in zip(found, other, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.any(found[3][131:])


def test_gradient_of_a_float32_matrix_stays_float32_under_bfloat16():
    hidden, output, targets, cotangent = random_problem(0, 256, 256, rows=8, positions=32)
    run = functools.partial(values_and_gradients, targets=targets, cotangent=cotangent, logical_size=256)
    exact = run(hidden, output, variant="reference")
    found = run(hidden.astype(jnp.bfloat16), output, variant="many chunks")
    assert [x.dtype for x in found] == [jnp.float32, jnp.bool_, jnp.bfloat16, jnp.float32]
    np.testing.assert_allclose(found[0], exact[0], atol=0.1)
    np.testing.assert_allclose(found[3], exact[3], atol=0.1)


def test_bfloat16_matrices_are_cut_as_they_are():
    hidden, output, targets, cotangent = random_problem(0, 264, 250, rows=8, positions=32)
    inputs = 0.1 * hidden.astype(jnp.bfloat16), output.astype(jnp.bfloat16), targets, cotangent
    found = values_and_gradients(*inputs, variant="many chunks", logical_size=250)
    expected = values_and_gradients(*inputs, variant="reference", logical_size=250)
    assert [x.dtype for x in found] == [jnp.float32, jnp.bool_, jnp.bfloat16, jnp.bfloat16]
    for i in (0, 2, 3):
        x, y = (np.asarray(values[i], np.float32) for values in (found, expected))
        assert np.abs(x - y).max() <= 0.02 * max(1.0, np.abs(y).max())
    if jax.default_backend() == "cpu":  # where products are taken in float32, of one chunk at a time
        program = values_and_gradients.lower(*inputs, variant="many chunks", logical_size=250).compile().as_text()
        assert "f32[264,16]" not in program and "f32[16,16]" in program


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"fsdp": 4, "tensor": 2}], ids=str)
def test_value_and_gradients_do_not_depend_on_the_mesh(axes):
    hidden, output, targets, cotangent = random_problem(0, 512, 400, rows=8)
    run = functools.partial(values_and_gradients, variant="many chunks", logical_size=400)
    expected = run(hidden, output, targets, cotangent)
    mesh, rules = build_mesh(MeshConfig(**axes)), ShardingRules()
    found = run(
        jax.device_put(hidden, rules.sharding(mesh, "batch", "sequence", None)),
        jax.device_put(output, rules.sharding(mesh, "vocabulary", "hidden")),
        jax.device_put(targets, rules.sharding(mesh, "batch", "sequence")),
        jax.device_put(cotangent, rules.sharding(mesh, "batch", "sequence")),
    )
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_a_large_vocabulary_never_becomes_full_logits():
    rows, positions, V = 4, 64, 1 << 16
    shapes = [((rows, positions, M), jnp.float32), ((V, M), jnp.float32), ((rows, positions), jnp.int32)]

    def loss(hidden, output, targets):
        return linear_log_probability(hidden, output, targets, logical_size=V).log_probability.sum()

    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*arguments).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < rows * positions * V * 4 / 3


def test_wrong_arguments_are_errors():
    hidden, output, targets, _ = random_problem(0, 64, 50)
    with pytest.raises(SeallmError, match="no implementation 'fused'"):
        linear_log_probability(hidden, output, targets, logical_size=50, implementation="fused")
    with pytest.raises(ValueError, match="logical_size 65 of an output matrix with 64 rows"):
        linear_log_probability(hidden, output, targets, logical_size=65)
    with pytest.raises(ValueError, match="soft_cap -1.0"):
        linear_log_probability(hidden, output, targets, logical_size=50, soft_cap=-1.0)
    with pytest.raises(ValueError, match="targets"):
        linear_log_probability(hidden, output, targets[:, 1:], logical_size=50)
