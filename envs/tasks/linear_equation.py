"""`rlvr/LinearEquation-v0`: solve 3x + 5 = 20 for x.

**Prompt** `Solve for x: 3x + 5 = 20`; the template's hole is `{equation}`. **Truth** the solution:
an integer, or a fraction in lowest terms as text (`"-7/3"`). **Verifier** `math` (`5` and `x = 5`).
**Difficulty** the ranges of the coefficients, and whether the solution may be a fraction.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...verifiers import UsageError
from ..procedural import Problem, Procedural, Settings, check_range


@dataclass(frozen=True, kw_only=True)
class LinearEquationSettings(Settings):
    """Difficulty: the equation is a x + b = c.

    Example:
        `LinearEquationSettings(max_coefficient=20, rational=True)`
    """

    max_coefficient: int = 9
    """|a| at most, at least 1."""
    max_constant: int = 20
    """|b| at most; |c| too if the solution may be a fraction."""
    max_solution: int = 10
    """|x| at most; not used if the solution may be a fraction."""
    rational: bool = False
    """Whether the solution may be a fraction: then c is drawn instead of x."""
    prompt: str = "Solve for x: {equation}"
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("max_coefficient", self.max_coefficient, 1, 10**9)
        check_range("max_constant", self.max_constant, 0, 10**9)
        check_range("max_solution", self.max_solution, 0, 10**9)
        if not isinstance(self.rational, bool):
            raise UsageError(f"rational must be true or false, got {self.rational!r}")


class LinearEquation(Procedural[LinearEquationSettings]):
    """Equations of the first degree in one unknown."""

    name = "linear-equation"
    Config = LinearEquationSettings
    fields = ("equation",)

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draw a, b, and x (or c, where x may be a fraction)."""
        config = self.config
        a = int(rng.integers(1, config.max_coefficient, endpoint=True))
        a = a if rng.random() < 0.5 else -a
        b = _symmetric(rng, config.max_constant)
        if config.rational:
            c = _symmetric(rng, config.max_constant)
        else:
            c = a * _symmetric(rng, config.max_solution) + b
        x = Fraction(c - b, a)
        truth = int(x) if x.denominator == 1 else str(x)
        left = {1: "x", -1: "-x"}.get(a, f"{a}x")
        constant = "" if b == 0 else f" {'+' if b > 0 else '-'} {abs(b)}"
        return Problem(
            fields={"equation": f"{left}{constant} = {c}"},
            canonical=f"{a}x+{b}={c}",
            truth=truth,
            solution=f"x = {truth}",
        )

    def space(self) -> int:
        """Count the choices of a, b and x (or c): different ones give different equations."""
        config = self.config
        third = config.max_constant if config.rational else config.max_solution
        return 2 * config.max_coefficient * (2 * config.max_constant + 1) * (2 * third + 1)


def _symmetric(rng: np.random.Generator, limit: int) -> int:
    return int(rng.integers(-limit, limit, endpoint=True))
