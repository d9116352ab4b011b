"""The training loop: one for pretraining, fine-tuning and preferences. Only the source and the objective differ."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError, UsageError
from seallm_jax.core.languages import Languages
from seallm_jax.core.progress import Advance, Progress
from seallm_jax.core.schema import ModelConfig, TrainConfig
from seallm_jax.core.sharding import ShardingRules
from seallm_jax.data.batch_plan import BatchPlan
from seallm_jax.models.flops import training_flops
from seallm_jax.training.checkpoint import Checkpoints
from seallm_jax.training.distributed import global_batch, local_rows, to_host
from seallm_jax.training.identity import Identity
from seallm_jax.training.lost_host import ending_with_other_hosts
from seallm_jax.training.metrics_writer import MetricsWriter
from seallm_jax.training.preemption import Preempted, PreemptionWatch
from seallm_jax.training.profile import StepProfile
from seallm_jax.training.spikes import SpikeWatch
from seallm_jax.training.state import TrainState, shardings_of
from seallm_jax.training.step import StepMetrics, StepProgram, build_step
from seallm_jax.training.step_clock import StepClock
from seallm_jax.training.telemetry import Telemetry
from seallm_jax.training.watchdog import Watchdog

CHECKPOINT_DIRECTORY = "checkpoints"
PROFILE_DIRECTORY = "profile"
MAXIMUM_SKIPS_IN_A_ROW = 20
COMPILATION_SECONDS, STORAGE_SECONDS = 3600.0, 1200.0  # on top of `step_timeout`


class BatchSource(Protocol):
    """Rows in a fixed order. Row i is a pure function of i, so that the data state is one integer.

    Attributes:
      plan: which rows each step takes.
      sequence_length: positions per row.
      reference_columns: width of `Batch.reference_logps`; 0 when batches have none.
      document_length: usual length of a document, by which attention chooses its blocks; 0 when it is not known.
      served: how many of the first rows each source serves, by name.
      digest: changes when the order or the content of the rows changes.
    """

    @property
    def plan(self) -> BatchPlan: ...
    @property
    def sequence_length(self) -> int: ...
    @property
    def reference_columns(self) -> int: ...
    @property
    def document_length(self) -> int: ...
    @property
    def digest(self) -> str: ...

    def served(self, rows: int) -> Mapping[str, int]: ...

    def batches(self, start_row: int, rows: slice) -> Iterator[Batch]:
        """Batches of numpy arrays from the step that begins at global row `start_row` on.

        Of a batch of `batch_rows`, only the rows in `rows` are read; of one of another size, the same share.
        """
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
      token_bytes: UTF-8 bytes that each id of the tokenizer stands for, for losses in bits per byte; None for none.
      profile_steps: the first and the last step to trace, into `profile/`.
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
    token_bytes: np.ndarray | None = None
    profile_steps: tuple[int, int] | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps."""
        return self.source.plan.total_steps

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
    A checkpoint is written every `checkpoint_every` steps and at the end; a finished job yields nothing. A host that is
    gone or hangs ends the process, see `lost_host`.

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
            f"{job.name} has fewer rows than batch_rows = {job.train.batch_rows}; "
            "raise the token budget or lower batch_rows"
        )
    program = build_step(
        job.model,
        job.train.with_document_length(job.source.document_length),
        job.mesh,
        job.rules,
        sequence_length=job.source.sequence_length,
        total_steps=job.total_steps,
        num_languages=len(job.languages),
        reference_columns=job.source.reference_columns,
        first_new_row=job.first_new_row,
        stage_starts=job.source.plan.starts,
        token_bytes=job.token_bytes,
        seed=job.seed,
    )
    identity = Identity(
        job.model,
        job.tokenizer_digest,
        job.source.digest,
        job.train.batch_rows,
        job.seed,
        program.trainable,
        job.train.adapter,
        job.train.optimizer.name,
        job.train.parameter_dtype,
        job.train.optimizer.state_dtype,
        program.neurons,
    )
    is_writer = jax.process_index() == 0
    shown = progress if is_writer else Progress.silent()
    timeout = job.train.step_timeout
    with Watchdog() as watchdog, ending_with_other_hosts():
        checkpoints = Checkpoints(job.checkpoints, identity, keep=job.train.keep_checkpoints, report=shown.say)
        try:
            with ending_with_other_hosts():  # closing the checkpoints would wait for them
                with watchdog.limit(f"the start of {job.name}", timeout and timeout + COMPILATION_SECONDS):
                    state, rows, counters = _start(checkpoints, program, initial)
                done = job.source.plan.steps_before(rows)
                telemetry = _telemetry(job, done, counters, is_writer)
                spikes = SpikeWatch(job.train.spike_threshold, counters.get("losses", ()))
                with PreemptionWatch() as preemption, shown.task(job.name, job.total_steps, done=done) as advance:
                    run = _Run(
                        job, program, checkpoints, telemetry, spikes, preemption, watchdog, initial, shown.say, advance
                    )
                    try:
                        yield from run.steps(state, done)
                    finally:
                        telemetry.close()
        finally:
            with watchdog.limit(f"the last checkpoint of {job.name}", timeout and timeout + STORAGE_SECONDS):
                checkpoints.close()


