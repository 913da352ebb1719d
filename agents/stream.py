"""Decoding what is ready while other episodes are with their environments.

One thread decodes. Requests that come while it does join the running batch, several at a time: a
prefill holds up every running row, so that it should not be paid for one row at once. Which rows
share a batch follows from clocks here; a row's tokens do not, but for near-ties.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from .decoding import Decoding
from .types import Completion, Sampling


@dataclass(kw_only=True, eq=False)
class Request:
    """One completion that somebody waits for."""

    prompt: Sequence[int]
    """Token ids."""
    sampling: Sampling
    """How it is continued."""
    future: asyncio.Future[Completion]
    """Where the completion goes, on the event loop of the one who waits."""
    since: float = field(default_factory=time.monotonic)
    """When it came."""


class Stream:
    """A thread that decodes requests as they come."""

    def __init__(
        self,
        policy: Any,
        thread: ThreadPoolExecutor,
        live: Callable[[], int],
        *,
        min_batch: int,
        max_wait: float,
    ) -> None:
        """Take over how to decode; nothing runs until a request comes.

        Args:
            policy: A `TransformersPolicy`.
            thread: Runs the loop, one at a time.
            live: How many episodes could still send requests.
            min_batch: Requests that join together at least, unless
            max_wait: one of them has waited this many seconds.
        """
        self._policy, self._thread, self._live = policy, thread, live
        self._min_batch, self._max_wait = min_batch, max_wait
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._runs = False

    def submit(self, request: Request) -> None:
        """Let a request join as soon as there is reason to."""
        with self._changed:
            self._waiting.append(request)
            self._changed.notify()
            start, self._runs = not self._runs, True
        if start:
            self._thread.submit(self._work)

    def wake(self) -> None:
        """Look again: the number of live episodes has changed."""
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        """Decode until nothing waits and nothing runs."""
        rows: Decoding[Request] | None = None
        with torch.inference_mode():
            while (some := self._joining(rows)) is not None:
                began = time.perf_counter()
                try:
                    rows = Decoding(self._policy) if rows is None else rows
                    if some:
                        prompts, samplings = [r.prompt for r in some], [r.sampling for r in some]
                        rows.join(some, prompts, samplings)
                    done: list[Any] = list(rows.step())
                except Exception as error:
                    known = dict.fromkeys([*(rows.running if rows else ()), *some])
                    done, rows = [(request, error) for request in known], None
                self._policy.seconds += time.perf_counter() - began
                _settle(done)

    def _joining(self, rows: Decoding[Request] | None) -> list[Request] | None:
        """Take the requests that are to join now; `None` if nothing waits and nothing runs."""
        running = len(rows) if rows else 0
        with self._changed:
            while True:
                self._waiting = deque(r for r in self._waiting if not r.future.cancelled())
                if self._due(running) and (rows is None or rows.open):
                    free = self._policy.max_rows - running
                    return [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
                if running:
                    return []
                if not self._waiting:
                    self._runs = False
                    return None
                left = self._waiting[0].since + self._max_wait - time.monotonic()
                self._changed.wait(max(0.0, left))

    def _due(self, running: int) -> bool:
        count = len(self._waiting)
        if not count:
            return False
        late = time.monotonic() - self._waiting[0].since >= self._max_wait
        return count >= self._min_batch or late or (not running and count >= self._live())


def _settle(done: Sequence[tuple[Request, Completion | Exception]]) -> None:
    """Hand over results on the event loops of those who wait."""
    loops: dict[Any, list[tuple[Request, Completion | Exception]]] = {}
    for request, result in done:
        loops.setdefault(request.future.get_loop(), []).append((request, result))
    for loop, some in loops.items():
        with suppress(RuntimeError):  # it has ended: nobody waits any more
            loop.call_soon_threadsafe(_deliver, some)


def _deliver(done: Sequence[tuple[Request, Completion | Exception]]) -> None:
    for request, result in done:
        if request.future.done():
            continue
        if isinstance(result, Exception):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)
