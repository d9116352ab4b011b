from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.mlp import ACTIVATIONS, MLP

CONFIG = ModelConfig(hidden_size=6, intermediate_size=10, initializer_range=0.5)


def test_activations_are_those_of_transformers():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("transformers.activations").ACT2FN
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom").bloom_gelu_forward
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    functions = {"silu": [theirs["silu"]], "gelu": [theirs["gelu"]]}
    functions["gelu_tanh"] = [theirs["gelu_pytorch_tanh"], bloom]
    for name, expected in functions.items():
        for function in expected:
            np.testing.assert_allclose(ACTIVATIONS[name](x), function(torch.tensor(x)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("gated", "bias"), [(True, False), (False, True)])
def test_gated_and_plain_with_and_without_biases(gated, bias):
    config = dataclasses.replace(CONFIG, gated=gated, mlp_bias=bias, activation="gelu_tanh")
    mlp = MLP(config, rngs=nnx.Rngs(0), param_dtype=jnp.float32)
    parts = {name: getattr(mlp, name) for name in ("gate", "up", "down") if getattr(mlp, name) is not None}
    assert set(parts) == {"gate", "up", "down"} - (set() if gated else {"gate"})
    rng, values = np.random.default_rng(0), {}
    for name, part in parts.items():
        values[name] = np.asarray(part.kernel[...]), 0.0
        assert (part.bias is not None) == bias
        if bias:
            assert not part.bias[...].any()
            values[name] = np.asarray(part.kernel[...]), rng.normal(size=part.bias.shape)
            part.bias[...] = jnp.asarray(values[name][1], jnp.float32)

    def apply(name, x):
        return x @ values[name][0] + values[name][1]

    x = rng.normal(size=(2, 3, 6))
    inner = np.asarray(jax.nn.gelu(apply("gate" if gated else "up", x)))
    inner = inner * apply("up", x) if gated else inner
    found = mlp(jnp.asarray(x, jnp.float32), lambda array, *axes: array)
    np.testing.assert_allclose(found, apply("down", inner), rtol=1e-4, atol=1e-5)