class _Run:
    """What the loop holds while it runs."""

    def __init__(
        self,
        job: TrainingJob,
        program: StepProgram,
        checkpoints: Checkpoints,
        telemetry: Telemetry,
        spikes: SpikeWatch,
        preemption: PreemptionWatch,
        watchdog: Watchdog,
        initial: Callable[[Any], Any],
        say: Callable[[str], None],
        advance: Advance,
    ):
        self._job = job
        self._program = program
        self._checkpoints = checkpoints
        self._telemetry = telemetry
        self._spikes = spikes
        self._preemption = preemption
        self._watchdog = watchdog
        self._initial = initial
        self._say = say
        self._advance = advance
        self._profile = StepProfile(job.directory / PROFILE_DIRECTORY, job.profile_steps)
        self._skipped: list[int] = []
        self._sizes: set[int] = set()  # of batches that there is a program for

    def steps(self, state: TrainState, done: int) -> Iterator[StepInfo]:
        name, timeout = self._job.name, self._job.train.step_timeout
        with contextlib.closing(self._steps(state, done)) as steps, contextlib.closing(self._profile):
            while True:
                with self._watchdog.limit(f"{name}: what follows step {done}", timeout):
                    info = next(steps, None)
                if info is None:
                    return
                done = info.step
                yield info

    def _steps(self, state: TrainState, done: int) -> Generator[StepInfo, None, None]:
        job, program = self._job, self._program
        plan = job.source.plan
        pending: tuple[int, StepMetrics] | None = None
        batches, step, asked = self._batches(done), done, 0
        while step < job.total_steps:
            size = plan.size_at(step)
            if size not in self._sizes:
                self._watchdog.extend(COMPILATION_SECONDS)
                self._sizes.add(size)
            shape = program.batch_of(size)
            batch = global_batch(next(batches), local_rows(shape), shape)
            step += 1
            with self._profile.step(step):
                state, metrics = program.run(state, batch)
            if pending is not None:
                info = self._finish(*pending)
                yield info
                if self._spikes.is_spike(info.loss):
                    state = self._roll_back(state, info)  # what came after it goes, too
                    batches, step, pending = self._batches(info.step), info.step, None
                    continue
            pending = (step, metrics)
            asked += 1
            stop = self._preemption.should_stop(done + asked)
            if stop or step == job.total_steps or step % job.train.checkpoint_every == 0:
                info = self._finish(*pending)
                pending = None
                yield info
                if self._spikes.is_spike(info.loss):
                    state = self._roll_back(state, info)
                self._save(state, step)
            if stop and step < job.total_steps:
                self._watchdog.extend(STORAGE_SECONDS)
                self._checkpoints.wait()
                raise Preempted(
                    f"{job.name} was told to stop at step {step} of {job.total_steps}; checkpoint "
                    f"{job.checkpoints / str(step)} is saved, and the same command continues from it"
                )

    def _batches(self, done: int) -> Iterator[Batch]:
        source = self._job.source
        return source.batches(source.plan.rows_before(done), local_rows(self._program.abstract_batch))

    def _save(self, state: TrainState, step: int) -> None:
        counters = self._telemetry.state() | {"losses": self._spikes.state()}
        rows = self._job.source.plan.rows_before(step)
        self._watchdog.extend(STORAGE_SECONDS)  # may wait for the one before it
        self._checkpoints.save(state, step=step, rows=rows, telemetry=counters)
        self._telemetry.resume_clock()

    def _roll_back(self, state: TrainState, info: StepInfo) -> TrainState:
        """The state of the last checkpoint. The rows since then have been consumed; the schedule goes by updates."""
        self._watchdog.extend(STORAGE_SECONDS)
        leap = f"{self._job.name}: the loss leapt to {info.loss:.3f} at step {info.step}"
        self._checkpoints.wait()
        last = self._checkpoints.latest_step
        if last is None:
            self._say(f"{leap}; there is no checkpoint to go back to, so the run goes on")
            return state
        jax.tree.map(lambda leaf: leaf.delete(), state)  # makes room for the other
        restored = self._checkpoints.restore(self._program.abstract_state, self._initial)
        self._telemetry.roll_back(restored.telemetry)
        self._say(f"{leap}; back to the checkpoint of step {last}, leaving out the rows of the steps in between")
        return restored.state

    def _finish(self, step: int, metrics: StepMetrics) -> StepInfo:
        """Fetches what a step measured, writes it down, and looks after its health."""
        job, values = self._job, to_host(metrics)
        self._profile.done(step)
        plan = job.source.plan
        rows = plan.rows_before(step)
        sums = values.sums
        skipped = int(values.skipped)
        line = self._telemetry.record(
            values, step=step, rows=rows, batch_rows=plan.size_at(step - 1), final=step == job.total_steps
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


def _telemetry(job: TrainingJob, step: int, counters: dict[str, Any], writes: bool) -> Telemetry:
    """The telemetry of a job that continues from a step."""
    row = (job.model, 1, job.source.sequence_length)
    whole = job.train.adapter is None
    flops = {name: training_flops(*row, causal=name == "causal", weight_gradients=whole) for name in ("full", "causal")}
    writer = None
    if writes:
        writer = MetricsWriter(job.directory, restored_step=step, name=job.name, wandb=job.train.wandb)
    return Telemetry(
        job.languages,
        log_every=job.train.log_every,
        clock=StepClock(flops=flops, devices=job.mesh.size, device=jax.local_devices()[0], restored=counters),
        writer=writer,
        served=job.source.served,
        restored=counters,
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
