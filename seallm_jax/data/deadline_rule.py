"""The earliest-deadline rule over the rows of a schedule: compiled where there are many."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from seallm_jax.data.schedule import WeightSchedule

CHUNK_ROWS = 1 << 18
COMPILED_ROWS = 1 << 14  # fewer are done in plain Python before the compiler is loaded

DONE, IDLE, LATE = 0, 1, 2


class DeadlineRule:
    """Gives each row, of the jobs that may be done, the one with the earliest deadline.

    The jobs of a source and their windows are those of `chairman.py`, but for the open jobs, whose windows are given.
    Memory is that of `order` and of a chunk of 262,144 rows; a row costs about 0.1 us with 500 sources.
    """

    def __init__(self, schedule: WeightSchedule, margin: int, chosen: dict[int, list[tuple[int, int, int]]]):
        """
        Args:
          schedule: weights of K sources over N rows.
          margin: in units of 1 / scale; 1 stands for none.
          chosen: source -> (job, release, deadline) of its open jobs, in rows.
        """
        self._schedule = schedule
        self._margin = margin
        jobs = sorted((source, *window) for source, own in chosen.items() for window in own)
        self._open_jobs_Ex4 = np.array(jobs, np.int64).reshape(-1, 4)

    def run(self, order: np.ndarray, *, watch: int = -1) -> tuple[int, int]:
        """Fills `order`, uint8 or uint16 [N], with the sources of the rows.

        Args:
          watch: a deadline that was missed before; then the rows up to it are done again.

        Returns:
          (DONE, 0); (IDLE, row) when a row had no job to take; (LATE, deadline) when a deadline was missed; with
          `watch`, (DONE, row): the last row that was given to a job which could have waited until after `watch`, or -1.
        """
        schedule, sources = self._schedule, self._schedule.sources
        serve: Callable = serve_rows if schedule.rows < COMPILED_ROWS else _compiled()
        size = min(CHUNK_ROWS, schedule.rows)
        open_jobs = self._open_jobs_Ex4
        state: tuple[Any, ...] = (
            np.zeros(sources, np.int64),  # next job
            np.full(sources, -1, np.int64),  # its release; -1 while unknown
            np.zeros((2, sources), np.int64),  # segments of the last release and deadline
            np.searchsorted(open_jobs[:, 0], np.arange(sources)),  # next open job of the source
            np.empty(2 * sources + len(open_jobs) + 1, np.int64),  # heap: deadline * sources + source
            np.zeros(1, np.int64),  # its size
            np.empty((3, size + sources + len(open_jobs)), np.int64),  # jobs of a chunk: release, key, key by release
            np.empty(size + 1, np.int64),  # jobs of a chunk released before each row
        )
        found = np.array([DONE, -1 if watch >= 0 else 0], np.int64)
        last = schedule.rows if watch < 0 else watch + 1
        for start in range(0, last, CHUNK_ROWS):
            stop = min(start + CHUNK_ROWS, last)
            serve(
                order[start:stop], start, schedule.rows, schedule.scale, self._margin, schedule.starts,
                schedule.weights, schedule.cumulative, open_jobs, watch, *state, found,
            )  # fmt: skip
            if found[0] != DONE:
                return int(found[0]), int(found[1])
        heap, heap_size = state[4], int(state[5][0])
        if watch < 0 and heap_size and (missed := int(heap[0]) // sources) < schedule.rows:
            return LATE, missed
        return DONE, int(found[1])


@functools.cache
def _compiled() -> Callable:
    import numba

    return numba.njit(cache=True)(serve_rows)


def serve_rows(
    order_R, start, rows, scale, margin, starts, weights_SxK, cumulative_KxS, open_jobs_Ex4, watch,
    next_job_K, next_release_K, segments_2xK, next_open_K, heap, heap_size, jobs_3xJ, before_R, found,
) -> None:  # fmt: skip
    """Serves the rows start .. start + R - 1. All arrays but the schedule's carry over to the next rows.

    One function and plain loops, so that it runs compiled and as it stands.
    """

    def row_reaching(source, quota, kind):
        """First row after which the quota is reached; the segment is looked for from that of the last such call on."""
        segment = segments_2xK[kind, source]
        while segment < len(weights_SxK) and cumulative_KxS[source, segment + 1] < quota:
            segment += 1
        segments_2xK[kind, source] = segment
        if segment == len(weights_SxK):
            return rows
        weight = weights_SxK[segment, source]
        return starts[segment] + (quota - cumulative_KxS[source, segment] + weight - 1) // weight - 1

    sources = len(next_job_K)
    size = len(order_R)
    stop = start + size
    before_R[: size + 1] = 0
    count = 0
    for source in range(sources):
        while next_release_K[source] < stop:
            job = next_job_K[source]
            if next_release_K[source] >= 0:
                # the job whose release is known becomes one of these rows' jobs, with its deadline
                deadline = row_reaching(source, (job + 1) * scale - margin + 1, 1)
                jobs_3xJ[0, count] = next_release_K[source] - start
                jobs_3xJ[1, count] = deadline * sources + source
                before_R[jobs_3xJ[0, count] + 1] += 1
                count += 1
                job += 1
            entry = next_open_K[source]
            while entry < len(open_jobs_Ex4) and open_jobs_Ex4[entry, 0] == source and open_jobs_Ex4[entry, 1] == job:
                entry += 1
                job += 1
            next_open_K[source] = entry
            next_job_K[source] = job
            next_release_K[source] = row_reaching(source, job * scale + margin, 0)
    for entry in range(len(open_jobs_Ex4)):
        release = open_jobs_Ex4[entry, 2]
        if start <= release < stop:
            jobs_3xJ[0, count] = release - start
            jobs_3xJ[1, count] = open_jobs_Ex4[entry, 3] * sources + open_jobs_Ex4[entry, 0]
            before_R[release - start + 1] += 1
            count += 1
    for row in range(size):
        before_R[row + 1] += before_R[row]
    for job in range(count):  # counting sort by release; before_R[row] moves on to the end of the row's jobs
        row = jobs_3xJ[0, job]
        jobs_3xJ[2, before_R[row]] = jobs_3xJ[1, job]
        before_R[row] += 1

    waiting = heap_size[0]
    taken = 0
    for row in range(size):
        while taken < before_R[row]:
            key = jobs_3xJ[2, taken]
            taken += 1
            place = waiting
            waiting += 1
            while place > 0 and heap[(place - 1) // 2] > key:
                heap[place] = heap[(place - 1) // 2]
                place = (place - 1) // 2
            heap[place] = key
        if waiting == 0:
            found[0] = 1
            found[1] = start + row
            break
        first = heap[0]
        waiting -= 1
        key = heap[waiting]
        place = 0
        while 2 * place + 1 < waiting:
            child = 2 * place + 1
            if child + 1 < waiting and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= key:
                break
            heap[place] = heap[child]
            place = child
        heap[place] = key
        deadline = first // sources
        order_R[row] = first - deadline * sources
        if watch >= 0:
            if deadline > watch:
                found[1] = start + row
        elif deadline < start + row:
            found[0] = 2
            found[1] = deadline
            break
    heap_size[0] = waiting
