"""Any verifier behind a limit that holds: `isolated`, and `guarded` as training uses it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from .compose import Composite
from .errors import UsageError
from .protocol import Verifier, as_verdict, verify
from .registry import make
from .verdict import Verdict
from .workers import MEMORY, WorkerPool


class Isolated:
    """A verifier that runs in killable worker processes; made by `isolated`."""

    def __init__(self, verifier: Verifier, pool: WorkerPool) -> None:
        """Wrap a verifier; the pool calls it."""
        self.verifier = verifier
        self.pool = pool

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge one completion in a worker."""
        return self.pool.call(completion, truth, **context)

    async def acall(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge one completion in a worker, without blocking the event loop."""
        return await self.pool.acall(completion, truth, **context)

    def check_truth(self, truth: Any) -> None:
        """Check a truth as the verifier does, in this process."""
        check = getattr(self.verifier, "check_truth", None)
        if check is not None:
            check(truth)

    def close(self) -> None:
        """End the idle workers."""
        self.pool.close()

    def __repr__(self) -> str:
        """Show the verifier and the limit."""
        return f"isolated({self.verifier!r}, timeout={self.pool.timeout:g})"


def isolated(
    verifier: Verifier | str,
    timeout: float = 2.0,
    *,
    size: int | None = None,
    memory: int | None = MEMORY,
    late: Callable[[str], Verdict] = Verdict.timeout,
) -> Isolated:
    """Run any verifier in a process that is killed when a check takes too long.

    Args:
        verifier: A verifier, or the name of one; `async` ones too.
        timeout: Seconds of work per check.
        size: Worker processes at most; the number of cores if not given.
        memory: Bytes of address space per worker; `None` sets no limit.
        late: Makes the verdict of a check over the limit, from the reason: `Verdict.timeout` where
            that is the answer's fault, `Verdict.error` where it is the verifier's.

    Example:
        >>> checked = isolated("exact", timeout=1.0)
        >>> checked("4", "4").reward
        1.0
        >>> checked.close()
    """
    inner = make(verifier)
    name = getattr(inner, "name", type(inner).__name__)
    pool = WorkerPool(
        functools.partial(verify, inner),
        timeout=timeout,
        size=size,
        memory=memory,
        late=late,
        name=name,
    )
    return Isolated(inner, pool)


class Awaited:
    """An `async` verifier with a limit; it waits for others, so it stays in this process."""

    def __init__(self, verifier: Verifier, timeout: float) -> None:
        """Wrap a verifier; `timeout` in seconds."""
        self.verifier = verifier
        self.timeout = timeout

    async def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Judge one completion, or give up."""
        value = self.verifier(completion, truth, **context)
        if not inspect.isawaitable(value):
            return as_verdict(value)
        import asyncio

        try:
            return as_verdict(await asyncio.wait_for(value, self.timeout))
        except TimeoutError:
            return Verdict.error(f"the verifier gave no verdict within {self.timeout:g} s")


def guarded(verifier: Verifier, timeout: float) -> Verifier:
    """Put a verifier of unknown habits behind a limit, over which it is the verifier that failed.

    Verifiers of this project, and compositions of them, bound their own time and are returned as
    they are. An `async` one is given up after `timeout` seconds; any other one runs in worker
    processes that are killed, so what it remembers from call to call stays there.

    Raises:
        UsageError: It cannot be sent to a process (it holds a lock, a connection).

    Example:
        >>> math = make("math")
        >>> guarded(math, 1.0) is math
        True
    """
    if bounds_itself(verifier):
        return verifier
    function = getattr(verifier, "function", verifier)
    calls = (function, type(function).__call__)
    if any(inspect.iscoroutinefunction(call) for call in calls):
        return Awaited(verifier, timeout)
    try:
        import cloudpickle

        cloudpickle.dumps(verifier)
    except Exception as error:
        name = getattr(verifier, "name", type(verifier).__name__)
        raise UsageError(
            f"the verifier {name} cannot be sent to a process that could be killed "
            f"({type(error).__name__}: {error}); open what it holds in its first call, or make "
            "it `async`"
        ) from error
    return isolated(verifier, timeout, late=Verdict.error)


def bounds_itself(verifier: Any) -> bool:
    """Return whether a verifier is of this project, or composed of such: those keep their time."""
    if isinstance(verifier, Composite):
        return all(bounds_itself(component) for _, component, _ in verifier.components)
    home = getattr(verifier, "function", type(verifier)).__module__ or ""
    return home.partition(".")[0] == __name__.partition(".")[0]
