"""The training loop: one for pretraining, fine-tuning and preferences. Only the source and the objective differ."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.languages import Languages
from seallm_jax.core.progress import Advance, Progress
from seallm_jax.core.schema import ModelConfig, TrainConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.training.checkpoint import Checkpoints, Identity
from seallm_jax.training.distributed import global_batch, local_rows, to_host
from seallm_jax.training.preemption import Preempted, PreemptionWatch
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import StepMetrics, StepProgram, build_step
from seallm_jax.training.telemetry import Telemetry

CHECKPOINT_DIRECTORY = "checkpoints"
MAXIMUM_SKIPS_IN_A_ROW = 20


class BatchSource(Protocol):
    """Rows in a fixed order. Row i is a pure function of i, so that the data state is one integer.

    Attributes:
      total_rows: rows in the whole stage.
      sequence_length: positions per row.
      reference_columns: width of `Batch.reference_logps`; 0 when batches have none.
      digest: changes when the order or the content of the rows changes.
    """

    @property
    def total_rows(self) -> int: ...
    @property
    def sequence_length(self) -> int: ...
    @property
    def reference_columns(self) -> int: ...
    @property
    def digest(self) -> str: ...

    def batches(self, start_row: int, rows: slice) -> Iterator[Batch]:
        """Batches of numpy arrays from global row `start_row` on. Of each batch, only the rows in `rows` are read."""
        ...


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """One training stage.

    Attributes:
      name: shown beside the progress.
      directory: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
      model: shape of the model, vocabulary sizes filled in.
      train: objective, optimizer, batch size and so on.
      languages: the run's languages.
      source: where the rows come from.
      tokenizer_digest: of the tokenizer that made the rows.
      mesh: all devices of all processes.
      rules: how arrays are split over the mesh.
      seed: the run's seed.
      first_new_row: first embedding row that the vocabulary extension added, for `optimizer.new_rows_first`.
    """

    name: str
    directory: pathlib.Path
    model: ModelConfig
    train: TrainConfig
    languages: Languages
    source: BatchSource
    tokenizer_digest: str
    mesh: Mesh
    rules: ShardingRules = ShardingRules()
    seed: int = 0
    first_new_row: int | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps; rows that do not fill a last batch are left out."""
        return self.source.total_rows // self.train.batch_rows

    @property
    def checkpoints(self) -> pathlib.Path:
        """Directory of the checkpoints."""
        return self.directory / CHECKPOINT_DIRECTORY


@dataclasses.dataclass(frozen=True)
class StepInfo:
    """One finished step.

    Attributes:
      step: steps done, this one included.
      rows: rows consumed.
      tokens: tokens consumed, padding not counted.
      loss: mean over the batch; NaN or infinite when the update was skipped for it.
      learning_rate: rate of this step.
      gradient_norm: before clipping.
      skipped_updates: updates left out so far.
      line: what was written to metrics.jsonl after this step, or None.
    """

    step: int
    rows: int
    tokens: int
    loss: float
    learning_rate: float
    gradient_norm: float
    skipped_updates: int
    line: dict[str, Any] | None


def train(job: TrainingJob, initial: Callable[[Any], Any], progress: Progress) -> Iterator[StepInfo]:
    """Trains from the newest checkpoint, or from the beginning, to the end; yields each step.

    The numbers of a step are fetched after the next one is dispatched, so that the device never waits for the host.
    A checkpoint is written every `checkpoint_every` steps and at the end; a finished job yields nothing.

    Args:
      job: what to train.
      initial: abstract parameters (shapes with shardings) -> parameters. Called where there is no checkpoint, and
        where the checkpoints hold an adapter alone.
      progress: where progress is shown.

    Raises:
      Preempted: SIGTERM came; a checkpoint is written.
      UsageError: batch and mesh do not fit, or there are fewer rows than one batch.
      SeallmError: a checkpoint that cannot be used, or updates that are skipped again and again.
    """
    if job.total_steps < 1:
        raise UsageError(
            f"{job.name} has {job.source.total_rows} rows, fewer than batch_rows = {job.train.batch_rows}; "
            "raise the token budget or lower batch_rows"
        )
    program = build_step(
        job.model,
        job.train,
        job.mesh,
        job.rules,
        sequence_length=job.source.sequence_length,
        total_steps=job.total_steps,
        num_languages=len(job.languages),
        reference_columns=job.source.reference_columns,
        first_new_row=job.first_new_row,
        seed=job.seed,
    )
    identity = Identity(
        job.model,
        job.tokenizer_digest,
        job.source.digest,
        job.train.batch_rows,
        job.seed,
        job.train.trainable,
        job.train.adapter,
    )
    checkpoints = Checkpoints(job.checkpoints, identity, keep=job.train.keep_checkpoints)
    try:
        state, rows, counters = _start(checkpoints, program, initial)
        done = rows // job.train.batch_rows
        is_writer = jax.process_index() == 0
        telemetry = Telemetry(
            job.directory,
            job.languages,
            log_every=job.train.log_every,
            restored_step=done,
            restored=counters,
            enabled=is_writer,
        )
        shown = progress if is_writer else Progress.silent()
        with PreemptionWatch() as watch, shown.task(job.name, job.total_steps, done=done) as advance:
            run = _Run(job, program, checkpoints, telemetry, watch, advance)
            try:
                yield from run.steps(state, done)
            finally:
                telemetry.close()
    finally:
        checkpoints.close()


