"""`seallm convert` in both directions, and the parity report."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from seallm_jax.cli.main import main
from seallm_jax.core.manifest import Manifest
from seallm_jax.core.paths import RunDirectory
from seallm_jax.core.schema import MeshConfig
from seallm_jax.interop.import_model import import_model
from seallm_jax.tokenization.learn import learn_tokenizer
from seallm_jax.tokenization.tokenizer import Tokenizer
from seallm_jax.training.checkpoint import save_parameters
from tests.interop.small_models import all_tensors, huggingface_config, same_bytes, write_folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    learn_tokenizer(["Xin chào các bạn. Selamat pagi, apa kabar? ສະບາຍດີ"] * 20, 320).save(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer) -> pathlib.Path:
    """A folder as a base model is published: rows beyond the tokenizer's, several stops, its own generation config."""
    folder = tmp_path_factory.mktemp("convert") / "model"
    ids = {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": None}
    values = huggingface_config("gemma2", **ids, max_position_embeddings=128)
    write_folder(folder, values, dtype=ml_dtypes.bfloat16)
    (folder / "generation_config.json").write_text('{"do_sample": true, "top_k": 7, "eos_token_id": [2, 5, 6]}')
    for file in tokenizer.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def checkpoint(model) -> pathlib.Path:
    output = model.parent / "checkpoint"
    assert main(["convert", f"--source={model}", f"--output={output}"]) == 0
    return output


def test_there_and_back_is_bit_for_bit(model, checkpoint, tmp_path, capsys):
    assert sorted(child.name for child in checkpoint.iterdir()) == ["checkpoints", "huggingface", "tokenizer"]
    result = tmp_path / "result.json"
    arguments = ["convert", f"--source={checkpoint}", f"--output={tmp_path / 'back'}", f"--json={result}"]
    assert main([*arguments, "--shard-bytes=20000"]) == 0
    assert same_bytes(all_tensors(tmp_path / "back"), all_tensors(model))
    for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "back" / name).read_bytes() == (model / name).read_bytes()
    generation = json.loads((tmp_path / "back" / "generation_config.json").read_text())
    assert generation == {
        "do_sample": True,
        "top_k": 7,
        "eos_token_id": [2, 5, 6],
        "bos_token_id": 1,
        "pad_token_id": 3,
    }
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["eos_token_id"] == [2, 5] and config["dtype"] == "bfloat16"
    found = json.loads(result.read_text())
    assert found["direction"] == "export" and found["family"] == "gemma2" and len(found["files"]) > 1
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'back'}: ")


def test_the_checkpoints_folder_is_a_source_too(checkpoint, tmp_path):
    output = tmp_path / "out"
    assert main(["convert", f"--source={checkpoint / 'checkpoints'}", f"--output={output}", "--dtype=float32"]) == 0
    assert {array.dtype for array in all_tensors(output).values()} == {np.dtype(np.float32)}


def write_stage(run: pathlib.Path, stage: str, model: pathlib.Path, shift: float) -> None:
    """What a finished stage leaves, without training."""
    imported = import_model(model)
    directory = RunDirectory(run).stage(stage)
    digest = Tokenizer.load(model).digest
    imported.parameters["final_norm"]["scale"][...] += jnp.float32(shift)
    save_parameters(directory / "checkpoints", imported.parameters, imported.config, tokenizer_digest=digest)
    outcome = {"model": dataclasses.asdict(imported.config)}
    Manifest(stage, {}, {}, 0, json.loads(json.dumps(outcome))).write(directory)


def test_a_run_gives_its_last_finished_stage(model, tokenizer, tmp_path):
    run = tmp_path / "run"
    write_stage(run, "pretrain", model, 1.0)
    write_stage(run, "sft", model, 2.0)
    (RunDirectory(run).stage("sft") / "manifest.json").unlink()  # it has not finished
    vocab = RunDirectory(run).stage("vocab")
    vocab.mkdir(exist_ok=True)
    for file in tokenizer.iterdir():
        (vocab / file.name).write_bytes(file.read_bytes())
    expected = all_tensors(model)["model.norm.weight"].astype(np.float32) + 1
    for number, source in enumerate((run, RunDirectory(run).stage("pretrain"))):
        output = tmp_path / f"out{number}"
        assert main(["convert", f"--source={source}", f"--output={output}"]) == 0
        np.testing.assert_array_equal(all_tensors(output)["model.norm.weight"], expected)


