"""One piece of logic for threads and event loops: a generator that yields what it waits for."""

import asyncio
import contextlib
import select
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")

IN = select.POLLIN
OUT = select.POLLOUT


@dataclass(frozen=True, slots=True)
class Wait:
    """Until a descriptor is ready, or a time of the monotonic clock has come."""

    fd: int
    events: int
    deadline: float


Steps = Generator[Wait, bool, Result]
"""Logic that yields waits, is sent whether the descriptor was ready in time, and returns."""


def drive(steps: "Steps[Result]") -> Result:
    """Run the logic in this thread."""
    try:
        wait = next(steps)
        while True:
            poll = select.poll()
            poll.register(wait.fd, wait.events)
            left = max(0.0, wait.deadline - time.monotonic())
            wait = steps.send(bool(poll.poll(min(left, 1e6) * 1000 + 0.5)))
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


async def adrive(steps: "Steps[Result]") -> Result:
    """Run the logic in this event loop; a cancellation closes the generator."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(await _ready(wait))
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


async def _ready(wait: Wait) -> bool:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def settle(value: bool) -> None:
        if not done.done():
            done.set_result(value)

    add: Any = loop.add_reader if wait.events == IN else loop.add_writer
    remove = loop.remove_reader if wait.events == IN else loop.remove_writer
    timer = loop.call_at(loop.time() + max(0.0, wait.deadline - time.monotonic()), settle, False)
    add(wait.fd, settle, True)
    try:
        return await done
    finally:
        timer.cancel()
        with contextlib.suppress(OSError, ValueError):
            remove(wait.fd)
