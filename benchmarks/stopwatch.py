"""Wall time split over named parts that do not overlap and add up to the whole."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

PARTS: tuple[str, ...] = ("sampling", "verify", "learn", "other")
"""Drawing completions; scoring them; forward, backward and optimiser; everything else."""


class Stopwatch:
    """Books every moment to the innermost part that is open, else to `other`."""

    def __init__(self) -> None:
        """Start at once."""
        self._open = ["other"]
        self._parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._since = time.perf_counter()

    def _book(self) -> None:
        now = time.perf_counter()
        self._parts[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Book the body to a part; a part opened inside it is taken out of it."""
        self._book()
        self._open.append(name)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its calls booked to a part."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def lap(self) -> dict[str, float]:
        """Return the seconds by part since the last lap, and start anew."""
        self._book()
        parts, self._parts = self._parts, dict.fromkeys(PARTS, 0.0)
        return parts
