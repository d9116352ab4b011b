"""The study of initialisations: a short one from beginning to end, its table, its plot, its errors."""

from __future__ import annotations

import json

import pytest
from matplotlib.image import imread

from seallm_jax.cli.bench_vocab_init import DIRECTORY, PLOT_FILE, RESULT_FILE, plot, summarise
from seallm_jax.cli.main import main
from tests.cli.conftest import arguments

SHORT = [f"--config.pretrain.curriculum.{stage}.tokens=4096" for stage in range(3)]


def run(values):
    """Runs as the command leaves them; `values`: method -> last measurement by seed."""
    return [
        {
            "method": method,
            "seed": seed,
            "curve": [
                {"step": step, "bits": {"km": value, "lo": value + 1}, "mean": value + 0.5}
                for step, value in ((0, 9.0), (4, last))
            ],
        }
        for method, lasts in values.items()
        for seed, last in enumerate(lasts)
    ]


def test_a_study(finished_run, capsys):
    words = arguments("vocab-init", finished_run, *SHORT, "--methods", "mean", "global_noise+first")
    assert main(["bench", *words, "--seeds=1", "--points=1", f"--json={finished_run}.study.json"]) == 0
    assert "difference" in capsys.readouterr().out
    result = json.loads((finished_run / DIRECTORY / RESULT_FILE).read_text())
    assert result == json.loads(finished_run.with_name(f"{finished_run.name}.study.json").read_text())
    assert {run["method"] for run in result["runs"]} == {"mean", "global_noise+first"}
    for run in result["runs"]:
        first, last = run["curve"]
        assert first["step"] == 0 and last["mean"] < first["mean"]
        assert set(first["bits"]) == set(result["before"])
    assert imread(finished_run / DIRECTORY / PLOT_FILE).shape[1] == 1800
    kept = (finished_run / DIRECTORY / "mean-0.json").stat().st_mtime_ns
    assert main(["bench", *words, "--seeds=1", "--points=1"]) == 0  # nothing is left to do
    assert (finished_run / DIRECTORY / "mean-0.json").stat().st_mtime_ns == kept


def test_the_table_compares_seed_by_seed(tmp_path):
    runs = run({"mean": [1.0, 2.0, 3.0], "similarity": [0.9, 1.9, 2.9]})
    best, reference = summarise(runs)
    assert (best["method"], reference["method"], best["seeds"]) == ("similarity", "mean", 3)
    assert best["difference"] == {"mean": pytest.approx(-0.1), "deviation": pytest.approx(0.0)}
    assert best["step 4"] == {"mean": pytest.approx(2.4), "deviation": pytest.approx(1.0)}
    assert best["by_language"]["lo"]["mean"] == pytest.approx(2.9)
    plot({"runs": runs, "summary": [best, reference], "before": {"km": 2.0}}, tmp_path / "plot.png")
    assert imread(tmp_path / "plot.png").shape[2] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "mean", "zero"], "no initialisation 'zero'; use mean, "),
        (["--methods", "mean+first+first"], "no initialisation 'mean\\+first\\+first'"),
        (["--seeds=0"], "--seeds is 0"),
    ],
)
def test_wrong_use(tmp_path, capsys, options, message):
    assert main(["bench", *arguments("vocab-init", tmp_path, *options)]) == 2
    assert message.replace("\\", "") in capsys.readouterr().err
