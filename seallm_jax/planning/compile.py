"""Compiles the training step for a TPU slice, without a TPU, in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.paths import read_json
from seallm_jax.core.schema import MeshConfig, ModelConfig, PackingConfig, TrainConfig
from seallm_jax.planning.kernel_seconds import KernelSeconds
from seallm_jax.planning.libtpu_environment import LIBTPU_ENVIRONMENT
from seallm_jax.planning.plan import Plan
from seallm_jax.planning.step_time import StepTime, predict_step_time
from seallm_jax.planning.topology import Topology


def plan_step(
    model: ModelConfig,
    train: TrainConfig,
    packing: PackingConfig,
    mesh: MeshConfig,
    topology: str,
    *,
    num_languages: int = 16,
    kernel_seconds: KernelSeconds | None = None,
    predict: bool = True,
    timeout: float = 3600,
) -> Plan:
    """Compiles the very step that training runs, for the devices of `topology`, and tells its memory and its time.

    Nothing of the model is allocated. The TPU compiler runs in a child process, because libtpu reads its environment
    once and would claim this process.

    Args:
      model: shape of the model, vocabulary sizes filled in.
      train: objective, rows, accumulation, dtype, remat.
      packing: positions per row, and pairs per row for preferences.
      mesh: mesh axes over the devices of the slice.
      topology: the slice, such as v5e:16x16.
      num_languages: length of the loss sums by language.
      kernel_seconds: what kernels take; one for several plans compiles each shape of a kernel once.
      predict: whether to predict the time, too.
      timeout: seconds after which the compiler is stopped.

    Raises:
      UsageError: an unknown topology, or a mesh or batch that does not fit it.
      SeallmError: libtpu is not installed, or the compiler failed other than for lack of memory.
    """
    parsed = Topology.parse(topology)
    request = {
        "model": dataclasses.asdict(model),
        "train": dataclasses.asdict(train),
        "packing": dataclasses.asdict(packing),
        "mesh": dataclasses.asdict(mesh),
        "num_languages": num_languages,
        "predict": predict,
    }
    kernel_seconds = kernel_seconds or KernelSeconds(
        parsed.generation, document_length=train.kernels.document_length, model=model, timeout=timeout
    )
    tokens = sum(stage.tokens for stage in train.curriculum)
    with asked_compiler(request, parsed, timeout) as (answer, directory):
        plan = Plan(**answer["plan"], schedule_tokens=tokens)
        time, missing = predicted_time(directory / "step", parsed, answer["places"], kernel_seconds)
    return dataclasses.replace(plan, time=time, time_missing=plan.time_missing or missing)


def predicted_time(
    text: pathlib.Path, topology: Topology, places: Sequence[Sequence[int]], kernel_seconds: KernelSeconds
) -> tuple[StepTime | None, str]:
    """(time of the program in a file, or None; why there is none). No file is no program to predict."""
    if not text.exists():
        return None, ""
    try:
        return predict_step_time(text.read_text(), topology, kernel_seconds, [tuple(place) for place in places]), ""
    except SeallmError as error:
        return None, str(error)


@contextlib.contextmanager
def asked_compiler(
    request: dict[str, Any], topology: Topology, timeout: float
) -> Iterator[tuple[dict[str, Any], pathlib.Path]]:
    """Yields the child's answer and the folder with the texts of its programs, which is removed afterwards.

    Raises:
      UsageError: a request that cannot be served.
      SeallmError: libtpu is not installed, or the compiler failed other than for lack of memory.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise SeallmError("planning needs the TPU compiler; install it with: pip install libtpu")
    name = topology.name
    with tempfile.TemporaryDirectory(prefix="seallm-plan-") as directory:
        answer = pathlib.Path(directory) / "answer.json"
        errors = _run_child(request | {"topology": name}, answer, name, timeout)
        if not answer.exists():
            raise SeallmError(f"the TPU compiler failed for {name}: {errors}")
        result = read_json(answer)
        if "usage" in result:
            raise UsageError(result["usage"])
        if "problem" in result:
            raise SeallmError(result["problem"])
        if "error" in result:
            raise SeallmError(f"the TPU compiler failed for {name}: {result['error']}")
        yield result, answer.parent


def _run_child(request: dict, answer: pathlib.Path, name: str, timeout: float) -> str:
    """Runs the child until it has written `answer`; returns the last line of its errors."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "seallm_jax.planning.child", str(answer)],
            input=json.dumps(request),
            env=os.environ | LIBTPU_ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise SeallmError(f"compiling for {name} took more than {timeout:.0f} s and was stopped") from None
    lines = child.stderr.strip().splitlines()
    return lines[-1][:300] if lines else f"exit status {child.returncode}"
