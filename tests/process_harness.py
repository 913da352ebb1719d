"""Waiting for what other processes do, with an end."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(holds: Callable[[], bool], patience: float = 20.0) -> None:
    """Look again and again until something holds."""
    end = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(pid: int, patience: float = 5.0) -> bool:
    """Return whether a process ends (or is a zombie that waits to be reaped) in time."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
