"""How often each level is passed, lately, and which one to pose next.

Kept apart from the transform because many environments of a run share one: a lock guards it, and a
copy of it is itself, so that environments made again from a spec go on sharing.
"""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...verifiers import UsageError
from .transform import finite

Counts = tuple[float, float]
"""Passed and failed, older outcomes counting less."""


class PassRates:
    """Running pass rates by level, and a choice of the level nearest to a target rate.

    Of level ℓ, sₗ and fₗ count what was passed and failed; each outcome first multiplies both by
    1 − 1/memory. The choice is Thompson's: draw p̃ₗ ~ Beta(1 + sₗ, 1 + fₗ) for every level and
    take the one with the smallest |p̃ₗ − target|. A level that was never posed may have any rate,
    and is tried soon.

    Example:
        >>> rates = PassRates(target=0.5)
        >>> for _ in range(40):
        ...     rates.record("hard", False); rates.record("easy", True)
        ...     rates.record("fair", _ % 2 == 0)
        >>> rng = np.random.default_rng(0)
        >>> [rates.choose(["easy", "fair", "hard"], rng) for _ in range(5)]
        [1, 1, 1, 1, 1]
    """

    def __init__(self, *, target: float = 0.5, memory: float = 50.0, learning: bool = True) -> None:
        """Begin with no outcomes.

        Args:
            target: The wanted pass rate, in [0, 1]. At a half, rewards of 0 and 1 vary most.
            memory: How many outcomes of a level an estimate rests on, at least 1.
            learning: Whether outcomes are counted; without, the rates stay as loaded.

        Raises:
            UsageError: An option is out of range.
        """
        self.target = finite("target", target, "in [0, 1]", 0, 1)
        self.memory = finite("memory", memory, "a number from 1 up", 1, 1e12)
        self.learning = learning
        self._counts: dict[str, Counts] = {}
        self._lock = threading.Lock()

    def record(self, level: str, passed: bool) -> None:
        """Count an outcome."""
        if not self.learning:
            return
        with self._lock:
            kept = 1 - 1 / self.memory
            right, wrong = self._counts.get(level, (0.0, 0.0))
            self._counts[level] = (kept * right + passed, kept * wrong + (not passed))

    def rate(self, level: str) -> float:
        """Return the estimate of a level's pass rate: (1 + s) / (2 + s + f); a half if unknown."""
        right, wrong = self._counts.get(level, (0.0, 0.0))
        return (1 + right) / (2 + right + wrong)

    def rates(self) -> dict[str, float]:
        """Return the estimates of all levels that were posed, for metrics."""
        return {level: self.rate(level) for level in sorted(self._counts)}

    def choose(self, levels: Sequence[str], rng: np.random.Generator) -> int:
        """Return which of the levels to pose next."""
        with self._lock:
            counts = np.array([self._counts.get(level, (0.0, 0.0)) for level in levels])
        drawn = rng.beta(1 + counts[:, 0], 1 + counts[:, 1])
        return int(np.argmin(np.abs(drawn - self.target)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the counts as JSON; the file is whole at every moment."""
        with self._lock:
            state = {"counts": {level: list(both) for level, both in self._counts.items()}}
        part = Path(f"{os.fspath(path)}.{os.getpid()}.part")
        part.write_text(json.dumps(state))
        part.replace(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read what `save` wrote, in place of what is known.

        Raises:
            UsageError: There is no such file, or it holds something else.
        """
        try:
            counts = json.loads(Path(path).read_text())["counts"]
            read = {str(level): (float(s), float(f)) for level, (s, f) in counts.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"'{path}' holds no pass rates of PassRates.save: {error!r}"
            ) from error
        if not all(0 <= s < np.inf and 0 <= f < np.inf for s, f in read.values()):
            raise UsageError(f"'{path}': counts must be finite and not negative")
        with self._lock:
            self._counts = read

    def __deepcopy__(self, memo: dict[int, Any]) -> "PassRates":
        """Be shared by copies: a spec's copy of a wrapper learns with the others."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Travel to another process without the lock; there, the rates part ways."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in another process."""
        vars(self).update(state)
        self._lock = threading.Lock()
