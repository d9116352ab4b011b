from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.schema import RopeConfig
from seallm_jax.models.rotary import attention_factor, rotary_frequencies, rotary_table, rotate

torch = pytest.importorskip("torch")
rope_utils = pytest.importorskip("transformers.modeling_rope_utils")
modeling_llama = pytest.importorskip("transformers.models.llama.modeling_llama")

KEYS = {
    "factor": "factor",
    "original_positions": "original_max_position_embeddings",
    "low_frequency_factor": "low_freq_factor",
    "high_frequency_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
    "truncate": "truncate",
}
USED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "original_positions", "low_frequency_factor", "high_frequency_factor"),
    "yarn": (
        *("factor", "original_positions", "beta_fast", "beta_slow"),
        *("attention_factor", "mscale", "mscale_all_dim", "truncate"),
    ),
}


def theirs(rope: RopeConfig, head_size: int, max_positions: int):
    """The rotary embedding of transformers; values of 0 that mean absence are left out."""
    from transformers import LlamaConfig, logging

    logging.set_verbosity_error()  # it warns of most values that are drawn here
    values = {KEYS[key]: getattr(rope, key) for key in USED[rope.type]}
    values = {key: value for key, value in values.items() if value != 0 or isinstance(value, bool)}
    config = LlamaConfig(
        hidden_size=4 * head_size,
        num_attention_heads=4,
        head_dim=head_size,
        max_position_embeddings=max_positions,
        rope_parameters={"rope_type": rope.type, "rope_theta": rope.theta, **values},
    )
    return modeling_llama.LlamaRotaryEmbedding(config)


@st.composite
def ropes(draw) -> RopeConfig:
    low = draw(st.floats(0.5, 4.0))
    slow = draw(st.floats(0.25, 4.0))
    optional = st.just(0.0) | st.floats(0.5, 2.0)
    return RopeConfig(
        type=draw(st.sampled_from(list(USED))),
        theta=draw(st.floats(50.0, 1e7)),
        factor=draw(st.floats(1.0, 64.0)),
        original_positions=draw(st.integers(16, 65536)),
        low_frequency_factor=low,
        high_frequency_factor=low + draw(st.floats(0.5, 8.0)),
        beta_fast=slow + draw(st.floats(0.25, 64.0)),
        beta_slow=slow,
        attention_factor=draw(optional),
        mscale=draw(optional),
        mscale_all_dim=draw(optional),
        truncate=draw(st.booleans()),
    )


@settings(max_examples=300, deadline=None)
@given(rope=ropes(), half=st.integers(2, 64))
def test_frequencies_are_those_of_transformers(rope, half):
    rotary = theirs(rope, 2 * half, max_positions=131072)
    found = rotary_frequencies(rope, head_size=2 * half, max_positions=131072)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, rotary.inv_freq.numpy(), rtol=1e-5)
    np.testing.assert_allclose(attention_factor(rope), rotary.attention_scaling, rtol=1e-7)


@pytest.mark.parametrize("kind", ["llama3", "yarn"])
def test_zero_original_positions_are_those_of_the_model(kind):
    found = rotary_frequencies(RopeConfig(kind, factor=4.0), head_size=16, max_positions=512)
    expected = rotary_frequencies(RopeConfig(kind, factor=4.0, original_positions=512), head_size=16, max_positions=9)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["default", "dynamic", "yarn"])
def test_turned_queries_are_those_of_transformers_at_long_distances(kind):
    rope = RopeConfig(kind, theta=500000.0, factor=8.0, original_positions=1000)
    rng = np.random.default_rng(0)
    x_BxTxHxD = rng.normal(size=(1, 64, 2, 32)).astype(np.float32)
    positions = np.sort(rng.choice(8000, 64, replace=False))[None]
    cosine, sine = theirs(rope, 32, max_positions=1000)(torch.tensor(x_BxTxHxD), torch.tensor(positions))
    q = torch.tensor(x_BxTxHxD).transpose(1, 2)
    expected = modeling_llama.apply_rotary_pos_emb(q, q, cosine, sine)[0].transpose(1, 2).numpy()
    table = rotary_table(rope, positions, np.ones_like(positions), head_size=32, max_positions=1000)
    # one rounding of an angle of 8000 radians is 5e-4
    np.testing.assert_allclose(rotate(jnp.asarray(x_BxTxHxD), table), expected, atol=2e-3)
    near = positions[0] < 100
    np.testing.assert_allclose(rotate(jnp.asarray(x_BxTxHxD), table)[:, near], expected[:, near], atol=1e-4)


def test_dynamic_frequencies_follow_each_document_of_a_packed_row():
    rope = RopeConfig("dynamic", factor=4.0, original_positions=10)
    lengths = (25, 7, 13, 3)  # of the documents; the last is padding
    positions = np.concatenate([np.arange(n) for n in lengths])[None]
    segments = np.repeat([1, 2, 3, 0], lengths)[None]
    make_table = jax.jit(functools.partial(rotary_table, rope, head_size=16, max_positions=99))
    table = make_table(positions, segments)
    for number, length in enumerate(lengths[:3], start=1):
        cosine, sine = theirs(rope, 16, max_positions=10)(torch.zeros(1), torch.arange(length)[None])
        inside = segments[0] == number
        np.testing.assert_allclose(table.cosine[0, inside], cosine[0, :, :8], atol=1e-5)
        np.testing.assert_allclose(table.sine[0, inside], sine[0, :, :8], atol=1e-5)


def test_dynamic_frequencies_while_a_text_grows_are_those_of_transformers():
    rope = RopeConfig("dynamic", factor=4.0, original_positions=10)
    rotary = theirs(rope, 16, max_positions=10)  # remembers how far it has come, as between steps of generation
    for start, stop in ((0, 7), (7, 8), (8, 12), (12, 13), (13, 14)):
        positions = np.arange(start, stop)[None]
        cosine, _ = rotary(torch.zeros(1), torch.tensor(positions))
        table = rotary_table(rope, positions, np.ones_like(positions), head_size=16, max_positions=99)
        np.testing.assert_allclose(table.cosine, cosine[..., :8], atol=1e-5)


def test_rotation_is_in_float32_and_keeps_the_dtype():
    x = jax.random.normal(jax.random.key(0), (1, 4, 2, 8), jnp.bfloat16)
    positions = jnp.arange(100, 104)[None]
    table = rotary_table(RopeConfig(), positions, positions, head_size=8, max_positions=200)
    assert table.cosine.dtype == jnp.float32
    found = rotate(x, table)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, rotate(x.astype(jnp.float32), table).astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_turning_by_a_product_is_the_same_and_so_is_its_gradient(dtype):
    x, weight = jax.random.normal(jax.random.key(0), (2, 2, 9, 3, 16), dtype)
    positions = jnp.arange(9 * 2).reshape(2, 9) * 37
    rope = RopeConfig("yarn", factor=4.0, original_positions=100)  # its attention factor is not 1
    table = rotary_table(rope, positions, jnp.ones_like(positions), head_size=16, max_positions=200)

    def turned(x, by_product):
        return rotate(x, table, by_product=by_product)

    assert turned(x, True).dtype == dtype
    tolerance = 1e-6 if dtype == jnp.float32 else 2**-8
    np.testing.assert_allclose(turned(x, True), turned(x, False), rtol=tolerance, atol=tolerance)
    gradients = [
        jax.grad(lambda x, way=way: jnp.sum(turned(x, way).astype(jnp.float32) * weight))(x) for way in (True, False)
    ]
    np.testing.assert_allclose(*gradients, rtol=tolerance, atol=tolerance)
