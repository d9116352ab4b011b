"""`seallm bench corpus` on a part of the embedded sample."""

import json
import shutil

from seallm_jax.cli.main import main
from seallm_jax.core.sample import sample_path


def test_sample(tmp_path, capsys):
    for code in ("jv", "km"):
        shutil.copy(sample_path("corpus") / f"{code}.jsonl", tmp_path)
    result = tmp_path / "result"
    assert main(["bench", "corpus", f"--corpus={tmp_path}", f"--json={result}"]) == 0
    found = json.loads(result.read_text())
    speeds = found["mb_per_cpu_second"]
    assert set(speeds) == {"jv", "km", "all"} and found["dropped"] == 0
    steps = {"repair", "identification", "filters", "masking", "together"}
    assert all(steps <= set(row) and min(row.values()) > 0 for row in speeds.values())
    assert all(row["together"] < min(row[step] for step in steps - {"together"}) for row in speeds.values())
    assert "Cleaning, MB a CPU second" in capsys.readouterr().out


def test_no_text(tmp_path, capsys):
    (tmp_path / "id.jsonl").write_text("")
    assert main(["bench", "corpus", f"--corpus={tmp_path}"]) == 1
    assert "no text in" in capsys.readouterr().err
