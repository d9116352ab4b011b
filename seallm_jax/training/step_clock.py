"""How fast a run is, how well it uses its devices, and how much of its time was not lost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from seallm_jax.core.peak_flops import peak_flops


class StepClock:
    """Takes the time of every step; all figures are of the steps since the last line.

    A step's time is that between the arrival of its numbers and of those of the step before: the device's time where
    the device is the slower one. The first step of a process, which compiles, is no part of any figure but `seconds`.
    Goodput is the time of the steps that the present state comes from, divided by all time since the run was first
    started: what compiling, checkpoints, interruptions, lost steps and rollbacks took is missing in it.
    """

    def __init__(
        self, *, flops: Mapping[str, float], devices: int, device: Any = None, restored: Mapping[str, Any] | None = None
    ):
        """
        Args:
          flops: name -> operations of a row by one way of counting them (full, causal).
          devices: how many there are.
          device: one of this process, asked for its kind and memory.
          restored: `state` of the step that the run continues from.
        """
        restored = restored or {}
        self._flops = dict(flops)
        self._devices = devices
        self._device = device
        self._seconds_before = float(restored.get("seconds", 0.0))
        self._productive = float(restored.get("productive", 0.0))
        self._started = float(restored.get("started", time.time()))
        self._start = self._last = time.monotonic()
        self._first = True
        self._durations: list[float] = []
        self._tokens = self._rows = 0
        self._rate = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Rate since the last line, or up to it."""
        return self._tokens / sum(self._durations) if self._durations else self._rate

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those of earlier processes included."""
        return self._seconds_before + time.monotonic() - self._start

    def tick(self, tokens: int, rows: int) -> None:
        """A step of so many tokens in so many rows is done."""
        now = time.monotonic()
        if not self._first:
            self._durations.append(now - self._last)
            self._productive += now - self._last
            self._tokens += tokens
            self._rows += rows
        self._first = False
        self._last = now

    def resume(self) -> None:
        """What was done since the last step was no step."""
        self._last = time.monotonic()

    def roll_back(self, restored: Mapping[str, Any]) -> None:
        """The steps since a state was saved count no more."""
        self._productive = float(restored.get("productive", 0.0))
        self.resume()

    def figures(self) -> dict[str, Any]:
        """The figures for a line, after which new ones begin."""
        if self._durations:
            self._rate = self.tokens_per_second
        rate, steps = self._rate, len(self._durations)
        rows_per_second = self._rows / sum(self._durations) if steps else 0.0
        achieved = {name: flops * rows_per_second / self._devices for name, flops in self._flops.items()}
        peak = peak_flops(self._device.device_kind) if self._device is not None else None
        result = {
            "tokens_per_second": rate,
            "tokens_per_second_per_device": rate / self._devices,
            "step_seconds": {f"p{q}": float(np.percentile(self._durations, q)) for q in (50, 95) if self._durations},
            "tflops_per_device": {name: value / 1e12 for name, value in achieved.items() if steps},
            "mfu": {name: value / peak for name, value in achieved.items() if peak and steps},
            "memory": _memory(self._device),
            "goodput": self._productive / max(time.time() - self._started, 1e-9),
            "seconds": self.seconds,
        }
        self._durations, self._tokens, self._rows = [], 0, 0
        return result

    def state(self) -> dict[str, float]:
        """What a resumed run needs to go on counting."""
        return {"seconds": self.seconds, "productive": self._productive, "started": self._started}


def _memory(device: jax.Device | None) -> dict[str, int]:
    """Bytes in use at most so far, and those that there are; nothing where the device does not tell."""
    found = (device.memory_stats() if device is not None else None) or {}
    return {name: found[key] for name, key in (("peak", "peak_bytes_in_use"), ("limit", "bytes_limit")) if key in found}
