"""Reference log-probabilities: the frozen model of a preference objective, run once instead of at every step."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seallm_jax.core.batch import Batch
from seallm_jax.core.languages import Languages
from seallm_jax.core.paths import read_json, value_digest
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import KernelConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.data.loader import read_in_order
from seallm_jax.data.reference import INDEX_FILE, ReferenceLogps
from seallm_jax.data.shards import ShardReader
from seallm_jax.models.decoder import Decoder
from seallm_jax.objectives.segment_log_probability import segment_log_probabilities
from seallm_jax.training.distributed import abstract_batch, global_batch


def reference_log_probabilities(
    model: Decoder,
    readers: Sequence[ShardReader],
    languages: Languages,
    directory: pathlib.Path,
    *,
    model_digest: str,
    batch_rows: int,
    mesh: Mesh,
    compute_dtype: str,
    kernels: KernelConfig = KernelConfig(),
    rules: ShardingRules = ShardingRules(),
    progress: Progress,
) -> dict[str, ReferenceLogps]:
    """Log-probability of every reply in the shards under `model`, by source name.

    Results are kept below `directory` under the digest of model and rows; what is there already is not computed again.

    Args:
      model: the reference, laid out on `mesh`.
      readers: preference shards.
      languages: the run's languages.
      directory: where results are kept; a file system that all processes see.
      model_digest: identifies the reference.
      batch_rows: rows of a forward pass, a multiple of the mesh's row shards.
      mesh: all devices of all processes.
      compute_dtype: that of the training step, so that policy and reference agree at the start.
      kernels: those of the training step.
      progress: one task.

    Raises:
      SeallmError: results that are damaged, or a full disk.
    """
    found: dict[str, ReferenceLogps] = {}
    missing = []
    for reader in readers:
        path = directory / reader.index.language
        digest = value_digest({"model": model_digest, "rows": reader.index.digest, "dtype": compute_dtype})
        if (path / INDEX_FILE).exists() and read_json(path / INDEX_FILE).get("digest") == digest:
            found[reader.index.name] = ReferenceLogps.open(path, digest)
        else:
            missing.append((reader, path, digest))
    if jax.process_index() != 0:
        progress = Progress.silent()
    graph, parameters = nnx.split(model)
    segments = max(reader.index.max_segments for reader in readers)
    forward = (("compute_dtype", jnp.dtype(compute_dtype)), ("mesh", mesh), ("rules", rules), ("kernels", kernels))
    with progress.task("reference log-probabilities", total=sum(len(reader) for reader, _, _ in missing)) as advance:
        for reader, path, digest in missing:
            values = np.empty((len(reader), segments), np.float32)
            shape = abstract_batch(batch_rows, reader.index.sequence_length, mesh, rules)
            for part, local in read_in_order(reader, languages, batch_rows):
                batch = global_batch(local, slice(0, batch_rows), shape)
                sums = _segment_sums(graph, segments, forward, parameters, batch)
                values[part] = np.asarray(sums)[: part.stop - part.start]
                advance(part.stop - part.start)
            if jax.process_index() == 0:
                reference = ReferenceLogps.create(path, digest, *values.shape)
                reference.values[:] = values
                reference.save()
            multihost_utils.sync_global_devices(f"reference {reader.index.name}")
            found[reader.index.name] = ReferenceLogps.open(path, digest)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _segment_sums(
    graph: Any, segments: int, forward: tuple[tuple[str, Any], ...], parameters: Any, batch: Batch
) -> jax.Array:
    options = dict(forward)
    sums_BxS = segment_log_probabilities(nnx.merge(graph, parameters), batch, segments, **options)
    # replicated, so that every process can read all of it
    return jax.lax.with_sharding_constraint(sums_BxS, NamedSharding(options["mesh"], PartitionSpec()))
