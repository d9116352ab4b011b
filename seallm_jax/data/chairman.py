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

import numpy as np

from seallm_jax.data.deadline_rule import DONE, IDLE, DeadlineRule
from seallm_jax.data.open_jobs import Failure, OpenJobs
from seallm_jax.data.schedule import WeightSchedule


def assign_rows(schedule: WeightSchedule, order: np.ndarray | None = None) -> np.ndarray:
    """Source of every row.

    Args:
      schedule: integer weights of K sources over N rows.
      order: where the result goes, such as an array mapped to a file; None makes one.

    Returns:
      `order_dtype(K)` [N], indices of sources. |served - quota| < 1 row at every prefix and for every source, and at
      most 1 - 1 / (2k - 2), k the number of sources with weight, unless a source leaves the mixture between whole
      rows. A source without weight at a row does not serve it.
    """
    if order is None:
        order = np.empty(schedule.rows, order_dtype(schedule.sources))
    open_jobs = OpenJobs(schedule)
    present = int((schedule.weights > 0).any(axis=0).sum())
    margin = 1 if open_jobs.jobs or present == 1 else -(-schedule.scale // (2 * present - 2))
    while True:
        rule = DeadlineRule(schedule, margin, open_jobs.chosen())
        outcome, row = rule.run(order)
        if outcome == DONE:
            return order
        # too many jobs for the rows that end with the missed deadline; they begin after the last one that could wait
        failure = Failure(-1, row) if outcome == IDLE else Failure(rule.run(order, watch=row)[1] + 1, row)
        if not open_jobs.jobs:
            raise AssertionError(f"the deadline rule failed at {failure}, which Tijdeman's theorem forbids")
        open_jobs.exclude(failure)


def order_dtype(sources: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest dtype that numbers the sources."""
    return np.uint8 if sources <= 256 else np.uint16
