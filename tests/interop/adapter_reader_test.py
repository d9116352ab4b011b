from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.adapter_reader import AdapterReader

CONFIG = ModelConfig(vocabulary_size=11, hidden_size=6)


@pytest.fixture
def write(tmp_path):
    def write(tensors=None, **values):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | values))
        save_file(tensors or {"base_model.model.x": np.ones(3, np.float32)}, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"target_parameters": ["experts.weight"]}, "target_parameters is"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4', which changes the base"),
    ],
)
def test_only_plain_lora(values, message, write):
    with pytest.raises(SeallmError, match=message):
        AdapterReader(write(**values), CONFIG)


def test_files(write, tmp_path):
    with pytest.raises(SeallmError, match="adapter_config.json does not exist"):
        AdapterReader(tmp_path, CONFIG)
    folder = write()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(SeallmError, match="damaged or cut short"):
        AdapterReader(folder, CONFIG)
    file.rename(folder / "adapter_model.bin")
    with pytest.raises(SeallmError, match="a pickle"):
        AdapterReader(folder, CONFIG)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(SeallmError, match="not the folder of an adapter"):
        AdapterReader(folder, CONFIG)


def test_a_tensor_is_taken_once_and_with_its_shape(write):
    reader = AdapterReader(write(), CONFIG)
    with pytest.raises(SeallmError, match="unexpected tensor base_model.model.x"):
        reader.finish()
    np.testing.assert_array_equal(reader.take("x", (3,)), np.ones(3))
    assert reader.take("x") is None
    reader.finish()
    with pytest.raises(SeallmError, match="is I64"):
        AdapterReader(write({"y": np.ones(3, np.int64)}), CONFIG).take("y")


def test_rows_have_to_fit_the_vocabulary(write):
    name = "base_model.model.lm_head.token_adapter.trainable_tokens_delta"
    rows = {name: np.ones((2, 6), np.float32)}
    reader = AdapterReader(write(rows, trainable_token_indices={"lm_head": [4, 10]}), CONFIG)
    indices, found = reader.new_rows("lm_head")
    np.testing.assert_array_equal(indices, [4, 10])
    assert found.shape == (2, 6)
    for wrong in ([4, 11], [4]):
        with pytest.raises(SeallmError, match="do not fit"):
            AdapterReader(write(rows, trainable_token_indices=wrong), CONFIG).new_rows("lm_head")
