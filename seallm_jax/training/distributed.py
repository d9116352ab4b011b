"""Several processes as one: joining them, and global arrays from the rows that each host reads."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax._src import distributed
from jax.sharding import Mesh

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.training.lost_host import abort_is_a_lost_host

PATIENCE = 7 * 24 * 3600 * 1000  # milliseconds for which processes wait for the work of one


def initialize_distributed(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout: int = 100,
) -> None:
    """Joins the processes of a run. Call it before anything else touches JAX's devices.

    From then on this process ends by `lost_host.end_process` when another one ends before it or is silent.

    Args:
      coordinator: host:port of process 0. With all three arguments absent, JAX reads them from the cluster (Cloud TPU,
        Slurm, Open MPI, Kubernetes).
      num_processes: how many processes there are.
      process_id: this process's number, from 0.
      heartbeat_timeout: seconds of silence after which a process counts as gone; one that is done waits as long for the
        others, and three times as long for them to come.

    Raises:
      UsageError: some of the arguments are given and some are not.
      SeallmError: the processes did not find one another.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    if any(given) and not all(given):
        raise UsageError("give --coordinator, --num_processes and --process_id together, or none of them on a cluster")
    abort_is_a_lost_host()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # CPU devices alone look at it
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=3 * heartbeat_timeout,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=heartbeat_timeout,
        )
    except (RuntimeError, ValueError) as error:
        where = coordinator or "the cluster environment"
        raise SeallmError(f"cannot join the run's processes through {where}: {_first_line(error)}") from error


def wait_for_all(name: str) -> None:
    """Waits until all processes are here, once for each name.

    It takes no time on devices, whose collectives give up after half a minute where they are CPUs. A process that is
    lost ends the wait, see `initialize_distributed`.
    """
    client = distributed.global_state.client
    assert client is not None, "initialize_distributed comes first"
    client.wait_at_barrier(name, PATIENCE)


def abstract_batch(rows: int, positions: int, mesh: Mesh, rules: ShardingRules, *, reference_columns: int = 0) -> Batch:
    """A Batch of ShapeDtypeStructs with shardings: rows over `rules.batch`, positions over `rules.sequence`."""
    by_position = rules.sharding(mesh, "batch", "sequence")
    ids = jax.ShapeDtypeStruct((rows, positions), np.int32, sharding=by_position)
    weights = jax.ShapeDtypeStruct((rows, positions), np.float32, sharding=by_position)
    references = jax.ShapeDtypeStruct(
        (rows, reference_columns), np.float32, sharding=rules.sharding(mesh, "batch", None)
    )
    return Batch(ids, ids, ids, ids, weights, ids, references if reference_columns else None)


def local_rows(abstract: Batch) -> slice:
    """The rows of a batch that this process must read: the smallest slice that covers its devices."""
    rows, _ = abstract.shape
    indices = abstract.tokens.sharding.addressable_devices_indices_map(abstract.shape).values()
    spans = [index[0].indices(rows) for index in indices]
    return slice(min(start for start, _, _ in spans), max(stop for _, stop, _ in spans))


def global_batch(local: Batch, rows: slice, abstract: Batch) -> Batch:
    """The batch as global arrays.

    Args:
      local: numpy arrays with the rows `rows` of the batch, at least those of `local_rows`.
      rows: which rows `local` holds.
      abstract: shapes and shardings of the whole batch.
    """

    def place(array: np.ndarray, whole: jax.ShapeDtypeStruct) -> jax.Array:
        def read(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # None stands for a scalar
            start, stop, _ = index[0].indices(whole.shape[0])
            return array[(slice(start - rows.start, stop - rows.start), *index[1:])]

        return jax.make_array_from_callback(whole.shape, whole.sharding, read)

    return jax.tree.map(place, local, abstract)


def to_host(tree: Any) -> Any:
    """Replicated device arrays as numpy; waits for them."""
    return jax.tree.map(np.asarray, jax.device_get(tree))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
