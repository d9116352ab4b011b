from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.schema import ModelConfig, RopeConfig
from seallm_jax.kernels.attention.api import attention
from seallm_jax.models.attention import Attention, Context
from seallm_jax.models.rotary import rotary_table

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = ModelConfig(hidden_size=24, num_heads=4, num_key_value_heads=2, head_size=8, initializer_range=0.3)
SIZES = {
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "attn_implementation": "eager",
}
T = 7


def qwen3():
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3RotaryEmbedding

    config = transformers.Qwen3Config(**SIZES, head_dim=8)
    return Qwen3Attention(config, 0), Qwen3RotaryEmbedding(config)


def olmo2():
    from transformers.models.olmo2.modeling_olmo2 import Olmo2Attention, Olmo2RotaryEmbedding

    config = transformers.Olmo2Config(**SIZES, head_dim=8)
    return Olmo2Attention(config, 0), Olmo2RotaryEmbedding(config)


@pytest.mark.parametrize(("make", "query_key_norm"), [(qwen3, "head"), (olmo2, "projection")])
def test_norms_and_biases_are_where_transformers_has_them(make, query_key_norm):
    torch.manual_seed(0)
    theirs, rotary = make()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    config = dataclasses.replace(CONFIG, query_key_norm=query_key_norm, query_key_value_bias=True, output_bias=True)
    ours = Attention(config, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    for name, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
        linear, projection = getattr(theirs, f"{letter}_proj"), getattr(ours, name)
        projection.kernel[...] = jnp.asarray(linear.weight.detach().numpy().T).reshape(projection.kernel.shape)
        projection.bias[...] = jnp.asarray(linear.bias.detach().numpy()).reshape(projection.bias.shape)
        if name in ("query", "key"):
            norm = getattr(ours, f"{name}_norm")
            norm.scale[...] = jnp.asarray(getattr(theirs, f"{letter}_norm").weight.detach()).reshape(norm.scale.shape)

    x = np.random.default_rng(0).normal(size=(2, T, 24)).astype(np.float32)
    positions = np.tile(np.arange(T), (2, 1))
    mask = torch.full((T, T), -torch.inf).triu(1)[None, None]
    with torch.no_grad():
        expected = theirs(torch.tensor(x), rotary(torch.tensor(x), torch.tensor(positions)), mask)[0]

    segments = jnp.ones_like(positions)
    context = Context(
        rotary=rotary_table(RopeConfig(), positions, segments, head_size=8, max_positions=T),
        attend=functools.partial(attention, query_segment_ids_BxT=segments, key_segment_ids_BxS=segments),
        place=lambda array, *axes: array,
    )
    found, cache = jax.jit(lambda x: ours(x, context, None, jnp.int32(0)))(x)
    assert cache is None
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
