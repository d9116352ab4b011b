"""A tokenizer and a model that do not belong together are told apart before anything is read."""

import types

import pytest

from seallm_jax.cli.base_tokenizer import load_base_tokenizer
from seallm_jax.core.errors import SeallmError
from seallm_jax.tokenization.tokenizer import Tokenizer
from tests.interop.small_models import huggingface_config, model_shape


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_every_token_needs_a_row(tmp_path, monkeypatch, extra):
    shape = model_shape(huggingface_config("llama"))
    tokenizer = types.SimpleNamespace(size=shape.vocabulary_size + extra)
    monkeypatch.setattr(Tokenizer, "load", lambda folder: tokenizer if folder == tmp_path else None)
    if extra <= 0:
        assert load_base_tokenizer(tmp_path, shape) is tokenizer
    else:
        with pytest.raises(SeallmError, match=f"{tokenizer.size} tokens but the model only {shape.vocabulary_size}"):
            load_base_tokenizer(tmp_path, shape)
