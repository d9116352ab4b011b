"""`seallm bench attention`: timings of small shapes here, and predictions from made-up kernels."""

from __future__ import annotations

import json

import jax
import pytest

from seallm_jax.cli.main import main
from seallm_jax.planning import kernel_costs

SMALL = ["--sequence-length=256", "--rows=2", "--heads=2", "--key-value-heads=1", "--head-size=16"]


def test_times_what_runs_here(tmp_path, capsys):
    result = tmp_path / "result.json"
    assert main(["bench", "attention", *SMALL, "--documents=60", "--repeats=1", f"--json={result}"]) == 0
    found = json.loads(result.read_text())
    assert found["static_prediction"] is False and found["document_length"] == 60
    names = {row["name"] for row in found["results"] if not row["error"]}
    assert {"seallm auto", "seallm chunked_xla", "seallm reference", "jax.nn xla"} <= names
    assert all(row["sum_ms"] > 0 for row in found["results"] if not row["error"])
    assert "ms per row" in " ".join(capsys.readouterr().out.split())


def test_on_gpus_cudnn_is_timed_with_a_mask_and_with_documents(monkeypatch, tmp_path, capsys):
    from seallm_jax.cli import bench_attention_device

    class AsOnGpu:
        """JAX, but for the name of its backend."""

        default_backend = staticmethod(lambda: "gpu")
        __getattr__ = staticmethod(lambda name: getattr(jax, name))

    monkeypatch.setattr(bench_attention_device, "jax", AsOnGpu())
    result = tmp_path / "result.json"
    names = ["seallm auto", "seallm cudnn", "jax.nn cudnn"]
    arguments = [*SMALL, "--documents=60", "--repeats=1", "--only", *names, f"--json={result}"]
    assert main(["bench", "attention", *arguments]) == 0
    found = {row["name"]: row for row in json.loads(result.read_text())["results"]}
    assert list(found) == names
    assert found["seallm auto"]["share_of_matrix_rate"] > 0
    # there is none here, and both say so
    assert "no NVIDIA GPU" in found["seallm cudnn"]["error"] and "cuDNN" in found["jax.nn cudnn"]["error"]
    assert "seallm cudnn is left out" in capsys.readouterr().out


@pytest.fixture
def made_up_kernels(monkeypatch):
    def kernel(products: int):
        return {"step": 1, "opening": [], "products": [1000] * products, "closing": []}

    def read_costs(generation, shape, variants, *, document_length, timeout):
        common = {"outside_cycles": 5, "temporary_bytes": 2**20}
        ours = {"step": 1, "opening": [1], "products": [1000] * 4, "closing": [1]}
        backward = ours | {"opening": [1, 1], "closing": [1, 1]}
        sizes = {"forward": 128, "forward_tile": 128, "backward": 128, "backward_tile": 128}
        return {
            "seallm": common
            | {"kernels": {"forward": ours, "backward": backward}, "sizes": sizes, "listing_cycles": 2},
            "splash 1024": common | {"kernels": {"forward": kernel(1), "backward": kernel(1)}},
            "tokamax 512": {"error": "tokamax is not installed"},
        }

    monkeypatch.setattr(kernel_costs, "read_costs", read_costs)


def test_predictions_are_labelled_so(made_up_kernels, tmp_path, capsys):
    documents, result = tmp_path / "documents.jsonl", tmp_path / "result.json"
    documents.write_text("".join(json.dumps({"text": "a" * n}) + "\n" for n in (8000, 4000, 100, 100)))
    shape = ["--sequence-length=1024", "--rows=1", "--heads=2", "--key-value-heads=1"]
    arguments = ["--topology=v5e", *shape, f"--documents={documents}", f"--json={result}"]
    assert main(["bench", "attention", *arguments]) == 0
    out = capsys.readouterr().out
    assert "STATIC PREDICTION" in out and "no TPU was used" in out
    assert "tokamax 512 is left out: tokamax is not installed" in out and "four characters a token" in out
    found = json.loads(result.read_text())
    assert found["static_prediction"] is True
    ours, splash = found["results"][:2]
    # whole rows of one block: one step forward and one backward a head
    assert splash["sum_ms"] == pytest.approx(2 * 2 * 1001 / 1.5e6)
    assert ours["forward_ms"] + ours["backward_ms"] == pytest.approx(ours["sum_ms"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sequence-length=100"], "no multiple of 128"),
        (["--documents=nothing-here"], "is no .jsonl file"),
        (["--topology=v5e", "--forward=384"], "divide 4096, got 384"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys):
    assert main(["bench", "attention", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
