"""Real tokenizers, with a small model each: imported, extended, exported, and the same in transformers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from seallm_jax.core.sample import sample_path
from seallm_jax.core.vocabulary import Vocabulary
from seallm_jax.interop.export_model import export_model
from seallm_jax.interop.import_model import import_model
from seallm_jax.tokenization.extend import extend_tokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer
from tests.interop.small_models import all_tensors, huggingface_config, write_folder

FILES = {
    "SentencePiece": ("mistral_common", "data/tokenizer.model.v1", "mistral"),
    "tekken": ("mistral_common", "data/tekken_240911.json", "llama"),
    "tiktoken": ("dashscope", "resources/qwen.tiktoken", "qwen2"),
}
NEW = 40


def sample_texts(code: str) -> list[str]:
    lines = (sample_path("corpus") / f"{code}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def real_tokenizer(kind: str) -> Tokenizer:
    package, file, _ = FILES[kind]
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    path = pathlib.Path(found.submodule_search_locations[0]) / file
    if not path.exists():
        pytest.skip(f"this version of {package} has no {file}")
    return Tokenizer.load(path)


@pytest.mark.parametrize("kind", FILES)
def test_import_extension_and_export(tmp_path, kind):
    from transformers import AutoTokenizer

    base = real_tokenizer(kind)
    values = huggingface_config(
        FILES[kind][2], vocab_size=base.size, hidden_size=16, num_hidden_layers=1, max_position_embeddings=128
    )
    values |= {"bos_token_id": base.bos_id, "eos_token_id": [base.eos_id, base.eos_id - 1]}
    tensors = write_folder(tmp_path / "base", values, dtype=ml_dtypes.bfloat16)
    base.save(tmp_path / "base")

    # unchanged: tensors bit for bit, tokenizer files and token ids as they were
    imported = import_model(tmp_path / "base", param_dtype=jnp.bfloat16)
    same = tmp_path / "same"
    export_model(imported.parameters, imported.config, tmp_path / "base", same, base_directory=tmp_path / "base")
    for name, array in all_tensors(same).items():
        assert array.tobytes() == tensors[name].tobytes()
    for file in base.files():
        assert (same / file).read_bytes() == (tmp_path / "base" / file).read_bytes()
    written = json.loads((same / "config.json").read_text())
    assert written["eos_token_id"] == values["eos_token_id"] and written["bos_token_id"] == base.bos_id

    # extended: old rows bit for bit, new rows, nothing that pads
    extension = extend_tokenizer(base, {"lo": sample_texts("lo")}, NEW, minimum_frequency=2)
    size = extension.tokenizer.size
    assert base.size < size <= base.size + NEW + 8  # a chat token or two may come with the new ones
    extension.tokenizer.save(tmp_path / "tokenizer")
    padded = Vocabulary.padded(size).padded_size

    def extended(leaf):
        if leaf.shape[0] != imported.config.padded_vocabulary_size:
            return leaf
        new = jnp.tile(leaf[:1], (size - base.size, 1)) + jnp.arange(size - base.size)[:, None].astype(leaf.dtype) / 64
        return jnp.concatenate([leaf[: base.size], new, jnp.zeros((padded - size, leaf.shape[1]), leaf.dtype)])

    config = dataclasses.replace(imported.config, vocabulary_size=size, padded_vocabulary_size=padded)
    parameters = jax.tree.map(extended, imported.parameters)
    output = tmp_path / "extended"
    export_model(parameters, config, tmp_path / "tokenizer", output, base_directory=tmp_path / "base")
    embedding = all_tensors(output)["model.embed_tokens.weight"]
    assert embedding.shape == (size, 16)
    assert embedding[: base.size].tobytes() == tensors["model.embed_tokens.weight"].tobytes()

    # the same ids in transformers, the same logits
    theirs = AutoTokenizer.from_pretrained(output)
    assert len(theirs) == size
    lines = [*sample_texts("lo")[:3], *sample_texts("en")[:2], *sample_texts("th")[:1]]
    for line in lines:
        assert theirs(line, add_special_tokens=False).input_ids == extension.tokenizer.encode(line)
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    ids = np.array([extension.tokenizer.encode(lines[0])[:32]])
    assert (ids >= base.size).any()
    model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(torch.tensor(ids)).logits.numpy()
    decoder = import_model(output).decoder()
    positions = np.arange(ids.shape[1])[None]
    logits = decoder.logits(decoder(ids, positions, np.ones_like(ids), compute_dtype=jnp.float32))
    np.testing.assert_allclose(logits[..., :size], expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
