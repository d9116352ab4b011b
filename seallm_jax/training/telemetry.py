"""What a run writes down about itself: metrics.jsonl and TensorBoard events, with no step twice after a restart."""

from __future__ import annotations

import json
import math
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from seallm_jax.core.languages import Languages
from seallm_jax.core.paths import atomic_file

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_DIRECTORY = "tensorboard"


class Telemetry:
    """Collects what each step measured and writes a line every `log_every` steps.

    Losses and objective metrics of a line are means over the steps since the line before, weighted by their counts, so
    that a language that is in few batches still shows. Sums that are not written yet travel with the checkpoint
    (`state`), so a resumed run writes the same lines as an uninterrupted one.

    A line holds step, rows and tokens consumed so far, loss, loss_by_language and counts_by_language by language code,
    learning_rate, gradient_norm of that step, tokens_per_second, skipped_updates, metrics of the objective, and seconds
    of training so far. What is not finite is null.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        languages: Languages,
        *,
        log_every: int,
        restored_step: int = 0,
        restored: Mapping[str, Any] | None = None,
        enabled: bool = True,
    ):
        """Opens the files and drops what an earlier run wrote after `restored_step`.

        Args:
          directory: where the files go.
          languages: the run's languages, for names.
          log_every: steps between lines.
          restored_step: the step that the run continues from.
          restored: `state` of that step.
          enabled: False on all processes but one; they count and write nothing.
        """
        self._languages = languages
        self._log_every = log_every
        self._path = directory / METRICS_FILE
        self._tensorboard = None
        self._sums = _Sums.from_json((restored or {}).get("sums", {}))
        self._tokens = int((restored or {}).get("tokens", 0))
        self._seconds_before = float((restored or {}).get("seconds", 0.0))
        self._start = self._rate_start = time.monotonic()
        self._rate_tokens = 0
        self._last_rate = 0.0
        self._first = True
        self._file = None
        if not enabled:
            return
        _drop_lines_after(self._path, restored_step)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115, closed in close()
        from tensorboardX import SummaryWriter  # imports protobuf, a second

        self._tensorboard = SummaryWriter(str(directory / TENSORBOARD_DIRECTORY), purge_step=restored_step + 1)

    @property
    def tokens(self) -> int:
        """Tokens consumed so far, padding not counted."""
        return self._tokens

    @property
    def tokens_per_second(self) -> float:
        """Rate since the last line was written, or up to it; compilation in a run's first step is not part of it."""
        if not self._rate_tokens:
            return self._last_rate
        return self._rate_tokens / max(time.monotonic() - self._rate_start, 1e-9)

    def record(
        self,
        *,
        step: int,
        rows: int,
        tokens: int,
        loss: tuple[float, float],
        languages: tuple[Sequence[float], Sequence[float]],
        metrics: Mapping[str, tuple[float, float]],
        learning_rate: float,
        gradient_norm: float,
        skipped_updates: int,
        final: bool = False,
    ) -> dict[str, Any] | None:
        """Takes one step's sums and counts; returns the line when one was due, else None.

        Args:
          step: number of steps done, this one included.
          rows: rows consumed so far.
          tokens: tokens of this step, padding not counted.
          loss: sum and count.
          languages: sums and counts by language id.
          metrics: objective metrics, sum and count by name.
          learning_rate: rate of this step.
          gradient_norm: norm before clipping.
          skipped_updates: updates left out so far because something was not finite.
          final: write a line now.
        """
        self._tokens += tokens
        self._rate_tokens += tokens
        self._sums.add("loss", loss)
        for index, pair in enumerate(zip(*languages, strict=True)):
            self._sums.add(f"language/{self._languages.codes[index]}", pair)
        for name, pair in metrics.items():
            self._sums.add(f"metric/{name}", pair)
        line = None
        if final or step % self._log_every == 0:
            line = self._line(step, rows, learning_rate, gradient_norm, skipped_updates)
            self._write(line)
            self._sums = _Sums()
        if self._first or line:
            self._last_rate = 0.0 if self._first else self.tokens_per_second
            self._rate_start, self._rate_tokens, self._first = time.monotonic(), 0, False
        return line

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on counting; JSON-like."""
        return {"tokens": self._tokens, "seconds": self._seconds(), "sums": self._sums.to_json()}

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _line(self, step: int, rows: int, rate: float, norm: float, skipped: int) -> dict[str, Any]:
        return {
            "step": step,
            "rows": rows,
            "tokens": self._tokens,
            "loss": self._sums.mean("loss"),
            "loss_by_language": self._sums.means("language/"),
            "counts_by_language": self._sums.counts("language/"),
            "learning_rate": rate,
            "gradient_norm": _finite(norm),
            "tokens_per_second": self.tokens_per_second,
            "skipped_updates": skipped,
            "metrics": self._sums.means("metric/"),
            "seconds": self._seconds(),
        }

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is None or self._tensorboard is None:
            return
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "skipped_updates"):
            if line[name] is not None:
                self._tensorboard.add_scalar(f"train/{name}", line[name], line["step"])
        for prefix, key in (("loss", "loss_by_language"), ("metrics", "metrics")):
            for name, value in line[key].items():
                if value is not None:
                    self._tensorboard.add_scalar(f"{prefix}/{name}", value, line["step"])

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._start


class _Sums:
    """Sums and counts by name."""

    def __init__(self, pairs: dict[str, tuple[float, float]] | None = None):
        self._pairs = pairs or {}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Sums:
        return cls({name: (float(total), float(count)) for name, (total, count) in value.items()})

    def to_json(self) -> dict[str, tuple[float, float]]:
        return dict(self._pairs)

    def add(self, name: str, pair: tuple[float, float]) -> None:
        if math.isfinite(pair[0]):  # the update was skipped otherwise, which `skipped_updates` shows
            total, count = self._pairs.get(name, (0.0, 0.0))
            self._pairs[name] = (total + float(pair[0]), count + float(pair[1]))

    def mean(self, name: str) -> float | None:
        total, count = self._pairs.get(name, (0.0, 0.0))
        return _finite(total / count) if count else None

    def means(self, prefix: str) -> dict[str, float | None]:
        named = ((name, count) for name, (_, count) in self._pairs.items() if name.startswith(prefix))
        return {name.removeprefix(prefix): self.mean(name) for name, count in named if count}

    def counts(self, prefix: str) -> dict[str, float]:
        named = ((name, count) for name, (_, count) in self._pairs.items() if name.startswith(prefix))
        return {name.removeprefix(prefix): count for name, count in named if count}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


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