class _Run:
    """What the loop holds while it runs."""

    def __init__(
        self,
        job: TrainingJob,
        program: StepProgram,
        checkpoints: Checkpoints,
        telemetry: Telemetry,
        watch: PreemptionWatch,
        advance: Advance,
    ):
        self._job = job
        self._program = program
        self._checkpoints = checkpoints
        self._telemetry = telemetry
        self._watch = watch
        self._advance = advance
        self._skipped: list[int] = []

    def steps(self, state: TrainState, done: int) -> Iterator[StepInfo]:
        job, program = self._job, self._program
        if done >= job.total_steps:
            return
        rows = local_rows(program.abstract_batch)
        batches = job.source.batches(done * job.train.batch_rows, rows)
        pending: tuple[int, StepMetrics] | None = None
        for step in range(done + 1, job.total_steps + 1):
            batch = global_batch(next(batches), rows, program.abstract_batch)
            state, metrics = program.run(state, batch)
            if pending is not None:
                yield self._finish(*pending)
            pending = (step, metrics)
            stop = self._watch.should_stop(step)
            if stop or step == job.total_steps or step % job.train.checkpoint_every == 0:
                yield self._finish(*pending)
                pending = None
                self._checkpoints.save(
                    state, step=step, rows=step * job.train.batch_rows, telemetry=self._telemetry.state()
                )
            if stop and step < job.total_steps:
                self._checkpoints.wait()
                raise Preempted(
                    f"{job.name} was told to stop at step {step} of {job.total_steps}; checkpoint "
                    f"{job.checkpoints / str(step)} is saved, and the same command continues from it"
                )

    def _finish(self, step: int, metrics: StepMetrics) -> StepInfo:
        """Fetches what a step measured, writes it down, and looks after its health."""
        job, values = self._job, to_host(metrics)
        rows = step * job.train.batch_rows
        sums = values.sums
        skipped = int(values.skipped)
        line = self._telemetry.record(
            step=step,
            rows=rows,
            tokens=int(values.tokens),
            loss=(float(sums.loss), float(sums.count)),
            languages=(sums.by_language["loss"].tolist(), sums.by_language["count"].tolist()),
            metrics={name: (float(total), float(count)) for name, (total, count) in sums.metrics.items()},
            learning_rate=float(values.learning_rate),
            gradient_norm=float(values.gradient_norm),
            skipped_updates=skipped,
            final=step == job.total_steps,
        )
        loss = float(sums.loss / sums.count) if sums.count else math.nan
        note = f"loss {loss:.3f}, {self._telemetry.tokens_per_second:,.0f} tok/s"
        self._advance(1, note + (f", {skipped} updates skipped" if skipped else ""))
        self._skipped = [*self._skipped, skipped][-MAXIMUM_SKIPS_IN_A_ROW - 1 :]
        if skipped - self._skipped[0] >= MAXIMUM_SKIPS_IN_A_ROW:
            raise SeallmError(
                f"{job.name}: the last {MAXIMUM_SKIPS_IN_A_ROW} updates up to step {step} had a loss or gradient that "
                "is not finite, or no position to learn from; lower optimizer.learning_rate or check the data"
            )
        return StepInfo(
            step=step,
            rows=rows,
            tokens=self._telemetry.tokens,
            loss=loss,
            learning_rate=float(values.learning_rate),
            gradient_norm=float(values.gradient_norm),
            skipped_updates=skipped,
            line=line,
        )


def _start(
    checkpoints: Checkpoints, program: StepProgram, initial: Callable[[Any], Any]
) -> tuple[TrainState, int, dict[str, Any]]:
    """(state, rows consumed, telemetry counters): restored where there is a checkpoint, else fresh."""
    if checkpoints.latest_step is not None:
        restored = checkpoints.restore(program.abstract_state, initial)
        return restored.state, restored.rows, dict(restored.telemetry)
    params = initial(program.abstract_state.params)
    shardings = shardings_of(program.abstract_state)
    return TrainState.create(params, program.optimizer, shardings, program.trainable), 0, {}
