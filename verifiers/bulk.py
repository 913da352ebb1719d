"""Many completions at once: judged by worker processes, in chunks, in the order of the rows.

A round trip to a process costs more than most checks, so rows travel by the hundred. A worker
stops early when a chunk has had its share of time and sends what it has, so that a few slow rows
hold up nobody. When a worker dies or hangs, the rows of its chunk are judged again one at a time:
only the row at fault pays for it. Rows are read as they are needed and verdicts leave in order,
so what is held at any time does not grow with their number.
"""

import functools
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from .errors import UsageError, WorkerError
from .isolation import bounds_itself
from .protocol import Verifier, verify
from .registry import make
from .task import Task
from .verdict import Status, Verdict
from .workers import MEMORY, WorkerPool, check_timeout, cores, verdict_of

SHARE = 0.1
"""Seconds of work in a chunk, about: long against a round trip, short against a wait."""
FIRST_ROWS = 16
"""Rows in a chunk as long as the time per row is unknown."""
MAX_ROWS = 256
"""Rows in a chunk at most."""
MAX_CHARS = 1 << 18
"""Characters of completions at which a chunk is full."""
AHEAD = 16
"""Chunks per worker that may be under way or wait to be handed over in order."""
NET = 120.0
"""Seconds for a row of a verifier that keeps its own time: only its failure takes so long."""

Row = tuple[str, Any] | list[Any]
"""A completion with its truth, or with its `Task`."""


def verify_many(
    verifier: Verifier | str,
    rows: Iterable[Row],
    *,
    workers: int | None = None,
    progress: Callable[[int, int | None], object] | None = None,
    timeout: float = 10.0,
    memory: int | None = MEMORY,
) -> list[Verdict]:
    """Judge many completions in worker processes.

    Args:
        verifier: A verifier, or the name of one; `async` ones too.
        rows: Pairs `(completion, truth)` or `(completion, Task)`, a list or any iterator.
        workers: Processes; the number of cores if not given. 0 judges in this process, for a
            verifier that cannot be sent to another: without limits, and what hangs, hangs.
        progress: Called with the rows done and their number (`None` where `rows` has no length).
        timeout: Seconds of work per row of a verifier from outside this project, over which its
            verdict is `error`; our own keep the time limits that they were made with.
        memory: Bytes of address space per worker; `None` sets no limit.

    Returns:
        One verdict per row, in their order. A row on which a worker crashed or hung is an `error`;
        the rows around it are not affected.

    Raises:
        UsageError: An option is out of range, a row is no pair, or the verifier cannot be sent.
        WorkerError: No worker process could be started.

    Example:
        >>> [v.reward for v in verify_many("exact", [("4", "4"), ("5", "4")], workers=1)]
        [1.0, 0.0]
    """
    total = len(rows) if hasattr(rows, "__len__") else None  # pyright: ignore
    verdicts: list[Verdict] = []
    for chunk in _judged(make(verifier), rows, workers, timeout, memory):
        verdicts += chunk
        if progress is not None:
            progress(len(verdicts), total)
    return verdicts


def verify_each(
    verifier: Verifier | str,
    rows: Iterable[Row],
    *,
    workers: int | None = None,
    timeout: float = 10.0,
    memory: int | None = MEMORY,
) -> Iterator[Verdict]:
    """Do what `verify_many` does, handing the verdicts over as they come, in order.

    For more rows than fit in memory. Closing the iterator ends the workers.

    Example:
        >>> endless = (("4", str(n)) for n in range(10**9))
        >>> verdicts = verify_each("exact", endless, workers=1)
        >>> [next(verdicts).reward for _ in range(6)]
        [0.0, 0.0, 0.0, 0.0, 1.0, 0.0]
        >>> verdicts.close()
    """
    chunks = _judged(make(verifier), rows, workers, timeout, memory)
    return (verdict for chunk in chunks for verdict in chunk)


def _judged(
    verifier: Verifier, rows: Iterable[Row], workers: int | None, timeout: float, memory: int | None
) -> Iterator[list[Verdict]]:
    """Check the options, and return the verdicts by the chunk."""
    check_timeout(timeout)
    if workers is not None and (isinstance(workers, bool) or workers < 0):
        raise UsageError(f"workers= is a number of processes from 0 up, got {workers!r}")
    if workers == 0:
        return ([judge(verifier, row)] for row in map(_checked, rows, itertools.count()))
    import cloudpickle

    try:
        cloudpickle.dumps(verifier)
    except Exception as error:
        raise UsageError(
            f"the verifier {verifier!r:.100} cannot be sent to worker processes "
            f"({type(error).__name__}: {error}); workers=0 judges in this one"
        ) from None
    return _in_order(_Crew(verifier, workers or cores(), timeout, memory), rows)


