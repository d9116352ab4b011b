from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.kernels.attention.api import IMPLEMENTATIONS, attention
from seallm_jax.kernels.attention.chunked_xla import chunked_xla_attention

B, T = 2, 21
HEADS = [(2, 2), (4, 2)]  # query heads, key/value heads
VARIANTS = {  # what the shared suite holds against the oracle: a row in one block, and in many with a ragged end
    "one block": chunked_xla_attention,
    "many blocks": functools.partial(chunked_xla_attention, block=8),
}


def segment_ids(rows: int, length: int) -> st.SearchStrategy[np.ndarray]:
    """int32 [rows, length]: documents numbered from 1, one after another, then padding (0); also empty rows."""
    lengths = st.lists(st.integers(1, length), max_size=6)

    def build(lengths_of_rows: list[list[int]]) -> np.ndarray:
        out = np.zeros((rows, length), np.int32)
        for row, documents in enumerate(lengths_of_rows):
            ends = np.minimum(np.cumsum([0, *documents]), length)
            for number, (start, end) in enumerate(zip(ends[:-1], ends[1:], strict=True), start=1):
                out[row, start:end] = number
        return out

    return st.lists(lengths, min_size=rows, max_size=rows).map(build)


def random_qkv(heads: tuple[int, int], seed: int, length: int = T, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(seed), 3)
    H, K = heads
    return tuple(jax.random.normal(key, (B, length, n, 8), dtype) for key, n in zip(keys, (H, K, K), strict=True))


@functools.partial(jax.jit, static_argnames=("variant", "causal"))
def values_and_gradients(q, k, v, cotangent, segments, *, variant, causal):
    implementation = VARIANTS.get(variant, IMPLEMENTATIONS["reference"])

    def run(q, k, v):
        return implementation(q, k, v, segments, segments, None, None, causal=causal, scale=0.3)

    out, pullback = jax.vjp(run, q, k, v)
    return out, *pullback(cotangent)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@settings(max_examples=20, deadline=None)
@given(segments=segment_ids(B, T), seed=st.integers(0, 2**20))
def test_values_and_gradients_are_those_of_the_oracle(variant, heads, causal, segments, seed):
    q, k, v = random_qkv(heads, seed)
    cotangent = jax.random.normal(jax.random.key(seed + 1), q.shape)
    found = values_and_gradients(q, k, v, cotangent, segments, variant=variant, causal=causal)
    expected = values_and_gradients(q, k, v, cotangent, segments, variant="reference", causal=causal)
    for name, x, y in zip(("out", "dq", "dk", "dv"), found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_oracle_is_the_attention_of_jax(heads):
    q, k, v = random_qkv(heads, 0)
    segments = jnp.array([[1] * T, [1] * 6 + [2] * 10 + [3] * 5])
    found = attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments, implementation="reference")
    mask = segments[:, None, :, None] == segments[:, None, None, :]
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_yields_zeros_and_no_nan(variant):
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.zeros((B, T), jnp.int32).at[0, :5].set(1)
    for x in values_and_gradients(q, k, v, jnp.ones_like(q), segments, variant=variant, causal=True):
        assert np.isfinite(x).all()
        assert not np.any(x[0, 5:]) and not np.any(x[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_leaks_between_documents_nor_from_the_future(variant):
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.array([[1] * 10 + [2] * 11] * B)
    run = functools.partial(values_and_gradients, cotangent=jnp.ones_like(q), variant=variant, causal=True)
    before = run(q, k, v, segments=segments)[0]
    other_document = run(q, k.at[:, :10].add(3.0), v.at[:, :10].add(3.0), segments=segments)[0]
    np.testing.assert_array_equal(before[:, 10:], other_document[:, 10:])
    future = run(q, k.at[:, 15:].add(3.0), v.at[:, 15:].add(3.0), segments=segments)[0]
    np.testing.assert_array_equal(before[:, :15], future[:, :15])
    assert np.any(before[:, 15:] != future[:, 15:])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_queries_of_any_order_against_a_longer_set_of_keys(implementation):
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.ones((B, T), jnp.int32)
    everything = attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments)
    chosen = jnp.array([17, 3, 8])
    some = attention(
        q[:, chosen],
        k,
        v,
        query_segment_ids_BxT=segments[:, chosen],
        key_segment_ids_BxS=segments,
        query_order_BxT=chosen[None],
        key_order_BxS=jnp.arange(T)[None],
        implementation=implementation,
    )
    np.testing.assert_allclose(some, everything[:, chosen], rtol=1e-5, atol=1e-5)


def test_bfloat16_keeps_its_dtype_and_sums_in_float32():
    q, k, v = random_qkv((4, 2), 0, dtype=jnp.bfloat16)
    segments = jnp.ones((B, T), jnp.int32)
    found = attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments)
    exact = attention(
        *(x.astype(jnp.float32) for x in (q, k, v)), query_segment_ids_BxT=segments, key_segment_ids_BxS=segments
    )
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.03)


def test_long_rows_never_hold_all_scores():
    length, heads = 4096, 4
    shape = jax.ShapeDtypeStruct((1, length, heads, 32), jnp.float32)
    segments = jnp.ones((1, length), jnp.int32)

    def loss(q, k, v):
        return attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments).sum()

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(shape, shape, shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < length * length * heads * 4 / 3


def test_wrong_arguments_are_errors():
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.ones((B, T), jnp.int32)
    with pytest.raises(SeallmError, match="no implementation 'flash'; use auto or one of reference, chunked_xla"):
        attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments, implementation="flash")
    with pytest.raises(ValueError, match="needs their order"):
        attention(q[:, :3], k, v, query_segment_ids_BxT=segments[:, :3], key_segment_ids_BxS=segments)
    with pytest.raises(ValueError, match="segment ids"):
        attention(q, k, v, query_segment_ids_BxT=segments[:1], key_segment_ids_BxS=segments)
    with pytest.raises(ValueError, match="attention of q"):
        attention(q, k[:, :3], v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments)
