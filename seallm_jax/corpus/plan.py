"""The plan of a corpus run: its input files, and which task reads which of them."""

from __future__ import annotations

import dataclasses
import heapq
import pathlib
import shutil

from seallm_jax.core.corpus_config import CorpusConfig
from seallm_jax.core.paths import file_digest, read_json, value_digest, write_json
from seallm_jax.corpus.input_file import InputFile

OUTPUT = "output"  # in the working directory; moved into place when all is done
BY_TASK = ("datatrove", "errors", "write", "supplement", OUTPUT)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What every phase has to know.

    A file is a unit: it is read by one task, and what the phases leave in the working directory they leave by file.
    Therefore the division into tasks has no influence on the result.

    Attributes:
      work: working directory, on a file system that all machines share.
      files: the inputs, in corpus order.
      config: the section of the run's configuration.
      seed: the run's seed.
      tasks: number of tasks.
      evaluation: files of the evaluation, which no document may repeat.
    """

    work: pathlib.Path
    files: tuple[InputFile, ...]
    config: CorpusConfig
    seed: int
    tasks: int
    evaluation: tuple[str, ...] = ()

    def unit(self, phase: str, number: int, suffix: str) -> pathlib.Path:
        """The file that a phase writes about input file `number`."""
        return self.work / phase / f"{number:07d}{suffix}"

    def units(self, phase: str, suffix: str) -> list[pathlib.Path]:
        """The files of a phase about all inputs, in corpus order."""
        return [self.unit(phase, number, suffix) for number in range(len(self.files))]

    def files_of(self, task: int) -> list[int]:
        """Numbers of the files that a task reads: the largest first to whoever has least, then in corpus order."""
        loads = [(0, task) for task in range(self.tasks)]
        mine = []
        for number in sorted(range(len(self.files)), key=lambda number: (-self.files[number].size, number)):
            load, owner = heapq.heappop(loads)
            heapq.heappush(loads, (load + max(1, self.files[number].size), owner))
            if owner == task:
                mine.append(number)
        return sorted(mine)

    @property
    def digest(self) -> str:
        """Changes with everything that makes the working files of an earlier run useless; not with the tasks."""
        config = dataclasses.asdict(self.config)
        del config["execution"]
        files = [dataclasses.asdict(file) for file in self.files]
        evaluation = [(path, file_digest(path)) for path in self.evaluation]
        return value_digest({"files": files, "config": config, "seed": self.seed, "evaluation": evaluation})

    def prepare(self) -> None:
        """Makes the working directory, and removes from it what another plan has left there."""
        path = self.work / "plan.json"
        saved = read_json(path) if path.exists() else {}
        now = {"digest": self.digest, "tasks": self.tasks}
        if saved.get("digest") != now["digest"]:
            shutil.rmtree(self.work, ignore_errors=True)
        elif saved["tasks"] != self.tasks:  # what is kept by input file stays, what is kept by task goes
            for name in BY_TASK:
                shutil.rmtree(self.work / name, ignore_errors=True)
        write_json(path, now)
