"""Which source serves each row: the chairman assignment (Tijdeman, Discrete Mathematics 32, 1980), exactly.

Service j = 0, 1, ... of source i is a unit job. With Q the quota of source i in rows and m a margin, the job may be
done from the first row n with Q(n + 1) >= j + m and must be done by the first row n with Q(n + 1) > j + 1 - m. Done in
that window, served and quota differ by less than one row at every prefix (by at most 1 - m, when m > 0). Each row
takes, of the jobs that may be done, the one with the earliest deadline: optimal for unit jobs with interval windows.

Proof, for m = 1 / (2k - 2) and k sources, that something is always there to do and no deadline is ever missed:
  - By row n, sum_i floor(Q_i(n + 1) - m) + 1 > (n + 1) - k m >= n jobs were released: one is left for row n.
  - Of the jobs whose windows lie within rows a .. b, source i has N_i = hi_i - lo_i, or none, with
    lo_i = floor(Q_i(a) + 1 - m) and hi_i = ceil(Q_i(b + 1) + m) - 1. N_i < Q_i(b + 1) - Q_i(a) + 2m where it has any.
    When at most k - 1 sources have any, sum_i N_i < (b - a + 1) + 2m (k - 1) = (b - a + 1) + 1. When all have, the sum
    of lo_i is a whole number above a - k m >= a - 1 and that of hi_i one below b + 1 + k m <= b + 2. Either way at most
    b - a + 1 jobs compete for b - a + 1 rows, which is Hall's condition.

A source without weight must not be served. Where one leaves the mixture while a part of a row is owed to it, the
window of its open job is broken, and the job is given one of the parts (`open_jobs.py`), or is dropped when the source
does not come back. The margin is then 0, and |served - quota| < 1 still.
"""

from __future__ import annotations

import heapq

import numpy as np

from seallm_jax.data.open_jobs import Failure, OpenJobs
from seallm_jax.data.schedule import WeightSchedule

CHUNK_ROWS = 1 << 18


def assign_rows(schedule: WeightSchedule) -> np.ndarray:
    """Source of every row.

    Args:
      schedule: integer weights of K sources over N rows.

    Returns:
      uint8 or uint16 [N], indices of sources. |served - quota| < 1 row at every prefix and for every source, and at
      most 1 - 1 / (2k - 2), k the number of sources with weight, unless a source leaves the mixture between whole
      rows. A source without weight at a row does not serve it.
    """
    open_jobs = OpenJobs(schedule)
    present = int((schedule.weights > 0).any(axis=0).sum())
    margin = 1 if open_jobs.jobs or present == 1 else -(-schedule.scale // (2 * present - 2))
    while isinstance(result := _earliest_deadline(schedule, margin, open_jobs.chosen()), Failure):
        if not open_jobs.jobs:
            raise AssertionError(f"the deadline rule failed at {result}, which Tijdeman's theorem forbids")
        open_jobs.exclude(result)
    return result


def _earliest_deadline(
    schedule: WeightSchedule, margin: int, chosen: dict[int, list[tuple[int, int, int]]]
) -> np.ndarray | Failure:
    """The deadline rule over all rows. `margin` is in units of 1 / scale; 1 stands for none."""
    sources = schedule.sources
    order = np.empty(schedule.rows, np.uint8 if sources <= 256 else np.uint16)
    deadlines = np.empty(schedule.rows if chosen else 0, np.int64)  # kept only where a failure is possible
    heap: list[int] = []  # deadline * sources + source
    for start in range(0, schedule.rows, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, schedule.rows)
        release, key = _jobs(schedule, margin, chosen, start, stop)
        served = _serve(release, key, start, stop, heap)
        due, order[start : start + len(served)] = np.divmod(served, sources)
        late = due[due < np.arange(start, start + len(served))]
        if chosen:
            deadlines[start : start + len(served)] = due
        if late.size:
            return _overfull(deadlines, int(late[0]))
        if start + len(served) < stop:
            return Failure(-1, start + len(served))
    if heap and (missed := heap[0] // sources) < schedule.rows:
        return _overfull(deadlines, missed)
    return order


def _overfull(deadlines: np.ndarray, last: int) -> Failure:
    """The span that ends with a missed deadline: the rows since one was given to a job that could wait longer."""
    relaxed = np.flatnonzero(deadlines[: last + 1] > last)
    return Failure(int(relaxed[-1]) + 1 if relaxed.size else 0, last)


def _jobs(
    schedule: WeightSchedule, margin: int, chosen: dict[int, list[tuple[int, int, int]]], start: int, stop: int
) -> tuple[list[int], list[int]]:
    """Release rows and keys of the jobs released at rows start .. stop - 1, in order of release."""
    scale = schedule.scale
    releases, keys = [], []
    for source in range(schedule.sources):
        first, last = (schedule.quota(source, np.array([start, stop])) - margin) // scale + 1
        jobs = np.arange(first, last)
        own = chosen.get(source, [])
        if own:
            jobs = np.setdiff1d(jobs, [job for job, _, _ in own])
        release = schedule.row_reaching(source, jobs * scale + margin)
        deadline = schedule.row_reaching(source, (jobs + 1) * scale - margin + 1)
        extra = [(row, due) for _, row, due in own if start <= row < stop]
        if extra:
            release = np.concatenate([release, [row for row, _ in extra]])
            deadline = np.concatenate([deadline, [due for _, due in extra]])
        releases.append(release)
        keys.append(deadline * schedule.sources + source)
    release, key = np.concatenate(releases), np.concatenate(keys)
    by_release = np.argsort(release, kind="stable")
    return release[by_release].tolist(), key[by_release].tolist()


def _serve(release: list[int], key: list[int], start: int, stop: int, heap: list[int]) -> np.ndarray:
    """int64, keys of the jobs done from row `start` on: up to `stop`, or to a row that has no job to take.

    `heap` holds the jobs that wait, before and after.
    """
    push, pop = heapq.heappush, heapq.heappop
    release.append(stop)  # sentinel
    served = []
    job = 0
    for row in range(start, stop):
        while release[job] <= row:
            push(heap, key[job])
            job += 1
        if not heap:
            break
        served.append(pop(heap))
    return np.array(served, np.int64)
