"""Each tensor once, in the order in which a model runs, with all the parameters that it holds."""

import pytest

from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors, tied_names
from seallm_jax.models.families.registry import family_named
from tests.interop.small_models import FAMILIES, huggingface_config, model_shape


@pytest.mark.parametrize("model_type", FAMILIES)
def test_all_rows_of_the_table_once(model_type):
    config = model_shape(huggingface_config(model_type))
    tensors = checkpoint_tensors(config)
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    rows = family_named(config.family).weights(config)
    held = [row.path for tensor in tensors for row in tensor.rows]
    assert sorted(held) == sorted(row.path for row in rows for _ in row.names(config))
    layers = [tensor.layer for tensor in tensors if tensor.layer is not None]
    assert layers == sorted(layers) and set(layers) == set(range(config.num_layers))
    assert tensors[0].rows[0].path == "embedding.kernel"
    for tensor in tensors:
        assert tensor.name in [name for row in tensor.rows for name in row.names(config)]


def test_a_fused_tensor_holds_its_parts_together():
    fused = [
        t for t in checkpoint_tensors(model_shape(huggingface_config("bloom"))) if "query_key_value.weight" in t.name
    ]
    assert len(fused) == 3 and fused[1].layer == 1 and fused[0].shape == (96, 32)
    assert [row.path.split(".")[-2] for row in fused[0].rows] == ["query", "key", "value"]


def test_names_of_a_tied_head():
    assert tied_names(model_shape(huggingface_config("qwen2"))) == {"lm_head.weight"}
    assert tied_names(model_shape(huggingface_config("llama"))) == set()
