"""Two real processes import and export a model together; one of them writes; both end when that one cannot."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.interop.small_models import all_tensors, huggingface_config, same_bytes, write_folder

SCRIPT = pathlib.Path(__file__).parent / "spread_export.py"


def run_pair(tmp_path: pathlib.Path, **settings) -> list[tuple[int, str]]:
    """Exit status and result of process 0 and 1, of four devices each."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    settings |= {"coordinator": f"localhost:{port}", "processes": 2, "mesh": {"fsdp": 4, "tensor": 2}}
    pair = []
    for process in (0, 1):
        # what only the writing process may read or write, the other does not even have
        own = {} if process == 0 else {"tokenizer": "/nonexistent", "output": str(tmp_path / "other")}
        arguments = json.dumps(settings | own | {"process": process})
        pair.append(
            subprocess.Popen(
                [sys.executable, str(SCRIPT), arguments],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    results = []
    try:
        for one in pair:
            output, errors = one.communicate(timeout=240)
            lines = [line for line in output.splitlines() if line.startswith("result: ")]
            assert lines, errors[-3000:]
            results.append((one.returncode, lines[-1].removeprefix("result: ")))
    finally:
        for one in pair:
            one.kill()
    return results


@pytest.fixture
def tokenizer(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"</s>": 0}}, "added_tokens": []}))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return folder


def test_two_processes_export_what_they_imported(tmp_path, tokenizer):
    tensors = write_folder(tmp_path / "source", huggingface_config("bloom"))
    paths = {name: str(tmp_path / name) for name in ("source", "tokenizer", "output")}
    results = run_pair(tmp_path, **paths)
    assert [code for code, _ in results] == [0, 0], results
    first, second = (json.loads(text) for _, text in results)
    assert first["dtype"] == second["dtype"] == "bfloat16" and len(first["files"]) > 1 and second["files"] == []
    assert same_bytes(all_tensors(tmp_path / "output"), tensors)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["output", "source", "tokenizer"]


@pytest.mark.parametrize("failure", ["before", "during"])
def test_both_processes_end_when_the_writing_one_fails(tmp_path, tokenizer, failure):
    values = huggingface_config("qwen2")
    tensors = write_folder(tmp_path / "source", values)
    paths = {name: str(tmp_path / name) for name in ("source", "tokenizer", "output")}
    message = "has no tokenizer.json"
    if failure == "before":
        (tokenizer / "tokenizer.json").unlink()
    else:  # the layers after it are still gathered
        tensors["model.layers.0.mlp.up_proj.weight"][3, 3] = np.inf
        save_file(tensors, tmp_path / "source" / "model.safetensors")
        message = "model.layers.0.mlp.up_proj.weight holds values that are not finite"
    results = run_pair(tmp_path, **paths)
    assert [code for code, _ in results] == [1, 1], results
    assert message in results[0][1] and "process 0 could not" in results[1][1]
    assert sorted(child.name for child in tmp_path.iterdir()) == ["source", "tokenizer"]
