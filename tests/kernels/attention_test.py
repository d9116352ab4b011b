from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seallm_jax.core.errors import SeallmError
from seallm_jax.kernels.attention.api import attention
from seallm_jax.kernels.attention.chunked_xla import chunked_xla_attention
from seallm_jax.kernels.attention.reference import reference_attention

B, T = 2, 21
SLOPES = jnp.array([0.5, 0.25, 0.1, 0.02])
SWITCHES = {  # all run with 4 query and 2 key/value heads; a window of "drawn" is an array
    "window": {"window": 4},
    "window of an array": {"window": "drawn"},
    "soft cap": {"soft_cap": 0.7},
    "ALiBi": {"alibi_slopes_H": SLOPES},
    "anchor": {"anchor": True},
    "all": {"window": 5, "soft_cap": 0.7, "alibi_slopes_H": SLOPES, "anchor": True},
    "all, window of an array": {"window": "drawn", "soft_cap": 0.7, "alibi_slopes_H": SLOPES, "anchor": True},
    "full, all but the window": {"causal": False, "soft_cap": 0.7, "alibi_slopes_H": SLOPES, "anchor": True},
}
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


@functools.partial(jax.jit, static_argnames=("variant", "causal", "switches"))
def values_and_gradients(q, k, v, cotangent, segments, window=None, *, variant, causal=True, switches=None):
    implementation = VARIANTS.get(variant, reference_attention)
    options = {"causal": causal, "scale": 0.3} | SWITCHES.get(switches, {})
    if options.get("window") == "drawn":
        options["window"] = window

    def run(q, k, v):
        return implementation(q, k, v, segments, segments, None, None, **options)

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


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("switches", SWITCHES)
@settings(max_examples=8, deadline=None)
@given(segments=segment_ids(B, T), window=st.integers(1, T + 3), seed=st.integers(0, 2**20))
def test_switches_alone_and_together_are_those_of_the_oracle(variant, switches, segments, window, seed):
    q, k, v = random_qkv((4, 2), seed)
    cotangent = jax.random.normal(jax.random.key(seed + 1), q.shape)
    run = functools.partial(values_and_gradients, q, k, v, cotangent, segments, jnp.int32(window), switches=switches)
    for name, x, y in zip(("out", "dq", "dk", "dv"), run(variant=variant), run(variant="reference"), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("head_size", [64, 80, 96, 128, 256])
def test_head_sizes_and_rows_of_hundreds_of_documents(head_size):
    length = 520  # two blocks of the default size, the second ragged
    keys = jax.random.split(jax.random.key(head_size), 4)
    q, k, v, cotangent = (jax.random.normal(key, (1, length, 1, head_size)) for key in keys)
    segments = jnp.asarray(np.arange(length) // 2 + 1, jnp.int32)[None].at[:, 300:].set(200)
    options = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments, "window": 90, "soft_cap": 5.0}

    def run(implementation):
        out, pullback = jax.vjp(lambda *x: attention(*x, **options, implementation=implementation), q, k, v)
        return out, *pullback(cotangent)

    for x, y in zip(run("chunked_xla"), run("reference"), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_oracle_is_the_attention_of_jax(heads):
    q, k, v = random_qkv(heads, 0)
    segments = jnp.array([[1] * T, [1] * 6 + [2] * 10 + [3] * 5])
    found = attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments, implementation="reference")
    mask = segments[:, None, :, None] == segments[:, None, None, :]
    expected = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def torch_values_and_gradients(run, arrays, cotangent):
    """Output and gradients of `run`, a function of torch tensors, as numpy."""
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True) for x in arrays]
    out = run(*tensors)
    out.backward(torch.tensor(np.asarray(cotangent), dtype=torch.float64))
    return [x.detach().numpy() for x in (out, *(tensor.grad for tensor in tensors))]


