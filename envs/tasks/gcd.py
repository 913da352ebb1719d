"""`rlvr/GCD-v0`: what is the greatest common divisor of 12 and 18?

**Prompt** the question; the template's hole is `{numbers}` (`12 and 18`). **Truth** the divisor, an
integer. **Verifier** `math`. **Difficulty** how many numbers and how large.

Half of the problems are drawn as multiples of a common factor: of two random numbers six in ten
have no divisor in common, and "1" would be a good guess. The order of the numbers does not matter
to the split.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..procedural import Problem, Procedural, Settings, check_range


@dataclass(frozen=True, kw_only=True)
class GCDSettings(Settings):
    """Difficulty.

    Example:
        `GCDSettings(count=3, high=1000)`
    """

    count: int = 2
    """How many numbers, from 2 to 10."""
    low: int = 2
    """Smallest number, at least 1."""
    high: int = 100
    """Largest number."""
    prompt: str = "What is the greatest common divisor of {numbers}?"
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("count", self.count, 2, 10)
        check_range("low", self.low, 1)
        check_range("high", self.high, self.low, 10**18)


class GCD(Procedural[GCDSettings]):
    """Greatest common divisors."""

    name = "gcd"
    Config = GCDSettings
    fields = ("numbers",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw the numbers, every other time as multiples of a common factor."""
        config = self.config
        factor = int(rng.integers(1, config.high, endpoint=True)) if rng.random() < 0.5 else 1
        low, high = -(-config.low // factor), config.high // factor
        if low > high:
            return None
        drawn = rng.integers(low, high, size=config.count, endpoint=True).tolist()
        numbers = [factor * number for number in drawn]
        truth = math.gcd(*numbers)
        shown = [str(number) for number in numbers]
        return Problem(
            fields={"numbers": f"{', '.join(shown[:-1])} and {shown[-1]}"},
            canonical=str(sorted(numbers)),
            truth=truth,
            solution=str(truth),
            metadata={"magnitude": max(numbers)},
        )

    def space(self) -> int:
        """Count the tuples of numbers."""
        return (self.config.high - self.config.low + 1) ** self.config.count
