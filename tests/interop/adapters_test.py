from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import AdapterConfig, ModelConfig
from seallm_jax.interop.adapters import load_adapter, save_adapter
from seallm_jax.models.adapters.parameters import by_path
from seallm_jax.models.layout import abstract_decoder

CONFIG = ModelConfig(
    vocabulary_size=11,
    padded_vocabulary_size=16,
    hidden_size=6,
    intermediate_size=10,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=1,
    head_size=4,
)
ADAPTER = AdapterConfig(rank=2, alpha=3.0, targets=("query", "output", "down"), dropout=0.25)
NAME = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


def draw(adapter, config=CONFIG) -> dict[str, np.ndarray]:
    """The adapter's parameters, with zeros where the vocabulary is padded."""
    _, abstract = abstract_decoder(config, adapter=adapter)
    rng = np.random.default_rng(0)
    values = {
        path: rng.standard_normal(leaf.shape).astype(np.float32)
        for path, leaf in by_path(abstract).items()
        if path.endswith(("lora_a", "lora_b", "new_rows"))
    }
    if "embedding.lora_a" in values:
        values["embedding.lora_a"][11:] = 0
    if "head.lora_b" in values:
        values["head.lora_b"][:, 11:] = 0
    return values


@pytest.fixture
def folder(tmp_path):
    return save_adapter(draw(ADAPTER), CONFIG, ADAPTER, tmp_path / "adapter", base="some/model")


def change(folder, tensors=None, **values):
    """Rewrites the files of an adapter; `tensors` maps names to arrays, or to None for a tensor to leave out."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    found = load_file(folder / "adapter_model.safetensors") | (tensors or {})
    save_file({name: array for name, array in found.items() if array is not None}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    "adapter",
    [
        ADAPTER,
        AdapterConfig(rank=3, targets=("*",), rank_stabilized=True),
        AdapterConfig(targets=("value",), train_new_rows=True, first_new_row=9),
    ],
    ids=["some", "all", "new rows"],
)
def test_a_saved_adapter_is_read_back_bit_for_bit(adapter, tmp_path):
    values = draw(adapter)
    found = load_adapter(save_adapter(values, CONFIG, adapter, tmp_path / "adapter"), CONFIG)
    assert found.values.keys() == values.keys() and not found.rows
    for path, value in values.items():
        np.testing.assert_array_equal(found.values[path], value, path)
    assert found.adapter.names == adapter.names and found.adapter.scale == pytest.approx(adapter.scale, rel=1e-12)
    for key in ("rank", "dropout", "rank_stabilized", "train_new_rows", "first_new_row"):
        assert getattr(found.adapter, key) == getattr(adapter, key)


def test_what_is_written(folder):
    values = json.loads((folder / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == "some/model" and values["peft_type"] == "LORA"
    assert (values["r"], values["lora_alpha"], values["lora_dropout"]) == (2, 3, 0.25)
    assert sorted(values["target_modules"]) == ["down_proj", "o_proj", "q_proj"]
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 12 and tensors[NAME].shape == (2, 6)
    assert sorted(file.name for file in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_a_narrow_dtype(tmp_path):
    save_adapter(draw(ADAPTER), CONFIG, ADAPTER, tmp_path / "adapter", dtype="bfloat16")
    found, values = load_adapter(tmp_path / "adapter", CONFIG).values, draw(ADAPTER)
    for path, value in values.items():
        np.testing.assert_allclose(found[path], value, rtol=1 / 128)


def test_only_whole_and_finite_adapters_are_written(tmp_path):
    values = draw(ADAPTER)
    values["layers.mlp.down.lora_a"][0, 0, 0] = 1e6
    with pytest.raises(SeallmError, match="not finite in float16"):
        save_adapter(values, CONFIG, ADAPTER, tmp_path / "adapter", dtype="float16")
    with pytest.raises(SeallmError, match="adapter dtype is 'int8'"):
        save_adapter(values, CONFIG, ADAPTER, tmp_path / "adapter", dtype="int8")
    assert not list(tmp_path.iterdir())


def test_another_vocabulary_is_named(folder, tmp_path):
    adapter = AdapterConfig(targets=("embedding",))
    save_adapter(draw(adapter), CONFIG, adapter, tmp_path / "rows")
    with pytest.raises(SeallmError, match=r"has shape \(8, 11\).*needs \(8, 12\).*extended first"):
        load_adapter(tmp_path / "rows", dataclasses.replace(CONFIG, vocabulary_size=12))


def test_tensors_are_checked(folder):
    change(folder, {NAME: np.zeros((2, 7), np.float32)})
    with pytest.raises(SeallmError, match=r"q_proj.lora_A.weight .* has shape \(2, 7\).*needs \(2, 6\)"):
        load_adapter(folder, CONFIG)
    change(folder, {NAME: np.zeros((2, 6), np.float32), NAME.replace("_A", "_B"): None})
    with pytest.raises(SeallmError, match="has .*lora_A.weight but no .*lora_B.weight"):
        load_adapter(folder, CONFIG)
    change(folder, {NAME: None, "base_model.model.model.norm.lora_A.weight": np.zeros((2, 6), np.float32)})
    with pytest.raises(SeallmError, match="unexpected tensor base_model.model.model.norm.lora_A.weight"):
        load_adapter(folder, CONFIG)


def test_a_layer_may_be_left_out_and_scales_may_differ(folder):
    change(folder, {NAME: None, NAME.replace("_A", "_B"): None}, alpha_pattern={"down_proj": 9})
    found, values = load_adapter(folder, CONFIG), draw(ADAPTER)
    assert found.adapter.scale == pytest.approx(4.5)
    assert not found.values["layers.attention.query.lora_b"][1].any()
    for path, ratio in (("layers.mlp.down", 1.0), ("layers.attention.output", 1 / 3)):
        np.testing.assert_allclose(found.values[f"{path}.lora_b"], values[f"{path}.lora_b"] * ratio, rtol=1e-6)
