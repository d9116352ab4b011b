"""What tokenizer_config.json and the template files of the various releases of transformers say."""

import json

import pytest

from seallm_jax.tokenization.tokenizer_config import maximum_length, read_tokenizer_config, saved_template, token_text


def test_the_template_file_comes_before_the_configuration(tmp_path):
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    assert saved_template(tmp_path, {}) is None
    assert saved_template(tmp_path, {"chat_template": "c"}) == "c"
    assert saved_template(tmp_path, {"chat_template": named}) == "d"
    assert saved_template(tmp_path, {"chat_template": named[:1]}) is None
    (tmp_path / "chat_template.jinja").write_text("ไฟล์", encoding="utf-8")
    assert saved_template(tmp_path, {"chat_template": "c"}) == "ไฟล์"


@pytest.mark.parametrize(
    ("token", "text"), [("<s>", "<s>"), ({"content": "<s>", "lstrip": False}, "<s>"), (None, None)]
)
def test_tokens_are_text_or_objects(token, text):
    assert token_text(token) == text


def test_lengths_that_stand_for_unknown(tmp_path):
    assert maximum_length({}) is None and maximum_length({"model_max_length": None}) is None
    assert maximum_length({"model_max_length": 1e30}) is None
    assert maximum_length({"model_max_length": 4096.0}) == 4096
    assert read_tokenizer_config(tmp_path) == {} == read_tokenizer_config(tmp_path / "file")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"a": 1}))
    assert read_tokenizer_config(tmp_path) == {"a": 1}
