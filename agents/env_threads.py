"""A bounded pool of threads that resets and steps environments."""

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

ENV_THREADS = 256
"""Environment steps that run at the same time at most: as many tools as wait for a network."""

GROW_BY = 32
"""Workers that join together."""

GROW_AFTER = 0.005
"""Seconds that calls wait for the first worker before others join: many threads of microsecond
steps take the interpreter's lock from each other."""

GROW_AGAIN = 0.02
"""Seconds between further groups of workers: steps that compute gain nothing from them."""

QUICK = 0.001
"""Seconds under which an environment's `reset` or `step` counts as quick."""

PATIENCE = 0.05
"""Seconds that calls taken for quick may block the event loop before a rollout stops taking any."""


class EnvThreads:
    """A bounded pool that steps environments, cheap for thousands of steps of microseconds.

    A worker takes calls from one queue until it is empty, so that a call costs a queue entry, not
    a hand-over between threads. One worker begins; if calls still wait after `GROW_AFTER`, the
    steps are slow and the others join, so that a slow step holds up its own worker alone. The
    threads outlive a rollout and serve the next one.

    An environment whose last call of a kind was quick is called on the event loop's own thread,
    which saves the hand-over; calls that turn out slow there end that after `PATIENCE`.
    """

    _threads = ThreadPoolExecutor(ENV_THREADS, thread_name_prefix="rlvr-env")
    _last: ClassVar["weakref.WeakKeyDictionary[Any, dict[str, float]]"] = (
        weakref.WeakKeyDictionary()
    )
    """Per environment and kind of call, the seconds that the last one took."""

    def __init__(self) -> None:
        """Deliver results on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._done: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        self._workers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._blocked = 0.0
        self.seconds = 0.0
        """Time during which at least one call ran."""

    async def call(self, env: Any, kind: str, function: Callable[[], T]) -> T:
        """Run a call of an environment and wait for what it returns or raises."""
        last = self._last.setdefault(env, {})
        if last.get(kind, QUICK) >= QUICK or self._blocked > PATIENCE:
            return await self._hand_over(lambda: _timed(function, last, kind))
        try:
            return _timed(function, last, kind)
        finally:
            self.seconds += last[kind]
            self._blocked += last[kind] if last[kind] >= QUICK else 0.0

    async def _hand_over(self, function: Callable[[], T]) -> T:
        """Run a function in the pool and wait for what it returns or raises."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._lock:
            self._calls.append((function, future))
            start = not self._workers
            if start:
                self._since = time.perf_counter()
                self._workers = 1
        if start:
            self._threads.submit(self._work)
        elif self._timer is None:
            self._timer = self._loop.call_later(GROW_AFTER, self._grow)
        return await future

    def _grow(self) -> None:
        """Let more workers join if calls wait."""
        self._timer = None
        with self._lock:
            more = min(GROW_BY, ENV_THREADS - self._workers, len(self._calls))
            more = more if self._workers else 0
            self._workers += more
            waiting = bool(self._calls) and self._workers < ENV_THREADS
        for _ in range(more):
            self._threads.submit(self._work)
        if waiting:
            self._timer = self._loop.call_later(GROW_AGAIN, self._grow)

    def _next(self) -> tuple[Callable[[], Any], "asyncio.Future[Any]"] | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._workers -= 1
            if not self._workers:
                self.seconds += time.perf_counter() - self._since
            return None

    def _work(self) -> None:
        while (item := self._next()) is not None:
            function, future = item
            if future.cancelled():
                continue
            value, failure = None, None
            try:
                value = function()
            except BaseException as error:
                failure = error
            with self._lock:
                self._done.append((future, value, failure))
                first = len(self._done) == 1
            if first:
                self._notify()

    def _notify(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver)
        except RuntimeError:
            return  # the loop has ended: nobody waits any more

    def _deliver(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for future, value, failure in done:
            if future.done():
                continue
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(value)


def _timed(function: Callable[[], T], last: dict[str, float], kind: str) -> T:
    """Run a function and note how long it took."""
    began = time.perf_counter()
    try:
        return function()
    finally:
        last[kind] = time.perf_counter() - began
