"""Any verifier behind a limit that holds: `isolated(verifier)`."""

import functools
from typing import Any

from .protocol import Verifier, verify
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
) -> Isolated:
    """Run any verifier in a process that is killed when a check takes too long.

    Args:
        verifier: A verifier, or the name of one; `async` ones too.
        timeout: Seconds of work per check.
        size: Worker processes at most; the number of cores if not given.
        memory: Bytes of address space per worker; `None` sets no limit.

    Example:
        >>> checked = isolated("exact", timeout=1.0)
        >>> checked("4", "4").reward
        1.0
        >>> checked.close()
    """
    inner = make(verifier)
    name = getattr(inner, "name", type(inner).__name__)
    pool = WorkerPool(
        functools.partial(verify, inner), timeout=timeout, size=size, memory=memory, name=name
    )
    return Isolated(inner, pool)
