"""The corpus pipeline on Ray."""

from __future__ import annotations

from collections.abc import Sequence

from datatrove.executor.ray import RayPipelineExecutor

from seallm_jax.core.corpus_config import ExecutionConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.watch import watch


def run_phases(phases: Sequence[Phase], config: ExecutionConfig, progress: Progress) -> None:
    """Runs the phases on the cluster that this machine belongs to, or else on a Ray of its own.

    Raises:
      SeallmError: ray is not installed, or a task failed.
    """
    try:
        import ray
    except ImportError:
        raise SeallmError("--executor=ray needs ray: pip install 'seallm_jax[ray]'") from None
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        for phase in phases:
            watch(make_executor(phase, config).run, [phase], "Ray", progress)
    finally:
        if started:
            ray.shutdown()


def make_executor(phase: Phase, config: ExecutionConfig) -> RayPipelineExecutor:
    """datatrove's executor for one phase; it needs no Ray before it runs."""
    return RayPipelineExecutor(
        [phase],
        tasks=phase.tasks,
        workers=config.workers or -1,
        mem_per_cpu_gb=config.memory_gb,
        logging_dir=phase.logging_directory,
    )
