"""One measurement of `seallm bench convert`: `python -m seallm_jax.cli.bench_convert_child TASK`, JSON in and out.

Memory is counted in anonymous pages: pages of files that are in the page cache are not the process's own.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.paths import write_json
from seallm_jax.core.schema import MeshConfig, ModelConfig
from seallm_jax.core.vocabulary import Vocabulary
from seallm_jax.interop.checkpoint_tensor import checkpoint_tensors
from seallm_jax.interop.huggingface import export_model, import_model
from seallm_jax.interop.tensor_files import DTYPES, TensorFiles
from seallm_jax.interop.tensor_writer import TensorSpec, TensorWriter
from seallm_jax.models.families.registry import family_named

SHARD_BYTES = 2_000_000_000
SECONDS_BETWEEN_SAMPLES = 0.002


def main() -> None:
    """Does the task that the command line names and prints what it found."""
    request = json.load(sys.stdin)
    source, output = pathlib.Path(request["source"]), pathlib.Path(request["output"])
    tasks: dict[str, Callable[[], dict[str, Any]]] = {
        "make": lambda: make_checkpoint(ModelConfig(**request["shape"]), source),
        "read": lambda: measure_read(source),
        "import": lambda: measure_import(source),
        "write": lambda: measure_write(source, output),
        "export": lambda: measure_export(source, output),
    }
    print(json.dumps(tasks[sys.argv[1]]()))


def make_checkpoint(config: ModelConfig, directory: pathlib.Path) -> dict[str, Any]:
    """Writes a folder with random weights and a tokenizer of one token."""
    directory.mkdir(parents=True)
    dtype = DTYPES["bfloat16"]
    padded = Vocabulary.padded(config.vocabulary_size).padded_size
    tensors = checkpoint_tensors(ModelConfig(**vars(config) | {"padded_vocabulary_size": padded}))
    specs = [TensorSpec(tensor.name, tensor.shape) for tensor in tensors]
    pool = np.random.default_rng(0).standard_normal(1 << 22, np.float32).astype(dtype)

    writer = TensorWriter(directory, specs, dtype=dtype, shard_bytes=SHARD_BYTES)
    for spec in specs:
        count = math.prod(spec.shape)
        for first in range(0, count, pool.size):
            writer.write(spec.name, pool[: count - first], first)
    writer.finish()
    write_json(directory / "config.json", family_named(config.family).config_to_huggingface(config))
    write_json(directory / "tokenizer.json", {"model": {"vocab": {"</s>": 0}}, "added_tokens": []})
    write_json(directory / "tokenizer_config.json", {"eos_token": "</s>"})
    return {"bytes": sum(spec.nbytes(dtype) for spec in specs)}


def measure_read(source: pathlib.Path) -> dict[str, Any]:
    """All tensors of all files as NumPy arrays, with safetensors alone."""
    from safetensors import safe_open

    tensors = []
    with _Clock() as clock:
        for file in sorted(source.glob("*.safetensors")):
            with safe_open(file, framework="numpy") as stream:
                tensors += [stream.get_tensor(name) for name in stream.keys()]  # noqa: SIM118 - not a dictionary
    return clock.times


def measure_import(source: pathlib.Path) -> dict[str, Any]:
    """`import_model` onto all devices, in bfloat16."""
    mesh = build_mesh(MeshConfig())
    with _Memory() as memory, _Clock() as clock:
        model = import_model(source, mesh=mesh, param_dtype=jnp.bfloat16)
        jax.block_until_ready(model.parameters)
    return clock.times | {"extra_bytes": memory.peak - _array_bytes(model.parameters)}


def measure_write(source: pathlib.Path, output: pathlib.Path) -> dict[str, Any]:
    """The same files from arrays in memory, with safetensors alone."""
    from safetensors.numpy import save_file

    files = TensorFiles(source)
    shards: dict[str, dict[str, np.ndarray]] = {}
    for name, info in files.tensors.items():
        shards.setdefault(info.file.name, {})[name] = files.tensor(name)
    output.mkdir()
    _drop_cached(source)
    _touch_memory(sum(info.nbytes for info in files.tensors.values()))
    with _Clock() as clock:
        for name, tensors in shards.items():
            save_file(tensors, output / name, metadata={"format": "pt"})
    return clock.times


def measure_export(source: pathlib.Path, output: pathlib.Path) -> dict[str, Any]:
    """`export_model` from all devices, in bfloat16."""
    model = import_model(source, mesh=build_mesh(MeshConfig()), param_dtype=jnp.bfloat16)
    _drop_cached(source)
    _touch_memory(_array_bytes(model.parameters))
    with _Memory() as memory, _Clock() as clock:
        export_model(model.parameters, model.config, source, output, dtype="bfloat16", shard_bytes=SHARD_BYTES)
    return clock.times | {"extra_bytes": memory.peak}


def _drop_cached(source: pathlib.Path) -> None:
    """Takes files out of the page cache, where they would only compete with what is written for memory."""
    for file in sorted(source.glob("*.safetensors")):
        with open(file, "rb", buffering=0) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _touch_memory(size: int) -> None:
    """Has the system hold this much free memory.

    The host of a virtual machine takes free memory back, and to ask for it again costs more than to write to it.
    """
    np.ones(size + size // 4, np.uint8)


def _array_bytes(tree: Any) -> int:
    """What the arrays of all devices take, copies included."""
    return sum(shard.data.nbytes for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards)


class _Clock(contextlib.AbstractContextManager):
    """`times`: seconds on the wall, and of processor time on all threads, which other processes do not change."""

    def __enter__(self) -> _Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        wall, processor = self._start
        self.times = {"seconds": time.perf_counter() - wall, "processor_seconds": time.process_time() - processor}


class _Memory(contextlib.AbstractContextManager):
    """Samples anonymous memory; `peak` is how much it grew at most, in bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _Memory:
        self._before = _anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SECONDS_BETWEEN_SAMPLES):
            self.peak = max(self.peak, _anonymous_bytes() - self._before)


def _anonymous_bytes() -> int:
    """Resident pages that are of no file, as Linux counts them."""
    with open("/proc/self/statm", "rb", buffering=0) as stream:
        _, resident, shared, *_ = stream.read().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


if __name__ == "__main__":
    main()
