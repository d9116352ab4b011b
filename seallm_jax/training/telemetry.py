"""What a run writes down about itself: sums over steps, and lines made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from seallm_jax.core.languages import Languages
from seallm_jax.training.metrics_writer import MetricsWriter
from seallm_jax.training.step import StepMetrics
from seallm_jax.training.step_clock import StepClock


class Telemetry:
    """Collects what each step measured and writes a line every `log_every` steps.

    Losses and objective metrics of a line are means over the steps since the line before, weighted by their counts, so
    that a language that is in few batches still shows. Sums that are not written yet travel with the checkpoint
    (`state`), so a resumed run writes the same lines as an uninterrupted one.

    A line holds step, rows and tokens consumed so far, loss; loss_by_language, counts_by_language and, where the
    objective tells, bits_per_byte_by_language by language code; learning_rate and gradient_norm of that step,
    gradient_norms by group of parameters, skipped_updates, rollbacks, metrics of the objective, the share of the rows
    that each source has served so far, and the figures of `StepClock`. What is not finite is null.
    """

    def __init__(
        self,
        languages: Languages,
        *,
        log_every: int,
        clock: StepClock,
        writer: MetricsWriter | None = None,
        served: Callable[[int], Mapping[str, int]] = lambda rows: {},
        restored: Mapping[str, Any] | None = None,
    ):
        """
        Args:
          languages: the run's languages, for names.
          log_every: steps between lines.
          clock: tells the speed.
          writer: where lines go; None on all processes but one, which count and write nothing.
          served: rows consumed -> how many of them each source has served.
          restored: `state` of the step that the run continues from.
        """
        restored = restored or {}
        self._languages = languages
        self._log_every = log_every
        self._clock = clock
        self._writer = writer
        self._served = served
        self._sums = _Sums.from_json(restored.get("sums", {}))
        self._tokens = int(restored.get("tokens", 0))
        self._rollbacks = int(restored.get("rollbacks", 0))

    @property
    def tokens(self) -> int:
        """Tokens consumed so far, padding not counted."""
        return self._tokens

    @property
    def tokens_per_second(self) -> float:
        """Rate since the last line was written, or up to it; compilation in a run's first step is not part of it."""
        return self._clock.tokens_per_second

    def record(
        self, values: StepMetrics, *, step: int, rows: int, batch_rows: int, final: bool = False
    ) -> dict[str, Any] | None:
        """Takes what one step measured; returns the line when one was due, else None.

        Args:
          values: on the host.
          step: number of steps done, this one included.
          rows: rows consumed so far.
          batch_rows: rows of this step.
          final: write a line now.
        """
        sums = values.sums
        self._tokens += int(values.tokens)
        self._clock.tick(int(values.tokens), batch_rows)
        self._sums.add("loss", (sums.loss, sums.count))
        by_language = sums.by_language
        for index, code in enumerate(self._languages.codes):
            loss, count = by_language["loss"][index], by_language["count"][index]
            self._sums.add(f"language/{code}", (loss, count))
            if "bytes" in by_language:
                self._sums.add(f"bits/{code}", (loss / math.log(2), by_language["bytes"][index]))
        for name, pair in sums.metrics.items():
            self._sums.add(f"metric/{name}", pair)
        if not final and step % self._log_every:
            return None
        line = self._line(values, step, rows)
        if self._writer is not None:
            self._writer.write(line)
        self._sums = _Sums()
        return line

    def roll_back(self, restored: Mapping[str, Any]) -> None:
        """The run has gone back to a state whose `state` this is. Lines and tokens since then stay as they are."""
        self._rollbacks += 1
        self._clock.roll_back(restored)

    def resume_clock(self) -> None:
        """What was done since the last step, such as writing a checkpoint, was no step."""
        self._clock.resume()

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on counting; JSON-like."""
        counted = {"tokens": self._tokens, "rollbacks": self._rollbacks, "sums": self._sums.to_json()}
        return counted | self._clock.state()

    def close(self) -> None:
        """Flushes and closes the files."""
        if self._writer is not None:
            self._writer.close()

    def _line(self, values: StepMetrics, step: int, rows: int) -> dict[str, Any]:
        bits = self._sums.means("bits/")
        return {
            "step": step,
            "rows": rows,
            "tokens": self._tokens,
            "loss": self._sums.mean("loss"),
            "loss_by_language": self._sums.means("language/"),
            "counts_by_language": self._sums.counts("language/"),
            **({"bits_per_byte_by_language": bits} if bits else {}),
            "learning_rate": float(values.learning_rate),
            "gradient_norm": _finite(values.gradient_norm),
            "gradient_norms": {group: _finite(norm) for group, norm in values.group_norms.items()},
            "skipped_updates": int(values.skipped),
            "rollbacks": self._rollbacks,
            "metrics": self._sums.means("metric/"),
            "served": {name: count / max(rows, 1) for name, count in self._served(rows).items()},
            **self._clock.figures(),
        }


class _Sums:
    """Sums and counts by name."""

    def __init__(self, pairs: dict[str, tuple[float, float]] | None = None):
        self._pairs = pairs or {}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Sums:
        return cls({name: (float(total), float(count)) for name, (total, count) in value.items()})

    def to_json(self) -> dict[str, tuple[float, float]]:
        return dict(self._pairs)

    def add(self, name: str, pair: tuple[Any, Any]) -> None:
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


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
