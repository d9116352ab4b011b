import os
import signal
import time

import pytest

from seallm_jax.core.worker_pool import WorkerKilledError, WorkerPool


def square(number):
    return number * number


def fail_at(number, bad):
    if number == bad:
        raise ValueError(f"{number} is bad")
    return number


def die_at(number, bad):
    if number == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def unpicklable():
    return lambda: 0


def sleep(seconds):
    time.sleep(seconds)


@pytest.mark.parametrize(("workers", "method"), [(1, "spawn"), (3, "spawn"), (2, "forkserver")])
def test_every_job_is_done_once_also_in_a_second_run(workers, method):
    with WorkerPool(workers, method=method) as pool:
        for size in (0, 1, 20):
            done = dict(pool.run(square, [(number,) for number in range(size)]))
            assert done == {number: number * number for number in range(size)}


def test_an_error_of_a_job_is_raised_here():
    with WorkerPool(2) as pool, pytest.raises(ValueError, match="3 is bad"):
        list(pool.run(fail_at, [(number, 3) for number in range(6)]))


def test_a_result_that_cannot_be_sent_is_an_error():
    with WorkerPool(1) as pool, pytest.raises(RuntimeError, match="lambda"):
        list(pool.run(unpicklable, [()]))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_killed_worker_is_missed_at_once(method):
    start = time.monotonic()
    with WorkerPool(3, method=method) as pool, pytest.raises(WorkerKilledError):
        list(pool.run(die_at, [(number, 7) for number in range(30)]))
    assert time.monotonic() - start < 30


def test_a_worker_killed_while_it_starts_or_waits_is_missed_too():
    pool = WorkerPool(2)
    os.kill(pool._processes[0].pid, signal.SIGKILL)
    with pool, pytest.raises(WorkerKilledError):
        list(pool.run(square, [(number,) for number in range(10)]))


def test_workers_end_with_the_pool_in_the_middle_of_a_job():
    start = time.monotonic()
    with WorkerPool(2) as pool:
        assert next(pool.run(sleep, [(60,), (0,)]))[0] == 1
    assert not any(process.is_alive() for process in pool._processes)
    assert time.monotonic() - start < 30
