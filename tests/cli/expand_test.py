"""`seallm expand` on folders of every kind of model, read back by transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.source_model import SourceModel
from tests.interop.derived_model_test import write_folder

SMALL = ModelConfig(
    vocabulary_size=70,
    hidden_size=16,
    intermediate_size=20,
    num_layers=6,
    num_heads=2,
    num_key_value_heads=1,
    head_size=8,
)
ROTARY = {
    "vocab_size": 70,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "sliding_window": 3,
    "initializer_range": 0.2,
}
MODELS = {
    "LlamaForCausalLM": ROTARY | {"attention_bias": True, "mlp_bias": True},
    "Gemma2ForCausalLM": ROTARY,
    "Gemma3ForCausalLM": ROTARY | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    "Olmo2ForCausalLM": ROTARY,
    "BloomForCausalLM": {"vocab_size": 70, "hidden_size": 16, "n_layer": 4, "n_head": 2, "initializer_range": 0.2},
}


@pytest.mark.parametrize("architecture", MODELS)
def test_llama_pro_gives_the_same_logits_in_transformers(architecture, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class(**MODELS[architecture], attn_implementation="eager")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases
                parameter += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "model")
    arguments = [f"--model={tmp_path / 'model'}", "--method=llama_pro", "--blocks=2", f"--output={tmp_path / 'deeper'}"]
    assert main(["expand", *arguments]) == 0
    assert "new blocks: 2, 5" in capsys.readouterr().out
    deeper = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "deeper", attn_implementation="eager")
    assert type(deeper) is kind and deeper.config.num_hidden_layers == 6
    tokens = torch.arange(24).reshape(2, 12) * 5 % 70
    with torch.no_grad():
        before, after = (each(tokens).logits for each in (model, deeper.eval()))
    assert torch.isfinite(before).all() and before.std() > 0.1
    assert torch.equal(before, after)


def test_depth_copies_with_noise_and_says_which(tmp_path, capsys):
    model = SourceModel(write_folder(tmp_path / "model", SMALL, dtype=np.float32))
    output, result = tmp_path / "deeper", tmp_path / "result.json"
    arguments = [f"--model={model.directory}", "--method=depth", "--blocks=2", "--noise=0.5", "--seed=7"]
    assert main(["expand", *arguments, f"--output={output}", f"--json={result}"]) == 0
    assert "new blocks: 4, 6" in capsys.readouterr().out
    deeper = SourceModel(output)
    assert deeper.config.num_layers == 8
    for block, source in enumerate([0, 1, 2, 3, 3, 4, 4, 5]):
        for name in ("self_attn.k_proj.weight", "mlp.down_proj.weight"):
            difference = deeper.tensor(f"model.layers.{block}.{name}") - model.tensor(f"model.layers.{source}.{name}")
            np.testing.assert_allclose(difference.std(), 0.5 if block in (4, 6) else 0.0, atol=0.1)
    manifest = Manifest.read(output)
    assert manifest.outcome["inserted"] == [4, 6] and manifest.outcome["copied"] == [3, 4]
    assert manifest.config["noise"] == 0.5 and manifest.seed == 7
    assert json.loads(result.read_text())["inserted"] == [4, 6]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method=llama_pro", "--blocks=9"], 1, "llama_pro cannot add 9 blocks to 6 layers; use 1 to 6"),
        (["--method=depth", "--blocks=4"], 1, "depth cannot add 4 blocks to the second half of 6 layers; use 1 to 2"),
        (["--method=llama_pro", "--blocks=2", "--noise=0.1"], 2, "--noise=0.1 is for --method=depth"),
        (["--method=wide", "--blocks=2"], 2, "invalid choice: 'wide'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, code, message, capsys):
    folder = write_folder(tmp_path / "model", SMALL)
    assert main(["expand", f"--model={folder}", *arguments, f"--output={tmp_path / 'deeper'}"]) == code
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert main(["expand", f"--model={folder}", "--method=depth", "--blocks=1", f"--output={folder}"]) == 2
    assert "is the model itself" in capsys.readouterr().err
