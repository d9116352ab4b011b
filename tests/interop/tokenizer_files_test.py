"""Tokenizer folders of either kind."""

import json

import pytest

from seallm_jax.core.errors import SeallmError
from seallm_jax.interop.tokenizer_files import TokenizerFolder, copy_tokenizer, is_complete


def write(folder, config, added=()):
    model = {"vocab": {"a": 0, "<s>": 1, "</s>": 2}}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": list(added)}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_ids_and_size(tmp_path):
    added = [{"content": "<|im_end|>", "id": 7}, {"content": "<|end|>", "id": 5}]
    write(tmp_path, {"eos_token": {"content": "<|end|>"}, "bos_token": "<s>", "pad_token": None}, added)
    found = TokenizerFolder.read(tmp_path)
    assert found.ids == {"bos_token_id": 1, "eos_token_id": 5, "pad_token_id": None}
    assert found.size == 8 and found.stop_ids == (5, 7)


def test_byte_level_tokenizers_need_no_begin_token(tmp_path):
    write(tmp_path, {"eos_token": "</s>", "bos_token": None})
    assert TokenizerFolder.read(tmp_path).bos_id is None


@pytest.mark.parametrize("eos", [None, "<|nothing|>", 3])
def test_an_end_token_is_needed(tmp_path, eos):
    write(tmp_path, {"eos_token": eos})
    with pytest.raises(SeallmError, match=r"tokenizer_config\.json: eos_token is"):
        TokenizerFolder.read(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path):
    with pytest.raises(SeallmError, match=r"has no tokenizer\.json"):
        TokenizerFolder.read(tmp_path)
    write(tmp_path, {})
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(SeallmError, match=r"tokenizer\.json has no vocabulary"):
        TokenizerFolder.read(tmp_path)


def test_copies_every_kind_and_nothing_else(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    names = ["tokenizer.model", "tokenizer.json", "tekken.json", "qwen.tiktoken", "merges.txt", "vocab.json"]
    names += ["chat_template.jinja", "additional_chat_templates/tool_use.jinja", "special_tokens_map.json"]
    for name in [*names, "config.json", "model.safetensors", "README.md"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    target.mkdir()
    copy_tokenizer(source, target)
    assert sorted(str(file.relative_to(target)) for file in target.rglob("*") if file.is_file()) == sorted(names)
    assert not is_complete(target)
    (target / "tokenizer_config.json").write_text("{}")
    assert is_complete(target)
