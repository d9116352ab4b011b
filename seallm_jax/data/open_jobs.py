"""Jobs of the chairman assignment whose window is broken by a time without weight: in which part each is done."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np

from seallm_jax.data.schedule import WeightSchedule


@dataclasses.dataclass(frozen=True)
class OpenJob:
    """A job that is open when its source leaves the mixture.

    Attributes:
      source: index of the source.
      job: number of the job; done means that job + 1 rows of the source were served.
      windows: (release, deadline) in rows, one per visit of the source to the mixture; the last is (N, N), never, when
        the source does not come back before the end.
    """

    source: int
    job: int
    windows: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why the deadline rule could not fill the rows.

    Attributes:
      first: first row of a span in which too many jobs must be done, or -1 when a row had no job to take.
      last: last row of that span, or the row that had no job.
    """

    first: int
    last: int


class OpenJobs:
    """Chooses a window for each open job.

    The first choice rounds, so that the absent sources are together owed, or were served in advance, about half a row
    at most. When the deadline rule fails for a choice, `exclude` adds the inequality that every good choice fulfils and
    the present one does not (Hall's condition for the failing span) and takes the nearest choice that fulfils all so
    far. A good choice always exists: the weights are a fractional assignment, and bipartite polytopes are integral.
    """

    def __init__(self, schedule: WeightSchedule):
        self._rows = schedule.rows
        self.jobs = _open_jobs(schedule)
        self.choice = _round(schedule, self.jobs)
        self._cuts: list[tuple[np.ndarray, int]] = []  # (coefficients over all windows, at most this)

    def chosen(self) -> dict[int, list[tuple[int, int, int]]]:
        """source -> (job, release, deadline) of each of its open jobs."""
        windows: dict[int, list[tuple[int, int, int]]] = {}
        for job, choice in zip(self.jobs, self.choice, strict=True):
            windows.setdefault(job.source, []).append((job.job, *job.windows[choice]))
        return windows

    def exclude(self, failure: Failure) -> None:
        """Changes the choice to the nearest one that the failure, and all failures before it, do not rule out."""
        from scipy.optimize import LinearConstraint, milp

        windows = np.array([window for job in self.jobs for window in job.windows], np.int64)
        owner = np.array([index for index, job in enumerate(self.jobs) for _ in job.windows])
        picked = np.zeros(len(owner), bool)
        picked[np.searchsorted(owner, np.arange(len(self.jobs))) + np.array(self.choice)] = True
        if failure.first < 0:  # more jobs must be released by that row
            coefficients = -(windows[:, 0] <= failure.last).astype(int)
        else:  # fewer jobs may lie within the span
            inside = (windows[:, 0] >= failure.first) & (windows[:, 1] <= failure.last) & (windows[:, 0] < self._rows)
            coefficients = inside.astype(int)
        self._cuts.append((coefficients, int(coefficients[picked].sum()) - 1))
        result = milp(
            c=np.where(picked, -1.0, 0.0),
            integrality=np.ones(len(owner)),
            bounds=(0, 1),
            constraints=[
                LinearConstraint((owner == np.arange(len(self.jobs))[:, None]).astype(float), 1, 1),
                LinearConstraint(
                    np.array([c for c, _ in self._cuts], float), -np.inf, [limit for _, limit in self._cuts]
                ),
            ],
        )
        if result.x is None:
            raise AssertionError("no choice is left, which the integrality of bipartite polytopes forbids")
        taken = np.flatnonzero(result.x > 0.5)
        self.choice = (taken - np.searchsorted(owner, np.arange(len(self.jobs)))).tolist()


def _open_jobs(schedule: WeightSchedule) -> list[OpenJob]:
    """All open jobs, in order of the row at which their source first leaves."""
    absences: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for source, left, back in sorted(schedule.absences(), key=lambda absence: absence[1]):
        job = int(schedule.quota(source, left)) // schedule.scale
        absences.setdefault((source, job), []).append((left, back))
    jobs = []
    for (source, job), gaps in absences.items():
        ends = np.array([job * schedule.scale + 1, (job + 1) * schedule.scale])
        release, deadline = (int(row) for row in schedule.row_reaching(source, ends))
        releases = [release, *(back for _, back in gaps)]
        deadlines = [*(left - 1 for left, _ in gaps), deadline]
        jobs.append(OpenJob(source, job, tuple(zip(releases, deadlines, strict=True))))
    return jobs


def _round(schedule: WeightSchedule, jobs: list[OpenJob]) -> list[int]:
    """Index of the window chosen for each job: systematic rounding of what is owed, at each row where sources leave."""
    choice = [len(job.windows) - 1 for job in jobs]
    done: set[int] = set()
    absent: list[tuple[int, Fraction]] = []  # (row of return, rows served less rows owed)
    leaving: dict[int, list[tuple[int, int, int]]] = {}  # row -> (row of return, index of job, index of window)
    for index, job in enumerate(jobs):
        for visit in range(len(job.windows) - 1):
            leaving.setdefault(job.windows[visit][1] + 1, []).append((job.windows[visit + 1][0], index, visit))
    for left in sorted(leaving):
        absent = [(back, error) for back, error in absent if back > left]
        owed = -sum((error for _, error in absent), Fraction(0))
        served = 0
        for back, index, visit in sorted(leaving[left]):
            fraction = Fraction(int(schedule.quota(jobs[index].source, left)) % schedule.scale, schedule.scale)
            owed += fraction
            if index not in done and round(owed) > served:
                done.add(index)
                choice[index] = visit
            served += index in done
            absent.append((back, (index in done) - fraction))
    return choice
