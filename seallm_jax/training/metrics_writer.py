"""Where a run's numbers go: metrics.jsonl, TensorBoard events and, if asked for, Weights & Biases."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from seallm_jax.core.errors import SeallmError
from seallm_jax.core.paths import atomic_file, value_digest

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIRECTORY = "tensorboard"
# parts of a line that are charts of their own, and their names; its numbers are in one called train
_CHARTS = {
    "loss_by_language": "loss",
    "bits_per_byte_by_language": "bits_per_byte",
    "gradient_norms": "gradient_norm",
    "served": "served",
    "metrics": "metrics",
    "step_seconds": "step_seconds",
    "tflops_per_device": "tflops_per_device",
    "mfu": "mfu",
    "memory": "memory",
}
_POSITIONS = ("step", "rows", "tokens", "seconds")  # numbers that only tell where a line belongs


class MetricsWriter:
    """Writes lines, with no step twice after a restart."""

    def __init__(self, directory: pathlib.Path, *, restored_step: int = 0, name: str = "", wandb: str = ""):
        """Opens the files and drops what an earlier run wrote after `restored_step`.

        Args:
          directory: where the files go.
          restored_step: the step that the run continues from.
          name: the run's name at Weights & Biases.
          wandb: project there; empty sends nothing.

        Raises:
          SeallmError: wandb is not installed.
        """
        path = directory / METRICS_FILE
        _drop_lines_after(path, restored_step)
        self._wandb = _start_wandb(wandb, name, directory) if wandb else None
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115, closed in close()
        from tensorboardX import SummaryWriter  # imports protobuf, a second

        self._tensorboard = SummaryWriter(str(directory / TENSORBOARD_DIRECTORY), purge_step=restored_step + 1)

    def write(self, line: Mapping[str, Any]) -> None:
        """Writes one line, which is JSON-like and has a `step`."""
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        numbers = dict(_numbers(line))
        for name, value in numbers.items():
            self._tensorboard.add_scalar(name, value, line["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=line["step"])

    def close(self) -> None:
        """Flushes and closes. On a full disk, TensorBoard's last points are left out; the lines have them."""
        events = self._tensorboard.file_writer.event_writer
        try:
            self._tensorboard.close()
        except OSError:
            events._worker.stop()
            events._closed = True  # else it tries again when Python ends
        if self._wandb is not None:
            self._wandb.finish()
        self._file.close()


def _numbers(line: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(chart/name, number) of a line; what is null is left out."""
    for key, value in line.items():
        if key in _CHARTS:
            yield from ((f"{_CHARTS[key]}/{name}", number) for name, number in value.items() if number is not None)
        elif isinstance(value, int | float) and key not in _POSITIONS:
            yield f"train/{key}", value


def _start_wandb(project: str, name: str, directory: pathlib.Path) -> Any:
    try:
        import wandb
    except ImportError:
        raise SeallmError(
            "config.<stage>.wandb needs the package wandb; install it with: pip install 'seallm_jax[wandb]'"
        ) from None
    # a resumed run goes on with the same curves
    identity = value_digest(str(directory.absolute()))[:16]
    return wandb.init(project=project, name=name, dir=str(directory), id=identity, resume="allow")


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Keeps the lines up to `step`. A kill can leave half a line at the end, which goes, too."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
