"""Looks for the fastest way to train on a slice, with few compilations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

from seallm_jax.core.errors import SeallmError
from seallm_jax.planning.candidate import Candidate
from seallm_jax.planning.plan import Plan
from seallm_jax.planning.rough_cost import RoughCost

FAILURE = 0.25  # of a compilation: the compiler finds out early what does not fit
WORTHWHILE = 1.03  # a guess at so many times the best time is not worth compiling
FOR_OWN_ROWS = 2 / 3  # of the compilations; the others are for larger batches
ALIKE = 6.0  # weight of a setting that two candidates share, when one's error tells about the other


@dataclasses.dataclass(frozen=True)
class Trial:
    """A candidate that was compiled.

    Attributes:
      candidate: what.
      plan: what came of it; None where it was refused.
      refused: why it cannot be built, as a mesh that the slice has no links for.
    """

    candidate: Candidate
    plan: Plan | None
    refused: str = ""

    @property
    def fits(self) -> bool:
        """Whether it runs."""
        return self.plan is not None and self.plan.fits


class Search:
    """Candidates in the order in which they are worth compiling, by rules of thumb that each result corrects.

    Left out are those that cannot fit whatever the compiler does, those that ask for more than one that did not fit
    (same mesh, as many rows, as much kept), and those that the corrected guess puts behind the best.
    """

    def __init__(self, candidates: Iterable[Candidate], cost: RoughCost, capacity: int):
        """
        Args:
          candidates: all legal ones.
          cost: rules of thumb.
          capacity: bytes of a device.
        """
        self._cost, self._capacity = cost, capacity
        everything = list(candidates)
        self.considered = len(everything)
        self._open = [candidate for candidate in everything if cost.least_bytes(candidate) <= capacity]
        self.too_large = self.considered - len(self._open)
        self.trials: list[Trial] = []

    def run(self, attempt: Callable[[Candidate], Plan], compilations: int) -> None:
        """Compiles what is worth it, after the config as it is, which has been added. Results are in `trials`.

        Args:
          attempt: compiles a candidate. Its SeallmError is noted, and the search goes on.
          compilations: at most, the first included; those that do not fit count less.
        """
        for larger, budget in ((False, math.ceil(FOR_OWN_ROWS * compilations)), (True, compilations)):
            while self._spent() + 1 <= budget and (candidate := self.next(larger=larger)) is not None:
                self.attempt(candidate, attempt)

    def _spent(self) -> float:
        return sum(1 if trial.fits else FAILURE for trial in self.trials)

    def attempt(self, candidate: Candidate, attempt: Callable[[Candidate], Plan]) -> Trial:
        """Compiles one candidate and notes the result."""
        try:
            trial = Trial(candidate, attempt(candidate))
        except SeallmError as error:
            trial = Trial(candidate, None, str(error))
        self.add(trial)
        return trial

    def add(self, trial: Trial) -> None:
        """Notes a result."""
        self.trials.append(trial)
        self._open = [candidate for candidate in self._open if candidate != trial.candidate]
        if not trial.fits:
            self._open = [candidate for candidate in self._open if not self._asks_for_more(candidate, trial)]

    def next(self, *, larger: bool = False) -> Candidate | None:
        """What to compile next; None when nothing is worth it.

        Args:
          larger: whether to look at steps of more rows than the first trial's, or of exactly those.
        """
        rows = self.trials[0].candidate.batch_rows
        found = [candidate for candidate in self._open if (candidate.batch_rows > rows) == larger]
        fitting = [candidate for candidate in found if self.bytes(candidate) <= self._capacity]
        if fitting:
            candidate = min(fitting, key=lambda c: (self.seconds_per_row(c), self.bytes(c)))
            best = min((self._measured(t) for t in self.trials if t.fits), default=math.inf)
            return candidate if self.seconds_per_row(candidate) <= WORTHWHILE * best else None
        if found and not any(trial.fits for trial in self.trials):
            return min(found, key=self.bytes)
        return None

    def remedy(self) -> Candidate | None:
        """Of those that the corrected guess says fit, one that changes the fewest settings of the first trial."""
        first = self.trials[0].candidate
        fitting = [
            candidate
            for candidate in self._open
            if candidate.batch_rows == first.batch_rows and self.bytes(candidate) <= self._capacity
        ]
        return min(fitting, key=lambda c: (_changes(first, c), self.seconds_per_row(c)), default=None)

    def best(self, rows: int | None = None) -> Trial | None:
        """The fastest that fits, among all or among steps of so many rows; None when none fits."""
        fitting = [t for t in self.trials if t.fits and rows in (None, t.candidate.batch_rows)]
        return min(fitting, key=self._measured, default=None)

    def bytes(self, candidate: Candidate) -> float:
        """The guess at its peak, as corrected by what was compiled; parameters and optimizer state are known."""
        sizes = [
            (trial.candidate, (trial.plan.peak_bytes if trial.plan.fits else trial.plan.needed_bytes) or 0)
            for trial in self.trials
            if trial.plan is not None
        ]
        state = self._cost.state_bytes
        known = [(other, max(size - state(other.mesh), 1.0)) for other, size in sizes if size]
        return state(candidate.mesh) + self._corrected(candidate, self._beside_state, known)

    def seconds_per_row(self, candidate: Candidate) -> float:
        """The guess at its time for a row, as corrected by what was compiled."""
        times = [(t.candidate, self._measured(t) * t.candidate.batch_rows) for t in self.trials if _is_timed(t)]
        return self._corrected(candidate, self._cost.seconds, times) / candidate.batch_rows

    def fits_on(self, cost: RoughCost, capacity: int, candidate: Candidate) -> bool:
        """Whether a candidate of another slice should fit there, by its rule and the error of the first trial."""
        first = self.trials[0].candidate
        error = (self.bytes(first) - self._cost.state_bytes(first.mesh)) / self._beside_state(first)
        state = cost.state_bytes(candidate.mesh)
        return state + error * (cost.bytes(candidate) - state) <= capacity

    def _beside_state(self, candidate: Candidate) -> float:
        return self._cost.bytes(candidate) - self._cost.state_bytes(candidate.mesh)

    def _measured(self, trial: Trial) -> float:
        """Seconds a row: predicted from the program, or else guessed."""
        if trial.plan is None or trial.plan.time is None:
            return self.seconds_per_row(trial.candidate)
        return trial.plan.time.seconds / trial.plan.batch_rows

    @staticmethod
    def _corrected(
        candidate: Candidate, rule: Callable[[Candidate], float], known: list[tuple[Candidate, float]]
    ) -> float:
        """A guess times the mean error of the rule, which counts more where candidates are alike."""
        weights = [ALIKE ** _shared(candidate, other) for other, _ in known]
        errors = [math.log(value / rule(other)) for other, value in known]
        mean = sum(w * e for w, e in zip(weights, errors, strict=True)) / sum(weights) if known else 0.0
        return rule(candidate) * math.exp(mean)

    def _asks_for_more(self, candidate: Candidate, trial: Trial) -> bool:
        failed = trial.candidate
        if candidate.mesh != failed.mesh:
            return False
        if trial.plan is None:
            return True
        return candidate.rows_on_a_device >= failed.rows_on_a_device and self._cost.keeps_as_much(
            candidate.remat, failed.remat
        )


def _is_timed(trial: Trial) -> bool:
    return trial.plan is not None and trial.plan.time is not None


def _changes(one: Candidate, other: Candidate) -> int:
    return (one.mesh != other.mesh) + (one.remat != other.remat) + (one.accumulation != other.accumulation)


def _shared(one: Candidate, other: Candidate) -> int:
    return (one.mesh == other.mesh) + (one.remat == other.remat) + (one.rows_on_a_device == other.rows_on_a_device)
