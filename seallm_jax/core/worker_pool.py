"""Processes that do one job after the other, and are missed at once when they are killed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal


class WorkerKilledError(RuntimeError):
    """A worker ended in the middle of a job, as by the kernel's out-of-memory killer."""


class WorkerPool:
    """A fixed number of worker processes.

    `concurrent.futures.ProcessPoolExecutor` may wait for ever when a worker is killed while others are being started,
    and `multiprocessing.Pool` for the job that was lost with it. Here each worker has a pipe of its own, which ends
    with it.
    """

    def __init__(self, workers: int, *, method: Literal["spawn", "forkserver"] = "spawn", preload: Sequence[str] = ()):
        """
        Args:
          workers: how many; at least 1.
          method: how they are started. A plain fork of a process that holds threads may hang.
          preload: modules that the fork server imports once for all of them.
        """
        context: Any = multiprocessing.get_context(method)
        if preload:
            context.set_forkserver_preload(list(preload))
        self._processes: list[Any] = []
        self._pipes: list[multiprocessing.connection.Connection] = []
        for _ in range(workers):
            pipe, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(pipe)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def run(self, function: Callable[..., Any], jobs: Iterable[tuple]) -> Iterator[tuple[int, Any]]:
        """Calls `function(*job)` for each job; yields (number of the job, its result) as they are done.

        Raises:
          WorkerKilledError: a worker ended without a result.
          Exception: what a job raised; other jobs may be half done then.
        """
        waiting = enumerate(jobs)
        idle, busy = list(self._pipes), {}
        while True:
            while idle and (job := next(waiting, None)) is not None:
                pipe = idle.pop()
                busy[pipe] = job[0]
                try:
                    pipe.send((function, job[1]))
                except OSError:
                    raise WorkerKilledError("a worker process was killed") from None
            if not busy:
                return
            for ready in multiprocessing.connection.wait(list(busy)):
                assert isinstance(ready, multiprocessing.connection.Connection)
                try:
                    failed, value = ready.recv()
                except (EOFError, OSError):
                    raise WorkerKilledError("a worker process was killed") from None
                if failed:
                    raise value
                idle.append(ready)
                yield busy.pop(ready), value

    def close(self) -> None:
        """Ends the workers, also in the middle of a job."""
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            pipe.close()
            process.terminate()
        for process in self._processes:
            process.join()


def _serve(pipe: multiprocessing.connection.Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is told, and ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        try:
            function, job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = False, function(*job)
        except Exception as error:
            answer = True, error
        try:
            pipe.send(answer)
        except OSError:
            return
        except Exception:  # it cannot be sent
            pipe.send((True, RuntimeError(repr(answer[1]))))
