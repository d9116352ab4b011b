"""Attention by cuDNN: documents as offsets, what is lowered for a GPU, and numbers where there is one."""

from __future__ import annotations

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src.cudnn import fused_attention_stablehlo

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.kernels.attention.api import attention
from seallm_jax.kernels.attention.cudnn import cudnn_attention, documents, obstacle_of_device, obstacle_to_cudnn

B, T = 2, 24


@st.composite
def layouts(draw):
    """int32 [B, T]: documents of random ids one after another, padding (0) between and behind them."""
    rows = []
    for _ in range(B):
        lengths = draw(st.lists(st.integers(1, T), min_size=1, max_size=T))
        ids = [draw(st.booleans()) * (number + 1) for number in range(len(lengths))]
        row = np.repeat(ids, lengths)[:T]
        rows.append(np.pad(row, (0, T - len(row))))
    return np.stack(rows).astype(np.int32)


@settings(max_examples=100, deadline=None)
@given(layouts(), st.integers(1, T))
def test_runs_are_those_of_the_definition(segments, most):
    offsets, lengths, count = (np.asarray(x) for x in jax.jit(documents, static_argnums=1)(jnp.asarray(segments), most))
    assert offsets.shape == (B, most + 1) and lengths.shape == (B, most)
    for row in range(B):
        starts = [t for t in range(T) if t == 0 or segments[row, t] != segments[row, t - 1]]
        ends = [*starts[1:], T]
        assert count[row] == len(starts)
        expected = [end - start for start, end in zip(starts, ends, strict=True)][:most]
        assert lengths[row].tolist() == expected + [-1] * (most - len(expected))
        assert offsets[row].tolist() == starts[:most] + [-1] * (most + 1 - len(starts[:most]))


def of_documents(q, k, v, lengths, offsets, *, scale, window):
    """What cuDNN is said to compute: causal attention within each document; elsewhere nothing is written."""
    out = np.full(q.shape, np.nan, np.float32)
    for row in range(q.shape[0]):
        for start, length in zip(offsets[row], lengths[row], strict=False):
            if length < 0:
                break
            at = np.s_[row, start : start + length]
            scores = scale * np.einsum("thd,shd->hts", q[at], k[at])
            distance = np.subtract.outer(np.arange(length), np.arange(length))
            scores = np.where((distance >= 0) & (distance < (window or T)), scores, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[at] = np.einsum("hts,shd->thd", weights / weights.sum(-1, keepdims=True), v[at])
    return out


def emulated(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale, mask_type, sliding_window_length):
    """In the place of cuDNN, its definition in numpy."""
    assert mask_type == fused_attention_stablehlo.MaskType.PADDING_CAUSAL
    assert kv_seqlen is q_seqlen and kv_offsets is q_offsets and k.shape == v.shape == q.shape
    function = functools.partial(of_documents, scale=scale, window=sliding_window_length)
    return jax.pure_callback(function, jax.ShapeDtypeStruct(q.shape, q.dtype), q, k, v, q_seqlen, q_offsets)


def inputs(dtype=jnp.float32, heads=(4, 2), head_size=8, rows=B, length=T):
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(rows, length, n, head_size) for n in (heads[0], heads[1], heads[1], heads[0])]
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


@settings(max_examples=15, deadline=None)
@given(segments=layouts(), window=st.sampled_from([None, 3]), most=st.sampled_from([3, T]))
def test_documents_are_those_of_the_oracle_however_many_there_are(segments, window, most):
    q, k, v, _ = inputs()
    ids = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments}
    expected = attention(q, k, v, **ids, window=window, scale=0.3, implementation="reference")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(fused_attention_stablehlo, "dot_product_attention", emulated)
        found = cudnn_attention(q, k, v, jnp.asarray(segments), window=window, scale=0.3, most_documents=most)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.fixture
