"""`seallm merge` on folders."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import file_digest
from seallm_jax.core.schema import ModelConfig
from seallm_jax.interop.source_model import SourceModel
from seallm_jax.models.surgery.merge import Merge
from tests.interop.derived_model_test import write_folder

SMALL = ModelConfig(
    family="qwen2",
    query_key_value_bias=True,
    vocabulary_size=70,
    hidden_size=16,
    intermediate_size=20,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=1,
    head_size=8,
)


@pytest.fixture
def folders(tmp_path):
    return [str(write_folder(tmp_path / name, SMALL, seed)) for seed, name in enumerate(("base", "first", "second"))]


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_ties", "della"])
def test_every_tensor_is_merged(folders, tmp_path, method, capsys):
    base, *models = folders
    output, result = tmp_path / "merged", tmp_path / "result.json"
    density = ["--density", "0.5", "0.7"] if method in ("ties", "dare_ties", "della") else []
    arguments = [
        "merge",
        f"--method={method}",
        f"--base={base}",
        "--models",
        *models,
        "--weights",
        "1",
        "0.5",
        *density,
    ]
    assert main([*arguments, "--seed=3", f"--output={output}", f"--json={result}"]) == 0
    assert "merged 2 models" in capsys.readouterr().out
    merge = Merge(method, (1.0, 0.5), (0.5, 0.7) if density else (), seed=3)
    sources, found = [SourceModel(folder) for folder in folders], SourceModel(output)
    for name in ("model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.bias", "lm_head.weight"):
        origin, *tensors = (source.tensor(name) for source in sources)
        expected = merge.tensor(name, origin, tensors).astype(origin.dtype)
        np.testing.assert_array_equal(found.tensor(name), expected)
    manifest = Manifest.read(output)
    assert manifest.config["method"] == method and manifest.config["weights"] == [1.0, 0.5]
    assert manifest.inputs["model 2"] == file_digest(models[1])
    assert json.loads(result.read_text())["settings"]["seed"] == 3


def test_linear_needs_no_base_and_takes_the_first_models_files(folders, tmp_path):
    output = tmp_path / "merged"
    assert main(["merge", "--method=linear", "--models", *folders[1:], f"--output={output}"]) == 0
    first, second, found = (SourceModel(folder).tensor("model.norm.weight") for folder in (*folders[1:], output))
    mean = (first.astype(np.float32) + second.astype(np.float32)) / 2
    np.testing.assert_array_equal(found, mean.astype(found.dtype))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 24}, "has intermediate_size 24 and"),
        ({"vocabulary_size": 80}, "has vocabulary_size 80 and"),
        ({"family": "llama", "query_key_value_bias": False}, "has family 'llama' and"),
        ({"tie_embeddings": True}, "has tie_embeddings True and"),
    ],
)
def test_models_that_do_not_fit_are_one_error(folders, tmp_path, change, message, capsys):
    other = write_folder(tmp_path / "other", dataclasses.replace(SMALL, **change))
    output = tmp_path / "merged"
    code = main(["merge", "--method=ties", f"--base={folders[0]}", "--models", str(other), f"--output={output}"])
    assert code == 1 and not output.exists()
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_other_vocabularies_of_the_same_size_are_an_error(folders, tmp_path, capsys):
    path = tmp_path / "second" / "tokenizer.json"
    path.write_text(path.read_text().replace("piece33", "something"))
    output = tmp_path / "merged"
    assert main(["merge", "--method=linear", "--models", *folders[1:], f"--output={output}"]) == 1
    assert "token 33 is 'something' in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--method=ties"], 2, "give --base=DIR"),
        (["--method=linear", "--weights", "1", "2", "3"], 2, "3 values for 2 models"),
        (["--method=linear", "--density", "0.5"], 1, "linear keeps everything"),
        (["--method=soup"], 2, "invalid choice: 'soup'"),
    ],
)
def test_mistakes_are_one_line(folders, tmp_path, arguments, code, message, capsys):
    output = tmp_path / "merged"
    assert main(["merge", *arguments, "--models", *folders[1:], f"--output={output}"]) == code
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not output.exists()


def test_a_model_is_not_overwritten(folders, capsys):
    assert main(["merge", "--method=linear", "--models", *folders, f"--output={folders[1]}"]) == 2
    assert "is one of the models" in capsys.readouterr().err
