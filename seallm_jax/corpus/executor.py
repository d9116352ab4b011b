"""Runs the phases of the corpus pipeline: here, or through datatrove's executors on Slurm or on Ray."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from datatrove.executor.base import PipelineExecutor

from seallm_jax.core.corpus_config import ExecutionConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.core.worker_pool import WorkerKilledError, WorkerPool
from seallm_jax.corpus.phase import Phase


def run_phases(phases: Sequence[Phase], config: ExecutionConfig, progress: Progress) -> None:
    """Runs the phases one after the other; tasks that an earlier run finished are skipped.

    Raises:
      SeallmError: a task failed or was killed, or the executor's package or commands are missing.
    """
    if config.executor != "local":
        from seallm_jax.corpus import ray_executor, slurm_executor

        module = slurm_executor if config.executor == "slurm" else ray_executor
        module.run_phases(phases, config, progress)
        return
    workers = min(config.workers or len(os.sched_getaffinity(0)), max(phase.tasks for phase in phases))
    with contextlib.ExitStack() as stack:
        # workers are forked by a process that has done nothing but the imports
        preload = ("__main__", "seallm_jax.corpus.pipeline")
        pool = None
        if workers > 1:
            pool = stack.enter_context(WorkerPool(workers, method="forkserver", preload=preload))
        for phase in phases:
            LocalExecutor(phase, pool).run(progress)


class LocalExecutor(PipelineExecutor):
    """Tasks in this process, or in a pool of worker processes.

    datatrove's own `LocalPipelineExecutor` waits for ever when a worker is killed, because `multiprocessing.Pool` loses
    the task, and starts a process of its own even for one task; this one fails at once, and starts none.
    """

    def __init__(self, phase: Phase, pool: WorkerPool | None = None):
        super().__init__([phase], logging_dir=phase.logging_directory)
        self._phase = phase
        self._pool = pool

    def run(self, progress: Progress = Progress.silent()) -> None:
        """Does all unfinished tasks."""
        ranks = self.get_incomplete_ranks()
        if self._pool is None or len(ranks) <= 1:
            self._run_here(ranks, progress)
        else:
            self._run_in_pool(ranks, self._pool, progress)

    def _run_here(self, ranks: Sequence[int], progress: Progress) -> None:
        phase = self._phase
        sizes = [phase.plan.files[number].size for rank in ranks for number in phase.files_of(rank)]
        unit, amount = ("KB", sum(sizes) // 1000) if phase.by_file else ("tasks", len(ranks))
        with progress.task(f"corpus: {phase.title} ({unit})", total=amount or None) as advance:
            phase.advance = lambda amount: advance(amount // 1000)
            for rank in ranks:
                self._run_for_rank(rank)
                if not phase.by_file:
                    advance(1)
            phase.advance = None

    def _run_in_pool(self, ranks: Sequence[int], pool: WorkerPool, progress: Progress) -> None:
        title, done = self._phase.title, self.world_size - len(ranks)
        with progress.task(f"corpus: {title} (tasks)", total=self.world_size, done=done) as advance:
            worker = LocalExecutor(self._phase)  # without the pool, which cannot be sent
            try:
                for _ in pool.run(worker._run_for_rank, [(rank,) for rank in ranks]):
                    advance(1)
            except WorkerKilledError as error:
                left = len(self.get_incomplete_ranks())
                raise SeallmError(
                    f"a worker process was killed while {title}, perhaps for want of memory; {left} of "
                    f"{self.world_size} tasks are left: run again to continue, or with fewer --workers"
                ) from error

    @property
    def world_size(self) -> int:
        return self._phase.tasks

    def get_distributed_env(self, node_rank: int = -1) -> Any:
        names = ("node_ips", "cpus_per_task", "mem_per_cpu", "gpus_on_node")
        return {f"datatrove_{name}": "" for name in names} | {"datatrove_executor": "LOCAL"}
