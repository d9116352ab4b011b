"""`manifest.json` of a stage: what went in, what came out, and whether it still holds."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import pathlib
import platform
import time
from typing import Any

import seallm_jax
from seallm_jax.core.paths import read_json, value_digest, write_json

RECORDED_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "sentencepiece", "tokenizers", "transformers")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Record of one finished stage.

    Attributes:
      stage: the stage's name.
      inputs: name -> digest of everything the stage read.
      config: the part of the resolved configuration that the stage depends on.
      seed: the run's seed.
      outcome: what the stage found, JSON-like; shown in the report and read by later stages.
      versions: package -> version that was installed.
      seconds: wall time.
    """

    stage: str
    inputs: dict[str, str]
    config: dict[str, Any]
    seed: int
    outcome: dict[str, Any]
    seconds: float = 0.0
    versions: dict[str, str] = dataclasses.field(default_factory=lambda: installed_versions())
    finished: str = dataclasses.field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    @property
    def digest(self) -> str:
        """Digest of what determines the stage's result; later stages use it as their input digest."""
        return fingerprint(self.stage, self.inputs, self.config, self.seed)

    def write(self, directory: pathlib.Path) -> None:
        """Writes `manifest.json`, last, so that its presence means that the stage finished."""
        write_json(directory / "manifest.json", dataclasses.asdict(self) | {"digest": self.digest})

    @classmethod
    def read(cls, directory: pathlib.Path) -> Manifest | None:
        """The manifest in `directory`, or None when the stage has not finished there."""
        path = directory / "manifest.json"
        if not path.exists():
            return None
        fields = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in read_json(path).items() if key in fields})


def fingerprint(stage: str, inputs: dict[str, str], config: dict[str, Any], seed: int) -> str:
    """Digest of what determines a stage's result."""
    return value_digest({"stage": stage, "inputs": inputs, "config": config, "seed": seed})


def installed_versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that can change a result."""
    versions = {"python": platform.python_version(), "seallm_jax": seallm_jax.__version__}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
