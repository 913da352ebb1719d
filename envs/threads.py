"""A bounded pool of daemon threads.

`concurrent.futures` joins its threads when the interpreter ends, so that one verifier that never
returns keeps the process from ending; daemon threads do not.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from ..verifiers import WorkerError


def outcome(job: Callable[[], Any]) -> Any:
    """Run a job; an exception is its result, but for Ctrl-C."""
    try:
        return job()
    except KeyboardInterrupt:
        raise
    except Exception as error:
        return error
    except BaseException as error:
        return WorkerError(f"the environment ended its thread: {error!r}")


class Pool:
    """A bounded number of daemon threads; started when first needed.

    Calls that only wait, for a tool or a verifier's process, need a thread each; for calls of
    microseconds many threads are in each other's way, so that those get a few.
    """

    def __init__(self, threads: int, few: int | None = None) -> None:
        self.limit, self.few = threads, threads if few is None else min(few, threads)
        self.process = os.getpid()
        self.threads: list[threading.Thread] = []
        self.jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, job: Callable[[], None], *, slow: bool = True) -> None:
        """Run a job soon; at once, in this thread, if there are to be none."""
        if self.limit == 0:
            job()
            return
        if self.process != os.getpid():
            # A fork copies the queue but not the threads: start anew instead of waiting for them.
            self.__init__(self.limit, self.few)
        self.jobs.put(job)
        if len(self.threads) < (self.limit if slow else self.few):
            name = f"rlvr-envs-{len(self.threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self.threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            job()
            # An idle thread that still held its last job would keep the environments alive.
            del job

    def close(self, seconds: float) -> int:
        """Drop jobs not begun and end the threads; return how many are still at work then."""
        with contextlib.suppress(queue.Empty):
            while True:
                self.jobs.get_nowait()
        for _ in self.threads:
            self.jobs.put(None)
        end = time.monotonic() + seconds
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
        alive = sum(thread.is_alive() for thread in self.threads)
        self.threads = []
        return alive
