from __future__ import annotations

import jax
import pytest

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import AdapterConfig, MeshConfig, ModelConfig
from seallm_jax.models.adapters.layout import adapter_axes
from seallm_jax.models.adapters.parameters import by_path
from seallm_jax.models.layout import LOGICAL_AXES, abstract_decoder, logical_axes, parameter_shardings

CONFIG = ModelConfig(
    vocabulary_size=100,
    padded_vocabulary_size=128,
    hidden_size=256,
    intermediate_size=256,
    num_layers=3,
    num_heads=4,
    num_key_value_heads=4,
    head_size=64,
)


@pytest.mark.parametrize(
    ("path", "axes"),
    [
        ("layers.attention.query.lora_a", ("layers", "hidden", None)),
        ("layers.attention.query.lora_b", ("layers", None, "heads", "head_size")),
        ("layers.attention.output.lora_a", ("layers", "heads", "head_size", None)),
        ("mu.layers.mlp.down.lora_b", ("layers", None, "hidden")),
        ("layers.attention.output.kernel.codes", ("layers", "heads", "hidden")),
        ("layers.mlp.up.kernel.scales", ("layers", "hidden", "intermediate")),
        ("embedding.lora_a", ("vocabulary", None)),
        ("head.lora_a", ("hidden", None)),
        ("head.lora_b", (None, "vocabulary")),
        ("head.new_rows", ("vocabulary", "hidden")),
    ],
)
def test_axes_follow_those_of_the_kernel(path, axes):
    assert adapter_axes(path, LOGICAL_AXES) == logical_axes(path) == axes


def test_other_paths_are_none_of_its_business():
    assert adapter_axes("layers.attention.query.kernel", LOGICAL_AXES) is None
    assert adapter_axes("somewhere.lora_a", LOGICAL_AXES) is None
    with pytest.raises(KeyError):
        logical_axes("somewhere.lora_a")


def test_codes_are_split_like_the_kernels_that_they_stand_for():
    mesh = build_mesh(MeshConfig(fsdp=2, tensor=2), jax.devices()[:4])
    for quantize in ("nf4", "int8"):
        _, abstract = abstract_decoder(CONFIG, adapter=AdapterConfig(targets=("*",), quantize=quantize))
        shardings = by_path(parameter_shardings(abstract, mesh))
        for path, leaf in by_path(abstract).items():
            share = shardings[path].shard_shape(leaf.shape)
            if path.endswith(".codes"):
                assert 4 * jax.numpy.prod(jax.numpy.asarray(share)) == leaf.size, path