def our_values_and_gradients(q, k, v, cotangent, **options):
    segments = jnp.ones(q.shape[:2], jnp.int32)

    def run(q, k, v):
        ids = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments}
        return attention(q, k, v, **ids, **options)

    out, pullback = jax.vjp(run, q, k, v)
    return out, *pullback(cotangent)


@pytest.mark.parametrize("implementation", ["reference", "chunked_xla"])
def test_window_and_soft_cap_are_those_of_gemma2_in_torch(implementation):
    torch = pytest.importorskip("torch")
    from transformers.masking_utils import sliding_window_overlay
    from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward

    q, k, v = random_qkv((4, 2), 0)
    cotangent = jax.random.normal(jax.random.key(1), q.shape)
    within = sliding_window_overlay(6)
    mask = torch.tensor([[0.0 if s <= t and within(0, 0, t, s) else -torch.inf for s in range(T)] for t in range(T)])
    module = torch.nn.Module().eval()
    module.num_key_value_groups = 2

    def eager(q, k, v):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return eager_attention_forward(module, q, k, v, mask.double(), scaling=0.3, softcap=0.7)[0]

    expected = torch_values_and_gradients(eager, (q, k, v), cotangent)
    options = {"window": 6, "soft_cap": 0.7, "scale": 0.3, "implementation": implementation}
    for x, y in zip(our_values_and_gradients(q, k, v, cotangent, **options), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", "chunked_xla"])
def test_alibi_is_that_of_bloom_in_torch(implementation):
    torch = pytest.importorskip("torch")
    from transformers import BloomConfig
    from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor

    q, k, v = random_qkv((4, 4), 0)
    cotangent = jax.random.normal(jax.random.key(1), q.shape)
    theirs = BloomAttention(BloomConfig(hidden_size=32, n_head=4), layer_idx=0).double().eval()
    theirs.query_key_value = torch.nn.Identity()
    theirs.dense = torch.nn.Identity()
    alibi = build_alibi_tensor(torch.ones(B, T), 4, torch.float64)
    mask = torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)

    def eager(q, k, v):
        fused = torch.stack([q, k, v], dim=3).reshape(B, T, -1)  # [B, T, H, 3, D], as BLOOM lays it out
        return theirs(fused, torch.zeros(B, T, 32), alibi, mask)[0].reshape(q.shape)

    slopes = jnp.asarray(np.array(alibi.reshape(B, 4, T)[0, :, 1]), jnp.float32)
    expected = torch_values_and_gradients(eager, (q, k, v), cotangent)
    options = {"alibi_slopes_H": slopes, "implementation": implementation}
    for x, y in zip(our_values_and_gradients(q, k, v, cotangent, **options), expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["reference", *VARIANTS])
def test_every_document_sees_the_anchor_and_no_other_foreign_key(variant):
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.array([[1] * 10 + [2] * 11] * B)
    run = functools.partial(
        values_and_gradients, cotangent=jnp.ones_like(q), segments=segments, variant=variant, switches="anchor"
    )
    before = run(q, k, v)[0]
    assert np.all(before[:, 10:] != run(q, k, v.at[:, 0].add(3.0))[0][:, 10:])
    np.testing.assert_array_equal(before[:, 10:], run(q, k, v.at[:, 1:10].add(3.0))[0][:, 10:])


@pytest.mark.parametrize("window", [0, -1, None, jnp.int32(0), 1000], ids=str)
def test_no_window_is_the_whole_document(window):
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.array([[1] * T, [1] * 6 + [2] * 10 + [3] * 5])
    ids = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments}
    np.testing.assert_array_equal(attention(q, k, v, **ids, window=window), attention(q, k, v, **ids))


