"""`seallm bench cross-entropy`: timings of a small shape here, and predictions from made-up costs."""

from __future__ import annotations

import json

import pytest

from seallm_jax.cli.main import main
from seallm_jax.planning import kernel_costs

SMALL = ["--tokens=128", "--hidden-size=16", "--vocabulary=32768", "--dtype=float32", "--repeats=1"]


def test_times_what_runs_here(tmp_path, capsys):
    result = tmp_path / "result.json"
    assert main(["bench", "cross-entropy", *SMALL, f"--json={result}"]) == 0
    found = json.loads(result.read_text())
    assert found["static_prediction"] is False and found["vocabulary"] == 32768 and found["dtype"] == "float32"
    rows = {row["name"]: row for row in found["results"]}
    assert {"seallm chunked_xla", "full logits", "optax"} <= {name for name, row in rows.items() if not row["error"]}
    ours, plain = rows["seallm chunked_xla"], rows["full logits"]
    assert ours["product_flops"] * 3 == plain["product_flops"] * 4
    assert ours["temporary_of_logits"] < 0.5 and plain["temporary_of_logits"] > 1
    assert ours["time_of_full_logits"] == pytest.approx(ours["sum_ms"] / plain["sum_ms"])
    out = " ".join(capsys.readouterr().out.split())
    assert "Measured on" in out and "A large matrix product reaches" in out


def test_a_peer_that_fails_is_left_out(monkeypatch, capsys):
    from seallm_jax.cli import bench_cross_entropy_device

    def failing(hidden, output, targets):
        raise NotImplementedError("not on this device\nand more")

    monkeypatch.setattr(bench_cross_entropy_device, "ways", lambda platform: {"peer": failing})
    assert main(["bench", "cross-entropy", *SMALL]) == 0
    assert "peer is left out: not on this device\n" in capsys.readouterr().out


def test_predictions_are_labelled_so(monkeypatch, tmp_path, capsys):
    def read_costs(generation, tokens, hidden_size, vocabulary_size, dtype, *, timeout):
        assert (generation, tokens, hidden_size, vocabulary_size, dtype) == ("v5e", 8192, 64, 1000, "bfloat16")
        return {
            "seallm pallas_tpu": {"cycles": 3e6, "temporary_bytes": 2**20, "product_flops": 4e9},
            "full logits": {"error": "out of memory", "product_flops": 3e9},
            "tokamax": {"cycles": None, "temporary_bytes": 2**21, "product_flops": None},
        }

    monkeypatch.setattr(kernel_costs, "read_cross_entropy_costs", read_costs)
    result = tmp_path / "result.json"
    shape = ["--hidden-size=64", "--vocabulary=1000"]
    assert main(["bench", "cross-entropy", "--topology=v5e", *shape, f"--json={result}"]) == 0
    out = capsys.readouterr().out
    assert "STATIC PREDICTION for v5e, no TPU was used" in out and "full logits is left out: out of memory" in out
    found = json.loads(result.read_text())
    assert found["static_prediction"] is True
    ours, _, tokamax = found["results"]
    assert ours["sum_ms"] == pytest.approx(2.0) and ours["flops_of_full_logits"] == pytest.approx(4 / 3)
    assert ours["temporary_of_logits"] == pytest.approx(2**20 / (4 * 8192 * 1000))
    assert tokamax["sum_ms"] is None and tokamax["flops_of_full_logits"] is None


def test_mistakes_are_named(capsys):
    assert main(["bench", "cross-entropy", "--tokens=0"]) == 2
    assert "are at least 1" in " ".join(capsys.readouterr().err.split())
