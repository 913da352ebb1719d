"""The outer walls: what a server puts around itself, and readies for the runs, before the first."""

import _signal  # pyright: ignore[reportMissingImports]
import errno
import os
import sys

from . import child, kernel, root, seccomp, wire
from .flat import Fence, drop_root
from .rooms import Rooms


def filters(pid: int, tier: str) -> dict:
    """Assemble the filter for each choice of permissions that the tier offers."""
    choices = {0: (False, False)}
    if tier == "ns":
        choices[wire.PROCESSES] = (True, False)
        choices[wire.SOCKETS] = (False, True)
        choices[wire.PROCESSES | wire.SOCKETS] = (True, True)
    made = {
        flags: seccomp.assemble(
            kernel.MACHINE, pid, processes=processes, sockets=sockets, flat=tier == "flat"
        )
        for flags, (processes, sockets) in choices.items()
    }
    if tier == "flat":  # a run's own process id is still to be put in
        return made
    return {flags: kernel.Filter.of(program) for flags, program in made.items()}


def prepare(settings: dict, proc: int) -> child.Walls:
    """Move this process behind the outer walls of the tier; in `ns` it returns in a child."""
    tier = settings["tier"]
    fence = None
    if tier == "ns":
        root.enter(settings["places"], settings["uid"], proc)
        become_first()
    elif tier == "flat":
        if not kernel.landlock_abi():
            raise OSError(errno.EOPNOTSUPP, "Landlock is not there or not active")
        if os.geteuid() == 0 and settings["uid"]:
            drop_root(settings["uid"], settings["places"]["coarse"][0])
        fence = Fence(settings["places"], settings["base"])
    own = 1 if tier == "ns" else int.from_bytes(child.PID_MARK, sys.byteorder)
    rooms = Rooms(proc) if tier == "ns" else None
    return child.Walls(tier, fence, rooms, {} if tier == "none" else filters(own, tier))


def become_first() -> None:
    """Go on as the first process of the new namespace; the parent waits for it to end."""
    if pid := os.fork():
        for fd in range(3, 64):
            try:
                os.close(fd)
            except OSError:
                continue
        os.waitpid(pid, 0)
        os._exit(0)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, _signal.SIGKILL)


def preload(names: list, path: str) -> list:
    """Import modules before any fork; returns those that could not be."""
    if path:
        sys.path.insert(0, path)
    missing = []
    for name in names:
        try:
            __import__(name)
        except Exception as error:
            missing.append(f"{name}: {type(error).__name__}: {error}")
    return missing
