"""Killable worker processes: a time limit that holds from any thread and any event loop.

A signal works in the main thread only, and a thread cannot be stopped at all; a process can be
killed. Workers are started with `subprocess`, when first needed, by the process that needs them
(never `multiprocessing`, whose daemonic children may start none; never by copying this process),
and are kept warm. The parent holds the deadline. A worker that hangs is killed with its process
group and replaced; one that crashes costs one call, which becomes an `error`.
"""

import functools
import json
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .channel import WORKERS, Crashed, Expired, Starved, Worker
from .errors import UsageError, WorkerError
from .protocol import as_verdict
from .verdict import Verdict
from .worker import JSON_CALL, PICKLED_CALL

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

ALLOWANCES = (4.0, 8.0, 16.0)
"""Multiples of the limit that each attempt may wait while the work is starved of a processor."""
MEMORY = 2 << 30
"""Bytes of address space of a worker, unless the caller says otherwise."""
MAX_BY_VALUE = 20
"""Modules that are sent along because a worker cannot import them."""


def cores() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)


def _reply(target: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Call the target, in the worker, and return the verdict as JSON values."""
    value = target(*args, **kwargs)
    return value if isinstance(value, dict) else as_verdict(value).to_json()


def _is_plain(value: Any) -> bool:
    """Return whether JSON gives the value back exactly as it is (no tuples, no subclasses)."""
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return True
    if kind is list:
        return all(map(_is_plain, value))
    return kind is dict and all(type(key) is str and _is_plain(value[key]) for key in value)


def _encode(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, bytes]:
    """Encode a call: as JSON where that is exact, else pickled."""
    if all(map(_is_plain, args)) and _is_plain(kwargs):
        try:
            # lone surrogates do not encode: JSON escapes would join two of them into one character
            return JSON_CALL, json.dumps([args, kwargs], ensure_ascii=False).encode()
        except ValueError:
            pass
    import cloudpickle

    return PICKLED_CALL, cloudpickle.dumps((args, kwargs))


class WorkerPool:
    """A function that runs in killable processes and returns verdicts.

    Args:
        target: Returns a bool, a number, a `Verdict` or a verdict's JSON. It travels by
            cloudpickle, so functions of notebooks, scripts and test files work too.
        timeout: Seconds of work per call, above 0. Waiting for a free worker, starting one, and
            waiting for a processor do not count.
        size: Workers at most; the number of cores if not given.
        memory: Bytes of address space per worker; `None` sets no limit.
        setup: Called once in a new worker, before its first call (imports).
        late: Makes the verdict of a call that was over its limit, from the reason.
        died: Makes the verdict of a call on which two workers ended in the same way, from the
            reason: `Verdict.limit` where that is the answer's fault. By default one that ends is
            an `error`.
        name: What error messages call the target.
        copies: Let a forked copy of each worker serve, so that one which was killed is replaced in
            milliseconds, however long the imports take; for targets that start no threads.

    Example:
        >>> with WorkerPool(str.isdigit, timeout=1.0) as pool:
        ...     pool.call("42").reward
        1.0
    """

    def __init__(
        self,
        target: Callable[..., Any],
        *,
        timeout: float = 2.0,
        size: int | None = None,
        memory: int | None = MEMORY,
        setup: Callable[[], object] | None = None,
        late: Callable[[str], Verdict] = Verdict.timeout,
        died: Callable[[str], Verdict] | None = None,
        name: str = "",
        copies: bool = False,
    ) -> None:
        """Check the options; no process is started before the first call."""
        check_timeout(timeout)
        if size is not None and size < 1:
            raise UsageError(f"size= is a number of workers from 1 up, got {size!r}")
        if not callable(target):
            raise UsageError(f"a worker's target is a function, got {target!r:.100}")
        self.target = target
        self.timeout = timeout
        self.size = size or cores()
        self.memory = memory
        self.setup = setup
        self.late = late
        self.died = died
        self.copies = copies
        self.name = name or getattr(target, "__name__", type(target).__name__)
        self._idle: list[Worker] = []
        self._reset()
        _POOLS.add(self)
        self._finalizer = weakref.finalize(self, _kill_all, self._idle)

    def _reset(self) -> None:
        """Begin anew: at first, and in a forked child, where locks may be held by no one."""
        self._idle.clear()
        self._busy: set[Worker] = set()
        self._free = threading.Semaphore(self.size)
        self._lock = threading.Lock()
        self._payload: bytes | None = None
        self._threads: ThreadPoolExecutor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the options: the processes stay with their owner."""
        options = {key: getattr(self, key) for key in _OPTIONS}
        return functools.partial(WorkerPool, self.target, **options), ()

    def __enter__(self) -> "WorkerPool":
        """Return the pool."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pool."""
        self.close()

    def close(self) -> None:
        """End the idle workers; a later call starts new ones."""
        with self._lock:
            workers = [self._idle.pop() for _ in range(len(self._idle))]
            threads, self._threads = self._threads, None
        for worker in workers:
            worker.kill()
        if threads is not None:
            threads.shutdown(wait=False)

    def interrupt(self) -> None:
        """End the calls that are going on in other threads: each becomes an `error`."""
        with self._lock:
            for worker in self._busy:
                worker.abort()

    def call(self, *args: Any, **kwargs: Any) -> Verdict:
        """Call the target in a worker and return its verdict; does not raise for its failures."""
        return self.call_within(self.timeout, *args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> Verdict:
        """Do what `call` does without blocking the event loop."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.size, "rlvr-workers")
            threads = self._threads
        work = functools.partial(self.call, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(threads, work)

    def call_within(self, timeout: float, /, *args: Any, **kwargs: Any) -> Verdict:
        """Call the target with a limit of its own in seconds.

        Returns:
            The target's verdict; `timeout` if the work used up the limit; `error` if it raised,
            crashed, sent no verdict, or was starved of a processor in every attempt. Its cost has
            the seconds `waited` for a worker, the `seconds` since, and those of them in which the
            worker was `starved` of a processor.
        """
        try:
            kind, data = _encode(args, kwargs)
        except Exception as error:
            return Verdict.error(
                f"the call cannot be sent to a worker: {type(error).__name__}: {error}"
            )
        cost = {"waited": 0.0, "starved": 0.0}
        asked = time.monotonic()
        with self._free:
            cost["waited"] = time.monotonic() - asked
            verdict, attempts = self._attempts(kind, data, timeout, cost)
        seconds = time.monotonic() - asked - cost["waited"]
        cost |= {"seconds": seconds, "attempts": float(attempts)}
        object.__setattr__(verdict, "cost", {**verdict.cost, **cost})
        return verdict

    def _attempts(
        self, kind: int, data: bytes, timeout: float, cost: dict[str, float]
    ) -> tuple[Verdict, int]:
        """Make the call, again in a fresh worker if the load kept it from running."""
        reason = ""
        for attempt, allowance in enumerate(ALLOWANCES, 1):
            try:
                return self._once(kind, data, timeout, allowance, cost), attempt
            except Expired as error:
                return self.late(str(error)), attempt
            except Starved as error:
                reason = str(error)
            except Crashed as error:
                if self.died is None:
                    return Verdict.error(f"{self.name}: {error}"), attempt
                if reason == str(error):  # twice the same way: not by accident
                    return self.died(reason), attempt
                reason = str(error)
            except WorkerError as error:
                return Verdict.error(f"{self.name}: {error}"), attempt
        return Verdict.error(f"{self.name}: {reason}"), len(ALLOWANCES)

    def _once(
        self, kind: int, data: bytes, timeout: float, patience: float, cost: dict[str, float]
    ) -> Verdict:
        asked = time.monotonic()
        worker = self._worker()
        cost["waited"] += time.monotonic() - asked
        try:
            reply = worker.call(kind, data, timeout, patience * timeout)
        except (Expired, Crashed):
            self._keep(worker, renew=True)
            raise
        except BaseException:  # Ctrl-C too: what a worker is in the middle of is not reused
            self._drop(worker)
            raise
        finally:
            cost["starved"] += worker.starved
        self._keep(worker, renew=bool(reply.get("last")))
        if "failed" in reply:
            return Verdict.error(str(reply["failed"]))
        return verdict_of(reply.get("verdict"))

    def _keep(self, worker: Worker, *, renew: bool) -> None:
        """Have the worker for later calls, renewed if need be and if it can be."""
        if renew and not worker.renew():
            self._drop(worker)
            return
        with self._lock:
            self._busy.discard(worker)
            self._idle.append(worker)

    def _drop(self, worker: Worker) -> None:
        with self._lock:  # before it is reaped: `interrupt` signals those that are busy
            self._busy.discard(worker)
        worker.kill()

    def _worker(self) -> Worker:
        """Take an idle worker that is alive, or start one."""
        while True:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
                if worker is not None:
                    self._busy.add(worker)
            if worker is None:
                return self._start()
            here = worker.owner == os.getpid()
            if here and (worker.renewed() if worker.renewing else worker.is_idle()):
                return worker
            self._drop(worker)

    def _start(self) -> Worker:
        worker = Worker(self.memory, copies=self.copies)
        with self._lock:
            self._busy.add(worker)
        try:
            self._load(worker)
        except Crashed as error:
            self._drop(worker)
            raise WorkerError(f"a worker ended while it started: {error}") from None
        except BaseException:
            self._drop(worker)
            raise
        return worker

    def _load(self, worker: Worker) -> None:
        """Send the target, with the modules by value that a worker cannot import."""
        by_value: list[str] = []
        while True:
            if self._payload is None:
                self._payload = _pickled(self.target, self.setup, by_value)
            reply = worker.load(self._payload)
            if reply.get("ready"):
                return
            missing = str(reply.get("missing", ""))
            if missing not in sys.modules or missing in by_value or len(by_value) >= MAX_BY_VALUE:
                reason = reply.get("failed") or reply.get("reason")
                raise WorkerError(f"a worker cannot load the function: {reason}")
            by_value.append(missing)
            self._payload = None


_OPTIONS = ("timeout", "size", "memory", "setup", "late", "died", "name", "copies")


def check_timeout(timeout: float) -> None:
    """Raise `UsageError` for a limit that is not a positive, finite number of seconds."""
    if not 0 < timeout < float("inf"):
        raise UsageError(f"timeout= is a number of seconds above 0, got {timeout!r}")


def _pickled(target: Any, setup: Any, by_value: list[str]) -> bytes:
    """Pickle the target; the named modules travel with it instead of being imported."""
    import cloudpickle

    modules = [sys.modules[name] for name in by_value]
    with _PICKLING:
        fresh = [
            m for m in modules if m.__name__ not in cloudpickle.list_registry_pickle_by_value()
        ]
        try:
            for module in fresh:
                cloudpickle.register_pickle_by_value(module)
            return cloudpickle.dumps((functools.partial(_reply, target), setup))
        except Exception as error:
            raise WorkerError(
                f"the function cannot be sent to a worker: {type(error).__name__}: {error}"
            ) from error
        finally:
            for module in fresh:
                cloudpickle.unregister_pickle_by_value(module)


def verdict_of(reply: Any) -> Verdict:
    """Read a verdict that a worker sent; what is none is an error, never a score."""
    try:
        return Verdict.from_json(reply)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Verdict.error(f"the worker's reply is no verdict: {type(error).__name__}: {error}")


def _kill_all(workers: list[Worker]) -> None:
    while workers:
        workers.pop().kill()


_PICKLING = threading.Lock()
_POOLS: "weakref.WeakSet[WorkerPool]" = weakref.WeakSet()


def _after_fork() -> None:
    """Let go of the parent's workers: their pipes must close when the parent ends."""
    global _PICKLING
    _PICKLING = threading.Lock()
    for worker in list(WORKERS):
        worker.kill()
    for pool in list(_POOLS):
        pool._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
