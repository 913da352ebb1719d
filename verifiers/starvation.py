"""Whose fault a slow call is: the work's, or the machine's load.

A limit in seconds is meant for the work. Read at the deadline from /proc: how long the process ran,
how long it was ready to run and waited for a core, and whether it sleeps. What it waited for a core
does not count, so that the same verdict comes out on an idle and on an oversubscribed machine.
"""

import contextlib
import os
from dataclasses import dataclass
from typing import Literal

OWN_SHARE = 0.5
"""Share of the limit that a running process must have used for the limit to be its own fault."""
PATIENCE = 3.0
"""After this multiple of the limit outside any queue, a running process is taken to be at fault."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far, in seconds.

    Example:
        `Usage(cpu=0.98, queued=0.01, state="R")`
    """

    cpu: float
    """Time on a core, user and system, all threads."""
    queued: float
    """Time ready to run without a core (main thread); 0 where the kernel does not say."""
    state: str
    """R running, S sleeping, D waiting for a disk, T stopped, Z dead."""


def usage(pid: int) -> Usage | None:
    """Read what a process has used; `None` where there is no /proc or no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])
    queued = 0.0
    with (
        contextlib.suppress(OSError, IndexError, ValueError),
        open(f"/proc/{pid}/schedstat", "rb") as file,
    ):
        queued = int(file.read().split()[1]) * 1e-9
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), queued, fields[0].decode("ascii"))


Blame = Literal["work", "load", "stopped"]


def blame(wall: float, limit: float, before: Usage | None, now: Usage | None) -> Blame:
    """Say why a call has not ended.

    Args:
        wall: Seconds since dispatch.
        limit: Seconds that the work may take.
        before: Usage at about the time of dispatch.
        now: Usage now.

    Returns:
        `"work"`: it had its time. `"load"`: it waited for a core and may yet end. `"stopped"`: it
        was halted from outside and will not go on.

    Example:
        >>> idle = Usage(cpu=0.0, queued=0.0, state="R")
        >>> blame(1.0, 1.0, idle, Usage(cpu=0.97, queued=0.02, state="R"))
        'load'
        >>> blame(1.05, 1.0, idle, Usage(cpu=1.0, queued=0.02, state="R"))
        'work'
    """
    if before is None or now is None:
        return "work"
    if now.state in ("T", "t"):
        return "stopped"
    own = wall - (now.queued - before.queued)
    if own < limit:
        return "load"
    if now.state in ("S", "Z", "X", "I") or now.cpu - before.cpu >= OWN_SHARE * limit:
        return "work"
    # ready or waiting for a disk, with little to show for it: a host that steals cores, or swaps
    return "work" if own >= PATIENCE * limit else "load"
