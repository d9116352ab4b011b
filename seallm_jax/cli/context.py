"""A run in progress: its config and directory, and the rule that decides whether a stage has to run."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from seallm_jax.core.config import to_dict
from seallm_jax.core.errors import SeallmError
from seallm_jax.core.languages import Languages
from seallm_jax.core.manifest import Manifest, fingerprint
from seallm_jax.core.paths import RunDirectory, read_json, write_json
from seallm_jax.core.progress import Progress
from seallm_jax.core.schema import RunConfig

UNFINISHED = "unfinished.json"  # fingerprint of the stage that is being computed in a directory


@dataclasses.dataclass(frozen=True)
class Context:
    """What every stage is given.

    Attributes:
      config: the resolved configuration.
      directory: the run directory.
      progress: where long steps report.
      command: the arguments that reproduce this run.
      distributed: whether several processes run the same stage; then the first of them writes.
      profile_steps: the first and the last training step to trace.
    """

    config: RunConfig
    directory: RunDirectory
    progress: Progress
    command: str
    distributed: bool = False
    profile_steps: tuple[int, int] | None = None

    @property
    def writes(self) -> bool:
        """Whether this process writes manifests and moves directories."""
        if not self.distributed:
            return True
        import jax

        return jax.process_index() == 0

    def synchronize(self, name: str) -> None:
        """Waits until all processes are here."""
        if self.distributed:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(name)

    def first_alone(self, name: str, work: Callable[[], None]) -> None:
        """Does `work` on the process that writes. The others wait for it, as long as it takes."""
        if self.writes:
            work()
        if self.distributed:
            from seallm_jax.training.distributed import wait_for_all

            wait_for_all(name)

    def manifest(self, stage: str) -> Manifest:
        """Manifest of a finished stage. Raises SeallmError when it has not finished."""
        manifest = Manifest.read(self.directory.stage(stage))
        if manifest is None:
            raise SeallmError(
                f"stage {stage!r} has not finished in {self.directory.root}; "
                f"run it first: seallm run {self.command} --stages={stage}"
            )
        return manifest

    @property
    def languages(self) -> Languages:
        """The run's languages, as the corpus stage found them."""
        return Languages(tuple(self.manifest("corpus").outcome["languages"]))


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
      name: name in `--stages` and of the manifest.
      inputs: digests of what the stage reads; a change makes it run again.
      section: the part of the config that determines the result.
      compute: does the work in the stage's directory and returns the outcome for the manifest.
      present: whether the config asks for this stage at all.
    """

    name: str
    inputs: Callable[[Context], dict[str, str]]
    section: Callable[[RunConfig], dict[str, Any]]
    compute: Callable[[Context, pathlib.Path], dict[str, Any]]
    present: Callable[[RunConfig], bool] = lambda config: True


def execute(stage: Stage, context: Context) -> Manifest:
    """Runs a stage unless its manifest still matches; returns the manifest.

    An interrupted stage continues in its directory. When config or inputs have changed since, the old directory is set
    aside, never deleted.
    """
    directory = context.directory.stage(stage.name)
    inputs = stage.inputs(context)
    section = stage.section(context.config)
    digest = fingerprint(stage.name, inputs, section, context.config.seed)
    finished = Manifest.read(directory)
    context.synchronize(f"{stage.name}: manifest read")
    if finished is not None and finished.digest == digest:
        context.progress.say(f"[dim]{stage.name}: up to date[/dim]")
        return finished
    if context.writes:
        _begin(context, directory, finished, digest)
    context.synchronize(f"{stage.name}: directory ready")
    context.progress.say(f"[bold]{stage.name}[/bold]")
    start = time.monotonic()
    outcome = stage.compute(context, directory)
    manifest = Manifest(stage.name, inputs, section, context.config.seed, outcome, time.monotonic() - start)
    context.synchronize(f"{stage.name}: computed")
    if context.writes:
        manifest.write(directory)
        (directory / UNFINISHED).unlink(missing_ok=True)
    context.synchronize(f"{stage.name}: manifest written")
    return manifest


def _begin(context: Context, directory: pathlib.Path, finished: Manifest | None, digest: str) -> None:
    """Sets aside what another config or other inputs have made, and notes what is being computed."""
    if finished is not None:
        _set_aside(directory, finished.digest, context.progress)
    elif (directory / UNFINISHED).exists():
        earlier = read_json(directory / UNFINISHED)["digest"]
        if earlier != digest:
            _set_aside(directory, earlier, context.progress)
    write_json(directory / UNFINISHED, {"digest": digest})
    write_json(context.directory.root / "config.json", to_dict(context.config) | {"command": context.command})


def _set_aside(directory: pathlib.Path, digest: str, progress: Progress) -> None:
    number = 0
    while (
        target := directory.with_name(f"{directory.name}.old-{digest[:8]}{f'-{number}' if number else ''}")
    ).exists():
        number += 1
    try:
        os.replace(directory, target)
    except OSError as error:
        raise SeallmError(f"cannot move {directory} aside: {error.strerror}") from error
    progress.say(f"{directory.name}: config or inputs have changed; the earlier result is now {target}")
