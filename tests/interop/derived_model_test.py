"""Folders made from other folders: what is not changed comes back bit for bit."""

from __future__ import annotations

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors
from seallm_jax.interop.derived_model import write_derived_model
from seallm_jax.interop.source_model import SourceModel
from seallm_jax.models.families.registry import family_named

SMALL = ModelConfig(
    vocabulary_size=70,
    hidden_size=16,
    intermediate_size=20,
    num_layers=3,
    num_heads=2,
    num_key_value_heads=1,
    head_size=8,
)


def write_folder(folder: pathlib.Path, config: ModelConfig, seed: int = 0, dtype=ml_dtypes.bfloat16) -> pathlib.Path:
    """A model with random tensors and tokenizer files."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    tensors = {each.name: random.normal(size=each.shape).astype(dtype) for each in checkpoint_tensors(config)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    values = family_named(config.family).config_to_huggingface(config)
    values |= {"torch_dtype": np.dtype(dtype).name, "bos_token_id": 1, "eos_token_id": [2, 5]}
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "generation_config.json").write_text('{"temperature": 0.6}')
    pieces = {f"piece{index}": index for index in range(config.vocabulary_size)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": pieces}}))
    (folder / "chat_template.jinja").write_text("template")
    return folder


@pytest.fixture
def source(tmp_path) -> SourceModel:
    return SourceModel(write_folder(tmp_path / "source", SMALL))


def test_unchanged_tensors_come_back_bit_for_bit(source, tmp_path):
    output = tmp_path / "output"
    summary = write_derived_model(
        source.files, source.config, lambda each: source.tensor(each.name), output, shard_bytes=5000
    )
    assert len(summary.files) > 1 and summary.dtype == "bfloat16"
    found = {name: array for file in summary.files for name, array in load_file(output / file).items()}
    for name, array in load_file(source.directory / "model.safetensors").items():
        assert found[name].tobytes() == array.tobytes()
    again = SourceModel(output)
    assert again.config == source.config
    assert again.files.config["eos_token_id"] == [2, 5] and again.files.config["bos_token_id"] == 1
    for name in ("generation_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (output / name).read_bytes() == (source.directory / name).read_bytes()
    assert summary.parameters == sum(array.size for array in found.values())


def test_another_dtype_is_written_and_told(source, tmp_path):
    run = lambda each: source.tensor(each.name)  # noqa: E731
    write_derived_model(source.files, source.config, run, tmp_path / "output", dtype="float32")
    assert SourceModel(tmp_path / "output").tensor("model.norm.weight").dtype == np.float32
    assert json.loads((tmp_path / "output" / "config.json").read_text())["dtype"] == "float32"


def test_what_cannot_be_written_leaves_nothing(source, tmp_path):
    output = tmp_path / "output"

    def large(each):
        return source.tensor(each.name).astype(np.float32) * (1e6 if "down_proj" in each.name else 1)

    with pytest.raises(SeallmError, match=r"layers.0.mlp.down_proj.weight holds values that are not finite in float16"):
        write_derived_model(source.files, source.config, large, output, dtype="float16")
    with pytest.raises(SeallmError, match="dtype is 'int8'"):
        write_derived_model(source.files, source.config, large, output, dtype="int8")
    assert list(tmp_path.iterdir()) == [source.directory]


def test_a_source_is_checked_before_it_is_read(tmp_path):
    folder = write_folder(tmp_path / "source", SMALL)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"num_hidden_layers": 4}))
    with pytest.raises(SeallmError, match=r"no tensor model.layers.3"):
        SourceModel(folder)
