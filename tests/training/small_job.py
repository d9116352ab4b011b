"""A small training job on a made-up source, for tests in this process and, run as a script, in others.

The script takes one JSON argument, the fields of `Settings`, and writes a line per step to `trace`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
from flax import nnx

from seallm_jax.core.batch import Batch
from seallm_jax.core.errors import SeallmError, report_error
from seallm_jax.core.languages import Languages
from seallm_jax.core.mesh import build_mesh
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import MeshConfig, ModelConfig, ObjectiveConfig, OptimizerConfig, TrainConfig
from seallm_jax.data.batch_plan import BatchPlan
from seallm_jax.models.layout import initialize
from seallm_jax.training.distributed import initialize_distributed
from seallm_jax.training.loop import StepInfo, TrainingJob, train

VOCABULARY = 60
MODEL = ModelConfig(
    vocabulary_size=VOCABULARY,
    padded_vocabulary_size=128,
    hidden_size=16,
    intermediate_size=32,
    num_layers=2,
    num_heads=4,
    num_key_value_heads=2,
    head_size=4,
)
LANGUAGES = Languages(("en", "km"))


@dataclasses.dataclass(frozen=True)
class FakeSource:
    """Rows that are a pure function of their index: two documents (or a preference pair) and some padding."""

    total_rows: int
    batch_rows: int
    sequence_length: int = 24
    reference_columns: int = 0
    document_length: int = 8
    spans: tuple[tuple[int, int], ...] = ()  # (steps, rows of each); none is batch_rows throughout
    seed: int = 0
    leap: int = 0  # step whose targets are another word than the rule has it; 0 is none
    log: str = ""  # file that gets number and digest of every row

    @property
    def plan(self) -> BatchPlan:
        return BatchPlan(self.spans or ((self.total_rows // self.batch_rows, self.batch_rows),))

    @property
    def digest(self) -> str:
        return f"fake-{self.seed}-{self.total_rows}"

    def served(self, rows: int) -> dict[str, int]:
        return {"fake": rows}

    def row(self, index: int) -> tuple[np.ndarray, ...]:
        random = np.random.default_rng([self.seed, index])
        T = self.sequence_length
        cut, end = random.integers(6, 12), random.integers(15, T)
        ids = np.cumsum(random.choice([1, 2], T + 1, p=[0.8, 0.2])) % VOCABULARY
        position = np.arange(T)
        segment = np.where(position < cut, 1, np.where(position < end, 2, 0))
        weight = (segment > 0) & (position != cut - 1) & ((position > 2) | (self.reference_columns == 0))
        return ids[:-1], ids[1:], np.where(segment == 2, position - cut, position), segment, weight, segment % 2

    def batches(self, start_row: int, rows: slice) -> Iterator[Batch]:
        for step in range(self.plan.steps_before(start_row), self.plan.total_steps):
            first, size = self.plan.rows_before(step), self.plan.size_at(step)
            start, stop = rows.start * size // self.batch_rows, rows.stop * size // self.batch_rows
            columns = zip(*(self.row(first + index) for index in range(start, stop)), strict=True)
            tokens, targets, positions, segments, weights, languages = (np.stack(c).astype(np.int32) for c in columns)
            if step + 1 == self.leap:
                targets = (targets + VOCABULARY // 2) % VOCABULARY
            shape = (stop - start, self.reference_columns)
            references = np.full(shape, -30.0, np.float32) if self.reference_columns else None
            if self.log:
                with open(self.log, "a") as file:
                    for row in range(stop - start):
                        digest = hashlib.sha256(tokens[row].tobytes() + segments[row].tobytes()).hexdigest()
                        file.write(f"{first + start + row} {digest}\n")
            yield Batch(tokens, targets, positions, segments, weights.astype(np.float32), languages, references)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a test varies."""

    directory: str
    steps: int = 6
    batch_rows: int = 8
    accumulation: int = 1
    spans: tuple[tuple[int, int], ...] = ()  # (steps, rows of each) in place of steps x batch_rows
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)
    devices: int = 0  # 0: all
    objective: str = "language_modeling"
    checkpoint_every: int = 100
    log_every: int = 1
    keep_checkpoints: int = 2
    spike_threshold: float = 0.0
    leap: int = 0  # step with targets that no one expects
    step_timeout: float = 600.0
    heartbeat_timeout: int = 100
    learning_rate: float = 1e-2
    kill_at: int = 0  # SIGKILL to itself after this step
    terminate_at: int = 0  # SIGTERM to itself after this step
    stop_at: int = 0  # SIGSTOP to itself after this step
    pause: float = 0.0  # seconds of sleep after each step
    trace: str = ""
    batch_log: str = ""
    process: int = 0
    processes: int = 1
    coordinator: str = ""


def make_job(settings: Settings) -> TrainingJob:
    mesh = build_mesh(MeshConfig(**settings.mesh), jax.devices()[: settings.devices or None])
    return TrainingJob(
        name="test",
        directory=pathlib.Path(settings.directory),
        model=MODEL,
        train=TrainConfig(
            objective=ObjectiveConfig(name=settings.objective),
            optimizer=OptimizerConfig(learning_rate=settings.learning_rate),
            batch_rows=settings.batch_rows,
            accumulation=settings.accumulation,
            compute_dtype="float32",
            checkpoint_every=settings.checkpoint_every,
            keep_checkpoints=settings.keep_checkpoints,
            log_every=settings.log_every,
            spike_threshold=settings.spike_threshold,
            step_timeout=settings.step_timeout,
        ),
        languages=LANGUAGES,
        source=FakeSource(
            settings.steps * settings.batch_rows,
            settings.batch_rows,
            spans=settings.spans,
            reference_columns=2 if settings.objective == "dpo" else 0,
            leap=settings.leap,
            log=settings.batch_log,
        ),
        tokenizer_digest="tokenizer",
        mesh=mesh,
    )


def run(job: TrainingJob) -> list[StepInfo]:
    return list(iterate(job))


def iterate(job: TrainingJob, progress: Progress | None = None) -> Iterator[StepInfo]:
    def initial(abstract):
        model = initialize(job.model, seed=job.seed, mesh=job.mesh, rules=job.rules)
        return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), nnx.state(model), abstract)

    return train(job, initial, progress or Progress.silent())


def main() -> int:
    logging.getLogger("absl").setLevel(logging.ERROR)  # as the command line does
    settings = Settings(**json.loads(sys.argv[1]))
    if settings.processes > 1:
        initialize_distributed(
            settings.coordinator, settings.processes, settings.process, heartbeat_timeout=settings.heartbeat_timeout
        )
    try:
        for info in iterate(make_job(settings), Progress()):
            if settings.trace:
                with open(settings.trace, "a") as file:
                    file.write(json.dumps([info.step, info.loss, info.gradient_norm, info.tokens]) + "\n")
            for at, signum in (
                (settings.kill_at, signal.SIGKILL),
                (settings.terminate_at, signal.SIGTERM),
                (settings.stop_at, signal.SIGSTOP),
            ):
                if info.step == at:
                    os.kill(os.getpid(), signum)
            time.sleep(settings.pause)
    except SeallmError as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
