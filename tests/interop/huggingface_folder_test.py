"""Folders that transformers loads, bytes that come back the same, and one clear error for each way to be wrong."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.schema import MeshConfig, ModelConfig, RopeConfig
from seallm_jax.core.vocabulary import Vocabulary
from seallm_jax.interop.huggingface import export_model, import_model
from seallm_jax.interop.model_card import ModelCard
from seallm_jax.models.layout import initialize
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer

VOCABULARY = 333  # no multiple of 128


def shape(vocabulary=VOCABULARY, **changes):
    values = {
        "vocabulary_size": vocabulary,
        "padded_vocabulary_size": Vocabulary.padded(vocabulary, tensor=2).padded_size,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_layers": 3,
        "num_heads": 4,
        "num_key_value_heads": 2,
        "head_size": 8,
        "rope": RopeConfig(theta=5000.0),
        "initializer_range": 0.2,
        "max_positions": 64,
    }
    return ModelConfig(**values | changes)


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = learn_tokenizer(["Xin chào các bạn. Selamat pagi, apa kabar? ສະບາຍດີ"] * 20, VOCABULARY)
    tokenizer.save(folder)
    assert 262 < tokenizer.size <= VOCABULARY
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tokenizer_folder):
    config = shape()
    model = initialize(config, seed=3)
    output = tmp_path_factory.mktemp("export") / "model"
    summary = export_model(nnx.state(model), config, tokenizer_folder, output, shard_bytes=30_000)
    return config, model, output, summary


@pytest.fixture
def broken(exported, tmp_path):
    """A copy to damage, in a single file."""
    config, model, output, _ = exported
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in output.glob("*.json"):
        shutil.copy(file, folder)
    (folder / "model.safetensors.index.json").unlink()
    save_file(all_tensors(output), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def all_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return {name: array for file in folder.glob("*.safetensors") for name, array in load_file(file).items()}


def digests(folder: pathlib.Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_the_folder_and_agrees(tmp_path, tokenizer_folder, tied):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = shape(tie_embeddings=tied)
    model = initialize(config, seed=1)
    export_model(nnx.state(model), config, tokenizer_folder, tmp_path / "model", shard_bytes=30_000)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert theirs.dtype == torch.float32
    assert theirs.get_input_embeddings().weight.shape[0] == VOCABULARY
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, (2, 21))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    positions = np.broadcast_to(np.arange(21), tokens.shape)
    hidden = model(tokens, positions, np.ones_like(tokens), compute_dtype=jnp.float32)
    logits = np.asarray(model.logits(hidden))[..., :VOCABULARY]
    assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()

    assert theirs.config.bos_token_id == 1 and theirs.config.pad_token_id == 3
    assert theirs.generation_config.eos_token_id == [2, 5]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ours = Tokenizer.load(tmp_path / "model")
    text = "Xin chào  ສະບາຍດີ 🙂"
    assert tokenizer(text).input_ids == ours.encode(text, bos=True)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
    assert chat == f"<s><|im_start|>user\n{text}<|im_end|>\n"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_export_of_import_is_byte_equal(exported, tokenizer_folder, tmp_path, dtype):
    config, model, _, _ = exported
    card = ModelCard(name="model")
    first, second = tmp_path / "first", tmp_path / "second"
    export_model(nnx.state(model), config, tokenizer_folder, first, dtype=dtype, card=card, shard_bytes=30_000)
    imported = import_model(first)
    export_model(imported.parameters, imported.config, first, second, dtype=dtype, card=card, shard_bytes=30_000)
    assert digests(first) == digests(second)
    assert len(list(first.glob("*.safetensors"))) > 1


def test_import_on_a_mesh_gives_the_same_parameters(exported):
    config, model, output, _ = exported
    mesh = build_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    imported = import_model(output, mesh=mesh)
    assert imported.config == config
    original = dict(nnx.to_flat_state(nnx.state(model)))
    loaded = dict(nnx.to_flat_state(imported.parameters))
    assert original.keys() == loaded.keys()
    for path, value in original.items():
        np.testing.assert_array_equal(np.asarray(loaded[path][...]), np.asarray(value[...]), err_msg=str(path))
    kernel = imported.decoder().layers.mlp.gate.kernel[...]
    assert kernel.sharding.spec == jax.sharding.PartitionSpec(None, "fsdp", "tensor")


def test_padding_depends_on_the_tensor_axis_and_is_never_exported(exported, tokenizer_folder, tmp_path):
    _, _, output, summary = exported
    imported = import_model(output, tensor=8)
    assert imported.config.padded_vocabulary_size == 1024
    embedding = imported.decoder().embedding.kernel[...]
    assert embedding.shape[0] == 1024 and not embedding[VOCABULARY:].any()
    export_model(imported.parameters, imported.config, tokenizer_folder, tmp_path / "again", shard_bytes=30_000)
    assert digests(tmp_path / "again") == digests(output)
    assert all_tensors(output)["lm_head.weight"].shape[0] == summary.vocabulary == VOCABULARY


def test_summary_and_index_count_what_was_written(exported):
    _, _, output, summary = exported
    tensors = all_tensors(output)
    assert summary.tensors == len(tensors) and summary.bytes == sum(array.nbytes for array in tensors.values())
    index = json.loads((output / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == summary.bytes
    assert set(index["weight_map"]) == set(tensors) and set(index["weight_map"].values()) == set(summary.files)


def test_export_needs_the_config_of_its_base(exported, tokenizer_folder, tmp_path):
    config, model, _, _ = exported
    with pytest.raises(SeallmError, match=r"has no config\.json"):
        export_model(nnx.state(model), config, tokenizer_folder, tmp_path / "model", base_directory=tmp_path)


def test_a_missing_tensor_is_named(broken):
    tensors = all_tensors(broken)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(SeallmError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        import_model(broken)


def test_an_unexpected_tensor_is_named(broken):
    save_file(all_tensors(broken) | {"model.layers.0.bias": np.zeros(3)}, broken / "model.safetensors")
    with pytest.raises(SeallmError, match=r"unexpected tensor model\.layers\.0\.bias"):
        import_model(broken)


def test_rotary_frequencies_of_old_checkpoints_are_left_out(broken, exported):
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32)}
    save_file(all_tensors(broken) | extra, broken / "model.safetensors")
    assert import_model(broken).config.num_layers == exported[0].num_layers


def test_a_wrong_shape_is_named(broken):
    tensors = all_tensors(broken)
    tensors["model.norm.weight"] = np.ones(31, np.float32)
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(SeallmError, match=r"model\.norm\.weight.*\(31,\).*\(32,\)"):
        import_model(broken)


def test_quantised_tensors_are_refused(broken):
    tensors = all_tensors(broken)
    tensors["model.norm.weight"] = np.ones(32, np.int8)
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(SeallmError, match="model.norm.weight.* is I8"):
        import_model(broken)


@pytest.mark.parametrize("keep", [0, 5, 200, -7])
def test_a_shard_cut_short_is_named(broken, keep):
    file = broken / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(SeallmError, match="model.safetensors .*damaged or cut short"):
        import_model(broken)


def test_a_shard_that_is_not_there_is_named(exported, tmp_path):
    shutil.copytree(exported[2], tmp_path / "model")
    next((tmp_path / "model").glob("model-00002*")).unlink()
    with pytest.raises(SeallmError, match="model-00002-of-.*is missing"):
        import_model(tmp_path / "model")


def test_pickles_are_refused(broken):
    (broken / "model.safetensors").rename(broken / "pytorch_model.bin")
    with pytest.raises(SeallmError, match="pytorch_model.bin, a pickle.*convert the checkpoint to safetensors"):
        import_model(broken)


def test_a_folder_without_weights_or_config_is_refused(broken, tmp_path):
    (broken / "model.safetensors").unlink()
    with pytest.raises(SeallmError, match="has no model.safetensors"):
        import_model(broken)
    (broken / "config.json").unlink()
    with pytest.raises(SeallmError, match="has no config.json"):
        import_model(broken)
    with pytest.raises(SeallmError, match="has no config.json"):
        import_model(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not supported; supported are LlamaForCausalLM"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "model_type is 'llama'"),
        ({"model_type": "mistral"}, "model_type is 'mistral'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "longrope"),
        ({"attention_bias": True}, r"no tensor model\.layers\.0\.self_attn\.q_proj\.bias"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"num_attention_heads": "four"}, "num_attention_heads is 'four'"),
    ],
)
def test_other_architectures_are_refused(broken, change, message):
    config = json.loads((broken / "config.json").read_text()) | change
    if "rope_scaling" in change:
        del config["rope_parameters"]
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(SeallmError, match=message):
        import_model(broken)


def test_tensors_of_eight_bits_are_refused(broken):
    import ml_dtypes

    tensors = all_tensors(broken)
    tensors["model.norm.weight"] = np.ones(32, ml_dtypes.float8_e4m3fn)
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(SeallmError, match=r"model\.norm\.weight.* is F8_E4M3; only .*not quantised"):
        import_model(broken)


@pytest.mark.parametrize("text", ["[]", '{"weight_map": 3}', "{}", '{"weight_map": {"a": 1}}', "{"])
def test_a_damaged_index_is_named(broken, text):
    (broken / "model.safetensors.index.json").write_text(text)
    with pytest.raises(SeallmError, match=r"model\.safetensors\.index\.json"):
        import_model(broken)


def test_a_diverged_model_is_not_exported(exported, tokenizer_folder, tmp_path):
    config, model, _, _ = exported
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "earlier").write_text("export")
    parameters = jax.tree.map(lambda x: x, nnx.state(model))
    parameters["final_norm"]["scale"] = nnx.Param(jnp.full(32, 1e6))
    with pytest.raises(SeallmError, match=r"model\.norm\.weight.*not finite in float16"):
        export_model(parameters, config, tokenizer_folder, tmp_path / "model", dtype="float16")
    assert [child.name for child in tmp_path.iterdir()] == ["model"]  # what was there is still there, and nothing else
    assert (tmp_path / "model" / "earlier").exists()


def test_wrong_use_of_export(exported, tokenizer_folder, tmp_path):
    config, model, _, _ = exported
    with pytest.raises(SeallmError, match="'int4'; use one of float32"):
        export_model(nnx.state(model), config, tokenizer_folder, tmp_path / "x", dtype="int4")
    with pytest.raises(SeallmError, match="has no tokenizer.json"):
        export_model(nnx.state(model), config, tmp_path, tmp_path / "x")
    small = shape(vocabulary=200)
    with pytest.raises(SeallmError, match="tokens, the model 200 rows"):
        export_model(nnx.state(initialize(small, seed=0)), small, tokenizer_folder, tmp_path / "x")
