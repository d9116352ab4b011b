"""Every family, bit for bit, onto any mesh, and no more memory than the parameters take."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.interop import import_model as module
from seallm_jax.interop import tensor_block
from seallm_jax.interop.import_model import import_model
from seallm_jax.models.families.registry import family_named
from seallm_jax.models.layout import path_name
from tests.interop.small_models import FAMILIES, VOCABULARY, huggingface_config, write_folder


def expected_parameters(config, tensors):
    """By path, stacked, through the weight table alone."""
    found = {}
    for row in family_named(config.family).weights(config):
        layers = [row.from_checkpoint(tensors[name], config) for name in row.names(config)]
        array = np.stack(layers) if row.stacked else layers[0]
        if "V" in row.ours:
            array = np.pad(array, [(0, config.padded_vocabulary_size - VOCABULARY), (0, 0)])
        found[row.path] = array
    return found


def by_path(parameters):
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_as_it_is_stored(tmp_path, model_type):
    tensors = write_folder(tmp_path, huggingface_config(model_type))
    mesh = build_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    for imported in (
        import_model(tmp_path, param_dtype=jnp.bfloat16),
        import_model(tmp_path, mesh=mesh, param_dtype=jnp.bfloat16),
    ):
        expected, found = expected_parameters(imported.config, tensors), by_path(imported.parameters)
        assert expected.keys() == found.keys()
        for path, array in expected.items():
            assert found[path].dtype == jnp.bfloat16
            assert np.asarray(found[path]).tobytes() == array.tobytes(), path


@pytest.mark.parametrize("stored", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_tensors_are_cast_once(tmp_path, stored):
    tensors = write_folder(tmp_path, huggingface_config("llama"), dtype=stored)
    imported = import_model(tmp_path)
    for path, array in expected_parameters(imported.config, tensors).items():
        np.testing.assert_array_equal(by_path(imported.parameters)[path], array.astype(np.float32), err_msg=path)


@pytest.mark.parametrize(
    ("mesh", "rules"),
    [
        (MeshConfig(data=2, fsdp=2, tensor=2), ShardingRules()),
        (MeshConfig(data=8, fsdp=1), ShardingRules()),
        (MeshConfig(data=1, fsdp=3, tensor=1), ShardingRules(layers="fsdp", hidden=None)),
    ],
)
def test_replicas_and_split_layers(tmp_path, mesh, rules):
    tensors = write_folder(tmp_path, huggingface_config("bloom"))
    devices = jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor]
    imported = import_model(tmp_path, mesh=build_mesh(mesh, devices), rules=rules, param_dtype=jnp.bfloat16)
    expected = expected_parameters(imported.config, tensors)
    for path, leaf in by_path(imported.parameters).items():
        for shard in leaf.addressable_shards:
            assert np.asarray(shard.data).tobytes() == expected[path][shard.index].tobytes(), (path, shard.device)


def test_small_blocks(tmp_path, monkeypatch):
    """The same when tensors come in many blocks."""
    write_folder(tmp_path, huggingface_config("llama"))
    mesh = build_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    whole = by_path(import_model(tmp_path, mesh=mesh).parameters)
    monkeypatch.setattr(tensor_block, "BLOCK_BYTES", 1000)
    for path, leaf in by_path(import_model(tmp_path, mesh=mesh).parameters).items():
        np.testing.assert_array_equal(leaf, whole[path])


def test_a_process_reads_only_what_its_devices_hold(tmp_path, monkeypatch):
    """Of a tensor whose rows are split, each share is a range of the file."""
    from seallm_jax.interop.tensor_files import TensorInfo

    write_folder(tmp_path, huggingface_config("llama"))
    asked = []
    read = TensorInfo.read

    def record(self, buffer, start):
        asked.append((start, buffer.nbytes))
        read(self, buffer, start)

    monkeypatch.setattr(TensorInfo, "read", record)
    devices = jax.devices()[:4]

    class Half(jax.sharding.NamedSharding):
        """As if only the first two of four devices belonged to this process."""

        def addressable_devices_indices_map(self, shape):
            return dict(list(super().addressable_devices_indices_map(shape).items())[:2])

    mesh = build_mesh(MeshConfig(fsdp=4), devices)
    leaf = jax.ShapeDtypeStruct((3, 56, 32), jnp.float32)
    shares = module._Shares(leaf, Half(mesh, jax.sharding.PartitionSpec(None, None, "fsdp")))
    from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors
    from seallm_jax.interop.tensor_files import TensorFiles

    config = import_model(tmp_path).config
    asked.clear()
    down = [tensor for tensor in checkpoint_tensors(config) if tensor.rows[0].path == "layers.mlp.down.kernel"]
    with module._Reader(TensorFiles(tmp_path).tensors, config) as reader:
        reader.fill(down, {"layers.mlp.down.kernel": shares})
    assert asked == [(0, 16 * 56 * 2)] * 3  # 16 of 32 rows of bfloat16


def test_parameters_can_be_donated(tmp_path):
    """Arrays that came in as host memory are not written over behind anybody's back."""
    write_folder(tmp_path, huggingface_config("qwen2"))
    imported = import_model(tmp_path)
    before = {path: np.array(leaf) for path, leaf in by_path(imported.parameters).items()}
    doubled = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 2, tree), donate_argnums=0)(imported.parameters)
    again = import_model(tmp_path)
    for path, leaf in by_path(doubled).items():
        np.testing.assert_array_equal(leaf, before[path] * 2)
        np.testing.assert_array_equal(by_path(again.parameters)[path], before[path])


def test_a_checkpoint_without_the_prefix_of_its_class(tmp_path):
    values = huggingface_config("bloom")
    tensors = write_folder(tmp_path, values)
    bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
    assert bare.keys() != tensors.keys()
    save_file(bare, tmp_path / "model.safetensors")
    imported = import_model(tmp_path, param_dtype=jnp.bfloat16)
    expected = expected_parameters(imported.config, tensors)
    for path, leaf in by_path(imported.parameters).items():
        assert np.asarray(leaf).tobytes() == expected[path].tobytes(), path


def test_a_copy_of_a_tied_head_is_passed_over(tmp_path):
    tensors = write_folder(tmp_path, huggingface_config("qwen2"))
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, tmp_path / "model.safetensors")
    assert "head.kernel" not in by_path(import_model(tmp_path).parameters)


def test_parts_of_a_fused_tensor_that_is_missing(tmp_path):
    tensors = write_folder(tmp_path, huggingface_config("bloom"))
    del tensors["transformer.h.1.self_attention.query_key_value.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SeallmError, match=r"no tensor transformer\.h\.1\.self_attention\.query_key_value\.bias"):
        import_model(tmp_path)


def test_a_file_that_shrinks_while_it_is_read(tmp_path, monkeypatch):
    write_folder(tmp_path, huggingface_config("llama"))
    found = module.find_tensors

    def shrink(*arguments):
        result = found(*arguments)
        with open(tmp_path / "model.safetensors", "r+b") as stream:
            stream.truncate(5000)
        return result

    monkeypatch.setattr(module, "find_tensors", shrink)
    with pytest.raises(SeallmError, match=r"model\.safetensors became shorter"):
        import_model(tmp_path)


def test_the_decoder_is_made_of_the_parameters(tmp_path):
    write_folder(tmp_path, huggingface_config("llama"))
    imported = import_model(tmp_path)
    assert by_path(nnx.state(imported.decoder())).keys() == by_path(imported.parameters).keys()
