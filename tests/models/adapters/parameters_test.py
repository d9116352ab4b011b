from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import AdapterConfig, MeshConfig, ModelConfig
from seallm_jax.models.adapters.parameters import adapt_parameters, by_path, merge_adapter, replace_parameters
from seallm_jax.models.layout import abstract_decoder, initialize, parameter_shardings

CONFIG = ModelConfig(
    vocabulary_size=100,
    padded_vocabulary_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=2,
    head_size=32,
)
ADAPTER = AdapterConfig(rank=4, targets=("query", "output", "head", "embedding"), quantize="int8")


@pytest.fixture(scope="module")
def meshes():
    return build_mesh(MeshConfig(), jax.devices()[:1]), build_mesh(MeshConfig(fsdp=4, tensor=2))


def adapted_on(mesh):
    base = nnx.state(initialize(CONFIG, seed=0, mesh=mesh))
    _, shapes = abstract_decoder(CONFIG, adapter=ADAPTER)
    parameters = adapt_parameters(base, CONFIG, ADAPTER, seed=1, shardings=parameter_shardings(shapes, mesh))
    ones = {path: np.ones(leaf.shape, np.float32) for path, leaf in by_path(shapes).items() if path.endswith("lora_b")}
    return base, replace_parameters(parameters, ones)


def test_adapted_and_merged_on_any_mesh_alike(meshes):
    merged = []
    for mesh in meshes:
        base, parameters = adapted_on(mesh)
        assert by_path(parameters)["final_norm.scale"] is by_path(base)["final_norm.scale"]
        _, plain = abstract_decoder(CONFIG)
        places = parameter_shardings(plain, mesh)
        result = merge_adapter(parameters, CONFIG, ADAPTER, shardings=places)
        assert jax.tree.map(lambda leaf: leaf.sharding, result) == places
        merged.append((by_path(parameters), by_path(result), by_path(base)))
    (one, one_merged, base), (many, many_merged, _) = merged
    for path, value in one.items():
        np.testing.assert_array_equal(value, many[path], path)
    for path, value in one_merged.items():
        np.testing.assert_allclose(value, many_merged[path], rtol=1e-6, atol=1e-6, err_msg=path)

    # adapted: the product is added to what the codes stand for; not adapted, but quantised: what the codes stand for
    a, b = np.asarray(one["layers.attention.query.lora_a"]), np.asarray(one["layers.attention.query.lora_b"])
    codes, scales = (np.asarray(one[f"layers.attention.query.kernel.{name}"]) for name in ("codes", "scales"))
    expected = codes * scales + ADAPTER.scale * np.einsum("lmr,lrhd->lmhd", a, b)
    np.testing.assert_allclose(one_merged["layers.attention.query.kernel"], expected, rtol=1e-5, atol=1e-6)
    up = one_merged["layers.mlp.up.kernel"], base["layers.mlp.up.kernel"]
    assert 0 < np.abs(up[0] - up[1]).max() < 1e-2 * np.abs(up[1]).max()
    for path in ("layers.mlp_norm.scale", "final_norm.scale"):
        np.testing.assert_array_equal(one_merged[path], base[path])


def test_replacing_checks_paths_and_shapes(meshes):
    base = nnx.state(initialize(CONFIG, seed=0, mesh=meshes[1]))
    new = replace_parameters(base, {"final_norm.scale": np.arange(64)})
    scale = by_path(new)["final_norm.scale"]
    np.testing.assert_array_equal(scale, np.arange(64))
    assert scale.dtype == jnp.float32 and scale.sharding == by_path(base)["final_norm.scale"].sharding
    with pytest.raises(KeyError, match="no parameter norm"):
        replace_parameters(base, {"norm": np.arange(64)})
    with pytest.raises(ValueError, match="final_norm.scale has shape"):
        replace_parameters(base, {"final_norm.scale": np.arange(63)})