def test_verify_prints_a_report_and_fails_when_models_differ(model, checkpoint, tmp_path, capsys, monkeypatch):
    pytest.importorskip("torch")
    import seallm_jax.cli.parity as module
    import seallm_jax.core.mesh as mesh

    build = mesh.build_mesh  # decoding on one device is faster than on eight emulated ones
    monkeypatch.setattr(mesh, "build_mesh", lambda config: build(MeshConfig(fsdp=1), jax.devices()[:1]))
    result, answers = tmp_path / "result.json", []
    transformers = module._transformers
    monkeypatch.setattr(module, "_transformers", lambda *rest: answers.append(transformers(*rest)) or answers[0])
    arguments = ["convert", f"--source={checkpoint}", "--verify", f"--json={result}"]
    assert main([*arguments, f"--output={tmp_path / 'good'}"]) == 0
    parity = json.loads(result.read_text())["parity"]
    assert parity["passed"] and parity["relative_difference"] < 1e-5 and parity["first_difference"] is None
    assert parity["greedy_tokens"] == 64 * parity["lines"]
    assert f"{parity['greedy_tokens']} of {parity['greedy_tokens']} the same" in capsys.readouterr().out

    def other(*_):
        ((logits, greedy),) = answers
        greedy[1][4] += 1
        return [line * 1.01 for line in logits], greedy

    monkeypatch.setattr(module, "_transformers", other)
    result.unlink()
    assert main([*arguments, f"--output={tmp_path / 'bad'}"]) == 1
    captured = capsys.readouterr()
    assert "does not agree with transformers" in captured.err and "line 2, token 5" in captured.out
    parity = json.loads(result.read_text())["parity"]
    assert not parity["passed"] and 0.009 < parity["relative_difference"] < 0.011


def test_verify_without_torch_says_so_before_any_work(model, tmp_path, capsys, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a))
    assert main(["convert", f"--source={model}", f"--output={tmp_path / 'out'}", "--verify"]) == 1
    assert "pip install 'seallm_jax[parity]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--source=FULL", "--output=FULL"], 1, "exists and is not empty"),
        (["--source=EMPTY", "--output=NEW"], 1, "has no config.json"),
        (["--source=nowhere", "--output=NEW"], 1, "nowhere does not exist"),
        (["--source=MODEL", "--output=NEW", "--dtype=bfloat16"], 2, "always as float32"),
        (["--source=MODEL", "--output=NEW", "--dtype=int4"], 2, "invalid choice: 'int4'"),
        (["--source=LOST", "--output=NEW"], 1, "no tokenizer of"),
        (["--source=BARE", "--output=NEW"], 1, "tokenizer"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(model, checkpoint, tmp_path, capsys, arguments, code, message):
    import shutil

    for name in ("full", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "file").write_text("")
    places = {"FULL": tmp_path / "full", "EMPTY": tmp_path / "empty", "NEW": tmp_path / "new", "MODEL": model}
    if "LOST" in arguments[0]:
        places["LOST"] = tmp_path / "lost"
        shutil.copytree(checkpoint, places["LOST"])
        shutil.rmtree(places["LOST"] / "tokenizer")
    if "BARE" in arguments[0]:
        places["BARE"] = tmp_path / "bare"
        places["BARE"].mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(model / name, places["BARE"])
    for old, new in places.items():
        arguments = [argument.replace(f"={old}", f"={new}") for argument in arguments]
    before = sorted(tmp_path.iterdir())
    assert main(["convert", *arguments]) == code
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in last and last.startswith("seallm")
    assert sorted(tmp_path.iterdir()) == before
