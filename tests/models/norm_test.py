from __future__ import annotations

import dataclasses
import importlib

import jax.numpy as jnp
import numpy as np
import pytest

from seallm_jax.core.schema import ModelConfig
from seallm_jax.models.norm import hidden_norm, rms_norm

CONFIG = ModelConfig(hidden_size=24, norm_epsilon=1e-3)
SCALE, BIAS = np.random.default_rng(0).normal(size=(2, 24)).astype(jnp.bfloat16).astype(np.float32)
X = np.random.default_rng(1).normal(0.05, 0.1, size=(3, 5, 24)).astype(np.float32)  # epsilon and mean matter


def torch_norm(torch, module: str, name: str, dtype: str = "float32"):
    norm = getattr(importlib.import_module(module), name)(24, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(SCALE))
        if name == "LayerNorm":
            norm.bias.copy_(torch.tensor(BIAS))
    return norm.to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        ("rms", "transformers.models.olmo2.modeling_olmo2", "Olmo2RMSNorm"),
        ("rms", "transformers.models.llama.modeling_llama", "LlamaRMSNorm"),
        ("rms_one", "transformers.models.gemma2.modeling_gemma2", "Gemma2RMSNorm"),
        ("layer", "torch.nn", "LayerNorm"),
    ],
)
def test_norms_are_those_of_torch(kind, module, name, dtype):
    torch = pytest.importorskip("torch")
    expected = torch_norm(torch, module, name, dtype)(torch.tensor(X).to(getattr(torch, dtype)))
    norm = hidden_norm(dataclasses.replace(CONFIG, norm=kind), param_dtype=jnp.float32)
    norm.scale[...] = jnp.asarray(SCALE)
    if kind == "layer":
        norm.bias[...] = jnp.asarray(BIAS)
    found = norm(jnp.asarray(X, dtype))
    assert found.dtype == jnp.dtype(dtype)
    tolerance = 1e-5 if dtype == "float32" else 2**-7
    np.testing.assert_allclose(found.astype(np.float32), expected.float().detach(), rtol=tolerance, atol=tolerance)


def test_a_norm_across_heads_is_one_over_their_concatenation():
    torch = pytest.importorskip("torch")
    expected = torch_norm(torch, "transformers.models.olmo2.modeling_olmo2", "Olmo2RMSNorm")(torch.tensor(X))
    norm = rms_norm(CONFIG, (4, 6), param_dtype=jnp.float32)
    norm.scale[...] = jnp.asarray(SCALE).reshape(4, 6)
    found = norm(jnp.asarray(X).reshape(3, 5, 4, 6)).reshape(X.shape)
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["rms", "rms_one", "layer"])
def test_new_norms_only_normalise(kind):
    found = hidden_norm(dataclasses.replace(CONFIG, norm=kind, norm_epsilon=0.0), param_dtype=jnp.float32)(X)
    centred = X - X.mean(axis=-1, keepdims=True) if kind == "layer" else X
    expected = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
