"""The pool of this process, and the two functions that use it."""

import os
import threading
from typing import Any

from .outcome import Outcome
from .pool import Pool

_shared: Pool | None = None
_LOCK = threading.Lock()


def shared() -> Pool:
    """The pool of this process, over all cores, made when first asked for."""
    global _shared
    with _LOCK:
        if _shared is None or _shared.closed:
            _shared = Pool()
        return _shared


def run(program: str | bytes, **given: Any) -> Outcome:
    """Run a program in the shared pool; takes what `Pool.run` takes.

    Example:
        >>> run("print(input()[::-1])", stdin=b"abc").text
        'cba\\n'
    """
    return shared().run(program, **given)


async def arun(program: str | bytes, **given: Any) -> Outcome:
    """Run a program in the shared pool without blocking the event loop."""
    return await shared().arun(program, **given)


def _after_fork() -> None:
    """The lock may have been held by a thread that is not in the child."""
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