def _in_order(crew: "_Crew", rows: Iterable[Row]) -> Iterator[list[Verdict]]:
    """Keep the crew busy, and hand the verdicts over in the order of the rows."""
    waiting: deque[Future[list[Verdict]]] = deque()
    with ThreadPoolExecutor(crew.pool.size, "rlvr-bulk") as threads:
        try:
            crew.try_out()
            for chunk in _chunks(rows, crew):
                waiting.append(threads.submit(crew.judge, chunk))
                while waiting and (len(waiting) > AHEAD * crew.pool.size or waiting[0].done()):
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        finally:
            crew.stop(waiting)


def _first(waiting: deque[Future[list[Verdict]]]) -> list[Verdict]:
    """Wait for the first chunk; it leaves the queue only then, so that Ctrl-C finds it there."""
    verdicts = waiting[0].result()
    waiting.popleft()
    return verdicts


def _chunks(rows: Iterable[Row], crew: "_Crew") -> Iterator[list[list[Any]]]:
    chunk: list[list[Any]] = []
    chars = 0
    for row in map(_checked, rows, itertools.count()):
        chunk.append(row)
        chars += len(row[0])
        if len(chunk) >= crew.rows or chars >= MAX_CHARS:
            yield chunk
            chunk, chars = [], 0
    if chunk:
        yield chunk


def _checked(row: Any, number: int) -> list[Any]:
    """Return a row as it travels: completion, truth, and the task where there is one."""
    if not isinstance(row, tuple | list) or len(row) != 2 or not isinstance(row[0], str):
        raise UsageError(
            f"row {number} is a pair of a completion (a text) and a truth or Task, got {row!r:.100}"
        )
    completion, truth = row
    return [completion, truth.truth, truth] if isinstance(truth, Task) else [completion, truth]


def judge(verifier: Verifier, row: list[Any]) -> Verdict:
    """Judge one row: completion, truth, and perhaps the task."""
    completion, truth, *task = row
    return verify(verifier, completion, truth, **({"task": task[0]} if task else {}))


def _judge_chunk(verifier: Verifier, rows: list[list[Any]], share: float) -> dict[str, Any]:
    """Judge rows, in the worker, until the share of time is used up; at least one."""
    verdicts: list[dict[str, Any]] = []
    start = now = time.monotonic()
    for row in rows:
        verdict = judge(verifier, row).to_json()
        before, now = now, time.monotonic()
        verdict["cost"]["seconds"] = round(now - before, 7)
        verdicts.append(verdict)
        if now - start >= share:
            break
    return Verdict.correct(verdicts=verdicts).to_json()


class _Crew:
    """The workers of one run, and how many rows they are given at a time."""

    def __init__(self, verifier: Verifier, size: int, timeout: float, memory: int | None) -> None:
        """Make the pool; no process is started yet."""
        self.limit = NET if bounds_itself(verifier) else timeout
        self.rows = FIRST_ROWS
        self.stopped = threading.Event()
        self.pool = WorkerPool(
            functools.partial(_judge_chunk, verifier),
            size=size,
            memory=memory,
            late=Verdict.error,
            name=getattr(verifier, "name", type(verifier).__name__),
        )

    def try_out(self) -> None:
        """Start a worker.

        Raises:
            WorkerError: It does not start, or cannot load the verifier.
        """
        verdict = self.pool.call_within(self.limit, [], 0.0)
        if not verdict.scored:
            raise WorkerError(f"no worker process could be used: {verdict.evidence['reason']}")

    def judge(self, rows: list[list[Any]]) -> list[Verdict]:
        """Judge a chunk, in a thread of the parent."""
        verdicts: list[Verdict] = []
        while len(verdicts) < len(rows) and not self.stopped.is_set():
            left = rows[len(verdicts) :]
            found = self._send(left)
            # a row broke the worker: each alone, so that it breaks nothing else
            verdicts += found if isinstance(found, list) else map(self._alone, left)
        return verdicts

    def _send(self, rows: list[list[Any]]) -> list[Verdict] | Verdict:
        """Return the verdicts of the first rows, or the failure of the call."""
        limit = self.limit + (SHARE if len(rows) > 1 else 0)
        answer = self.pool.call_within(limit, rows, SHARE)
        if answer.status is not Status.CORRECT:
            return answer
        found = answer.evidence["verdicts"]
        seconds = sum(verdict["cost"]["seconds"] for verdict in found) / len(found)
        self.rows = max(1, min(MAX_ROWS, math.ceil(SHARE / max(seconds, 1e-6))))
        return [verdict_of(verdict) for verdict in found]

    def _alone(self, row: list[Any]) -> Verdict:
        if self.stopped.is_set():
            return Verdict.error("the run was stopped")
        found = self._send([row])
        return found[0] if isinstance(found, list) else found

    def stop(self, waiting: Iterable[Future[list[Verdict]]]) -> None:
        """End whatever is still running, and every worker."""
        self.stopped.set()
        running = {future for future in waiting if not future.cancel()}
        while running:
            self.pool.interrupt()
            running = wait(running, 0.05).not_done
        self.pool.close()
