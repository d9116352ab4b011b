"""A preference stage that trains an adapter, and both ways to export it."""

import json
import shutil

import numpy as np
from safetensors.numpy import load_file

from seallm_jax.cli.main import main
from tests.cli.conftest import arguments

ADAPTER = (
    "--config.preference.adapter.rank=4",
    "--config.preference.adapter.targets=('q_proj','v_proj')",
    "--config.preference.adapter.train_new_rows=True",
    "--config.preference.adapter.dropout=0.05",
)


def test_an_adapter_is_trained_merged_and_exported(finished_run, tmp_path):
    workdir = tmp_path / "work"
    shutil.copytree(finished_run, workdir)
    assert main(arguments("train", workdir, "--stage=preference", *ADAPTER)) == 0
    lines = [json.loads(line) for line in (workdir / "preference" / "metrics.jsonl").read_text().splitlines()]
    # the reference is the base, which a new adapter does not change
    assert abs(lines[0]["metrics"]["rewards/margins"]) < 1e-3
    outcome = json.loads((workdir / "preference" / "manifest.json").read_text())["outcome"]
    first, rows = outcome["adapter"]["config"]["first_new_row"], outcome["model"]["vocabulary_size"]
    assert 0 < first < rows and outcome["adapter"]["base"] == "sft"
    stored = []
    for stage in ("preference", "sft"):
        files = (workdir / stage / "checkpoints").rglob("*")
        stored.append(sum(file.stat().st_size for file in files))
    assert stored[0] < 0.6 * stored[1]

    assert main(arguments("export", workdir, *ADAPTER)) == 0
    merged = load_file(workdir / "export" / "model.safetensors")
    assert main(arguments("export", workdir, *ADAPTER, "--config.export.adapter=separate")) == 0
    base = load_file(workdir / "export" / "model.safetensors")
    tensors = load_file(workdir / "export" / "adapter" / "adapter_model.safetensors")
    values = json.loads((workdir / "export" / "adapter" / "adapter_config.json").read_text())
    assert values["r"] == 4 and sorted(values["target_modules"]) == ["q_proj", "v_proj"]
    for name, tensor in base.items():
        module = "base_model.model." + name.removesuffix(".weight")
        if f"{module}.lora_A.weight" in tensors:
            tensor = tensor + 4.0 * tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
            assert np.abs(tensor - base[name]).max() > 0
        elif (rows_name := f"{module}.token_adapter.trainable_tokens_delta") in tensors:
            assert values["trainable_token_indices"][module.rpartition(".")[2]] == list(range(first, rows))
            tensor = np.concatenate([tensor[:first], tensors[rows_name]])
        np.testing.assert_allclose(merged[name], tensor, rtol=1e-6, atol=1e-7, err_msg=name)


def test_there_has_to_be_an_adapter_to_export(finished_run, tmp_path, capsys):
    workdir = tmp_path / "work"
    shutil.copytree(finished_run, workdir)
    assert main(arguments("export", workdir, "--config.export.adapter=separate")) == 1
    assert "stage 'preference' trained no adapter; use 'merge'" in capsys.readouterr().err