def test_windows_of_layers_alternate_within_a_scan():
    q, k, v = random_qkv((4, 2), 0)
    ids = {"query_segment_ids_BxT": jnp.ones((B, T), jnp.int32), "key_segment_ids_BxS": jnp.ones((B, T), jnp.int32)}

    def loss(q, windows):
        return jax.lax.scan(lambda q, window: (attention(q, k, v, **ids, window=window), None), q, windows)[0].sum()

    def unrolled(q, windows):
        for window in windows:
            q = attention(q, k, v, **ids, window=window)
        return q.sum()

    found = jax.jit(jax.value_and_grad(loss))(q, jnp.array([3, 0, 5]))
    expected = jax.value_and_grad(unrolled)(q, [3, 0, 5])
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("implementation", ["reference", "chunked_xla"])
@pytest.mark.parametrize("options", [{}, {"window": 4, "alibi_slopes_H": SLOPES, "anchor": True}], ids=["", "switches"])
def test_queries_of_any_order_against_a_longer_set_of_keys(implementation, options):
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.ones((B, T), jnp.int32)
    everything = attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments, **options)
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
        **options,
    )
    np.testing.assert_allclose(some, everything[:, chosen], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["reference", "chunked_xla"])
def test_gaps_between_keys_do_not_count_where_positions_are_given(implementation):
    q, k, v = random_qkv((4, 2), 0)
    options = {"window": 4, "alibi_slopes_H": SLOPES, "implementation": implementation}
    segments = jnp.ones((B, T), jnp.int32)
    without = attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments, **options)[:, -1:]

    def with_gap(x, fill):  # three unused slots before the last token
        gap = jnp.full((B, 3, *x.shape[2:]), fill, x.dtype)
        return jnp.concatenate([x[:, :-1], gap, x[:, -1:]], axis=1)

    found = attention(
        q[:, -1:],
        with_gap(k, 9),
        with_gap(v, 9),
        query_segment_ids_BxT=segments[:, -1:],
        key_segment_ids_BxS=with_gap(segments, 0),
        query_order_BxT=jnp.full((B, 1), T - 1),
        key_order_BxS=with_gap(jnp.broadcast_to(jnp.arange(T), (B, T)), 0),
        **options,
    )
    np.testing.assert_allclose(found, without, rtol=1e-5, atol=1e-5)


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


@pytest.mark.parametrize("window", [3, jnp.int32(3)], ids=["integer", "array"])
def test_blocks_beyond_the_window_are_not_visited(window):
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.ones((B, T), jnp.int32)
    poisoned = v.at[:, :8].set(jnp.nan)  # a weight of zero would not hide it

    def run(v):
        return chunked_xla_attention(
            q, k, v, segments, segments, None, None, causal=True, scale=0.3, window=window, block=8
        )

    np.testing.assert_array_equal(run(poisoned)[:, 16:], run(v)[:, 16:])


def test_wrong_arguments_are_errors():
    q, k, v = random_qkv((4, 2), 0)
    segments = jnp.ones((B, T), jnp.int32)
    ids = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments}
    with pytest.raises(ValueError, match="a window of 3 looks back"):
        attention(q, k, v, **ids, window=3, causal=False)
    with pytest.raises(ValueError, match="soft_cap -1.0"):
        attention(q, k, v, **ids, soft_cap=-1.0)
    with pytest.raises(ValueError, match=r"slopes \(2,\) for 4 query heads"):
        attention(q, k, v, **ids, alibi_slopes_H=jnp.ones(2))
    with pytest.raises(SeallmError, match="no implementation 'flash'; use auto or one of reference, chunked_xla"):
        attention(q, k, v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments, implementation="flash")
    with pytest.raises(ValueError, match="needs their order"):
        attention(q[:, :3], k, v, query_segment_ids_BxT=segments[:, :3], key_segment_ids_BxS=segments)
    with pytest.raises(ValueError, match="segment ids"):
        attention(q, k, v, query_segment_ids_BxT=segments[:1], key_segment_ids_BxS=segments)
    with pytest.raises(ValueError, match="attention of q"):
        attention(q, k[:, :3], v, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments)
