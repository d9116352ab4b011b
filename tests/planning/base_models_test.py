"""The shapes of configs/base_models.py are those of the published checkpoints."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from seallm_jax.core.config import load_config
from seallm_jax.models.layout import abstract_decoder

CONFIG = pathlib.Path(__file__).parent.parent.parent / "configs" / "base_models.py"
# of the published checkpoints, by their safetensors
PARAMETERS = {
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama3_1_8b": 8_030_261_248,
    "qwen2_7b": 7_615_616_512,
    "qwen2_72b": 72_706_203_648,
    "qwen3_8b": 8_190_735_360,
    "bloom_7b1": 7_069_016_064,
    "gemma2_9b": 9_241_705_984,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_have_the_published_number_of_parameters(name):
    shape = load_config(f"{CONFIG}:{name}").base.model
    _, parameters = abstract_decoder(dataclasses.replace(shape, padded_vocabulary_size=shape.vocabulary_size))
    assert sum(leaf.size for _, leaf in parameters.flat_state()) == PARAMETERS[name]
