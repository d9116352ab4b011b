"""The corpus pipeline on Slurm: a job array for each phase, all submitted at once, each after the one before."""

from __future__ import annotations

import pathlib
import shutil
import sys
from collections.abc import Sequence

from datatrove.executor.slurm import SlurmPipelineExecutor

from seallm_jax.core.corpus_config import ExecutionConfig
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.progress import Progress
from seallm_jax.corpus.phase import Phase
from seallm_jax.corpus.watch import watch


class SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's executor without its jobs that merge statistics: the corpus has a report of its own."""

    def launch_merge_stats(self) -> None:
        """Nothing."""

    def get_sbatch_args(self, max_array: int = 1) -> dict:
        """As datatrove's, where an empty partition leaves the choice to Slurm."""
        arguments = super().get_sbatch_args(max_array)
        if not self.partition:
            del arguments["partition"]
        return arguments


def run_phases(phases: Sequence[Phase], config: ExecutionConfig, progress: Progress) -> None:
    """Submits the jobs and waits until the last has ended.

    When a task fails, the jobs that depend on it are cancelled. When this process is stopped, the jobs go on, and
    running it again submits what is unfinished then: cancel jobs that are still in the queue before.

    Raises:
      SeallmError: there is no sbatch here, or a task failed.
    """
    if shutil.which("sbatch") is None:
        raise SeallmError("--executor=slurm needs Slurm's sbatch, which is not on the PATH: run it on a login node")
    executor: SlurmExecutor | None = None
    for phase in phases:
        options = {"kill-on-invalid-dep": "yes"} | config.slurm
        if phase is phases[-1]:
            options["wait"] = ""
        executor = SlurmExecutor(
            [phase],
            tasks=phase.tasks,
            time=config.time,
            partition=config.partition,
            workers=config.workers or -1,
            mem_per_cpu_gb=config.memory_gb,
            job_name=f"seallm-corpus-{phase.name}",
            qos="",
            env_command=f"export PATH={pathlib.Path(sys.executable).parent}:$PATH",
            sbatch_args=options,
            logging_dir=phase.logging_directory,
            depends=executor,
        )
    assert executor is not None
    watch(executor.run, phases, "Slurm", progress)
