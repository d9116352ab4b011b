"""The benchmark of a step, at toy size: both sides train, and the numbers are what they say."""

import json

import pytest

from seallm_jax.cli.main import main
from tests.cli.conftest import CONFIGS

SMALL = (
    "--config.base.model.hidden_size=48",
    "--config.base.model.intermediate_size=64",
    "--config.base.model.num_layers=1",
    "--config.base.vocabulary_size=300",
    "--config.vocab.size=100",
    "--config.packing.sequence_length=32",
)


def test_both_sides_take_their_turns(tmp_path, capsys):
    pytest.importorskip("torch")
    file = tmp_path / "step.json"
    words = ["--rounds=2", "--steps=2", f"--json={file}", *SMALL]
    assert main(["bench", "step", f"--config={CONFIGS / 'smoke.py'}", *words]) == 0
    result = json.loads(file.read_text())
    assert set(result["seconds"]) == {"seallm_jax, float32", "seallm_jax, bfloat16", "transformers, float32"}
    assert all(len(values) == 4 and min(values) > 0 for values in result["seconds"].values())
    assert result["tokens"] == 8 * 32 and result["ratio"]["transformers, float32"] == 1.0
    assert "of transformers" in capsys.readouterr().out


def test_mistakes(capsys):
    assert main(["bench", "step", f"--config={CONFIGS / 'smoke.py'}", "--rounds=0"]) == 2
    assert "--rounds and --steps must be positive" in capsys.readouterr().err
