"""launch/tpu_pod.sh trains with the real `seallm` on four workers, which are local processes, and loses one.

    python -m tests.proofs.pod                       a short run, one worker killed
    python -m tests.proofs.pod --accident=hang       one worker stops for good; or preempt: all are gone
    python -m tests.proofs.pod --config=configs/quickstart.py

The accident comes with the first checkpoint of the pretraining. A second run without one begins with a copy of what the
first had done before that stage. Losses, gradient norms and the exported weights of both must be the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import shutil
import sys
import tempfile
import time
from typing import Any

from seallm_jax.training.step_clock import StepClock
from tests.launch.cloud import ROOT, FakeCloud

WORKERS = 4
BEFORE = ("corpus", "base", "vocab", "pack", "mixture", "schedules")
STAGES = ("pretrain", "hybrid", "sft", "preference")
TIMING = set(StepClock(flops={}, devices=1).figures())


def cloud(directory: pathlib.Path, cache: pathlib.Path, **accident: str) -> FakeCloud:
    environment = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        "PYTHONPATH": str(ROOT),
        "GRACE": "10",
    }
    program = f'exec {sys.executable} -m seallm_jax "$@"'
    return FakeCloud(directory, workers=WORKERS, program=program, environment=environment, **accident)


def run(made: FakeCloud, config: pathlib.Path, log: pathlib.Path) -> float:
    """Seconds that the whole script took."""
    begin = time.monotonic()
    done = made.pod("run", "--type=v6e-4", "--nfs=host:/share", "--", f"--config={config}", timeout=7200)
    log.write_text(f"{done.stdout}\n{done.stderr}")
    print("\n".join(f"  {line}" for line in done.stderr.splitlines() if line.startswith(("tpu_pod: ", "seallm: "))))
    assert done.returncode == 0 and not made.exists, f"status {done.returncode}; see {log}:\n{done.stderr[-3000:]}"
    return time.monotonic() - begin


def metrics(run_directory: pathlib.Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run_directory / stage / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def weights(run_directory: pathlib.Path) -> dict[str, str]:
    files = sorted((run_directory / "export").rglob("*.safetensors"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accident", choices=("kill", "hang", "preempt"), default="kill")
    parser.add_argument("--config", default="tests/proofs/pod_config.py", help="configuration of the run")
    parser.add_argument("--directory", help="keep everything there; a first run that is there is taken")
    options = parser.parse_args()
    root = pathlib.Path(options.directory or tempfile.mkdtemp()).absolute()
    config = (ROOT / options.config).absolute()
    try:
        pattern = str(root / "lost/shared/runs/sea/pretrain/checkpoints/*[0-9]/metadata")
        disturbed = cloud(root / "lost", root / "compiled", **{options.accident: pattern})
        seconds = run(disturbed, config, root / "lost.log")
        first = disturbed.shared / "runs" / "sea"
        starts = disturbed.calls.count("ssh all train")
        goodput = json.loads((first / "pretrain" / "metrics.jsonl").read_text().splitlines()[-1])["goodput"]
        print(
            f"{options.accident}: {starts} starts of the training, {seconds:.0f} s, goodput {goodput:.3f}", flush=True
        )
        assert starts == 2

        whole = cloud(root / "whole", root / "compiled")
        second = whole.shared / "runs" / "sea"
        for name in BEFORE:
            if (first / name).exists():
                shutil.copytree(first / name, second / name)
        seconds = run(whole, config, root / "whole.log")
        assert whole.calls.count("ssh all train") == 1
        steps = 0
        for stage in STAGES:
            lines = metrics(first, stage)
            assert lines == metrics(second, stage), f"other numbers in {stage}"
            steps += lines[-1]["step"]
        assert weights(first) == weights(second) and weights(first), "other weights"
        print(
            f"undisturbed: {seconds:.0f} s; the {steps} steps of {', '.join(STAGES)} and the export are the same bits"
        )
    finally:
        if not options.directory:
            shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