def a_gpu(monkeypatch):
    """As far as the checks of JAX go."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused_attention_stablehlo, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(fused_attention_stablehlo, "is_cuda_compute_capability_equal", lambda capability: False)


@pytest.mark.parametrize("axes", [None, {"fsdp": 2, "tensor": 4}], ids=str)
def test_a_program_for_gpus_calls_cudnn_forward_and_backward(a_gpu, axes):
    mesh = build_mesh(MeshConfig(**axes)) if axes else None
    q, k, v, cotangent = inputs(jnp.bfloat16, head_size=64, length=512)
    segments = jnp.ones((B, 512), jnp.int32)

    def gradients(q, k, v, cotangent):
        run = functools.partial(cudnn_attention, segment_ids_BxT=segments, window=100, scale=0.3, mesh=mesh)
        out, pullback = jax.vjp(run, q, k, v)
        return out, *pullback(cotangent)

    text = jax.jit(gradients).trace(q, k, v, cotangent).lower(lowering_platforms=("cuda",)).as_text()
    assert re.search(r"__cudnn\$fmhaSoftmax\b(?!Backward)", text) and "__cudnn$fmhaSoftmaxBackward" in text
    assert "max_seg_per_batch" in text and "PADDING_CAUSAL" in text


DEVICE = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0")
SWITCHES = {"window": None, "anchor": False, "soft_cap": 0.0, "alibi_slopes_H": None, "scale": 1.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"window": 100}, None),
        ({"window": jnp.int32(100)}, "must be known when the program is built"),
        ({"soft_cap": 30.0}, "no soft cap"),
        ({"alibi_slopes_H": jnp.ones(4)}, "no ALiBi"),
        ({"anchor": True}, "no anchor"),
        ({"dtype": jnp.float32}, "not float32"),
        ({"head_size": 256}, "at most 128"),
        ({"head_size": 60}, "multiples of 8"),
        ({"axes": {"fsdp": 1, "context": 8}}, "the mesh splits the positions"),
        (
            {"device": DEVICE.__dict__ | {"compute_capability": "8.0"}},
            "compute capability 9.0, and NVIDIA H100 has 8.0",
        ),
        ({"device": {"platform": "tpu", "device_kind": "TPU v4"}}, "a TPU v4, no NVIDIA GPU"),
    ],
    ids=str,
)
def test_what_it_cannot_serve(a_gpu, changes, said):
    query = jax.ShapeDtypeStruct((B, 512, 4, changes.get("head_size", 128)), changes.get("dtype", jnp.bfloat16))
    device = types.SimpleNamespace(**changes.get("device", DEVICE.__dict__))
    mesh = build_mesh(MeshConfig(**changes["axes"])) if "axes" in changes else None
    switches = SWITCHES | {name: value for name, value in changes.items() if name in SWITCHES}
    found = obstacle_to_cudnn(query, device, mesh, ShardingRules(), **switches)
    assert found is None if said is None else said in found


def test_old_or_missing_libraries_are_named(monkeypatch):
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 90500)
    assert obstacle_of_device(DEVICE) == "packed rows need cuDNN 9.6, and version 90500 is installed"
    monkeypatch.delattr(fused_attention_stablehlo, "check_cudnn_version")
    assert "no cuDNN attention of packed rows" in obstacle_of_device(DEVICE)


def test_it_is_refused_where_there_is_no_gpu():
    q, k, v, _ = inputs(jnp.bfloat16)
    ids = {"query_segment_ids_BxT": jnp.ones((B, T), jnp.int32), "key_segment_ids_BxS": jnp.ones((B, T), jnp.int32)}
    if jax.default_backend() != "gpu":
        with pytest.raises(
            SeallmError, match="cudnn cannot serve this call, because the device is a .*, no NVIDIA GPU"
        ):
            attention(q, k, v, **ids, implementation="cudnn")


@pytest.mark.skipif(
    jax.default_backend() != "gpu" or obstacle_of_device(jax.devices()[0]) is not None,
    reason="numbers of cuDNN need an NVIDIA GPU of compute capability 9.0 with cuDNN 9.6",
)
@pytest.mark.parametrize("lengths", [[512], [100, 1, 211, 150], [3] * 170], ids=["one", "some", "too many"])
@pytest.mark.parametrize("window", [None, 64])
def test_values_and_gradients_are_those_of_the_oracle(lengths, window):
    row = np.repeat(np.arange(1, len(lengths) + 1), lengths)
    segments = jnp.asarray(np.stack([np.pad(row, (0, 512 - len(row))), np.ones(512, int)]), jnp.int32)
    *arrays, cotangent = inputs(jnp.bfloat16, head_size=64, length=512)

    def run(implementation):
        ids = {"query_segment_ids_BxT": segments, "key_segment_ids_BxS": segments}
        function = functools.partial(attention, **ids, window=window, implementation=implementation)
        out, pullback = jax.vjp(function, *arrays)
        return out, *pullback(cotangent)

    for x, y in zip(jax.jit(run, static_argnums=0)("cudnn"), jax.jit(run, static_argnums=0)("reference"), strict=True):
        np.testing.assert_allclose(x.astype(jnp.float32), y.astype(jnp.float32), rtol=0.05, atol=0.05)
