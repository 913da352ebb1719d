"""`rlvr/Arithmetic-v0`: what is `12 + 7`?

**Prompt** `12 + 7 = ?`; the template's holes: `{expression}` (`12 + 7`), `{compact}` (`12+7`).
**Truth** the value, an integer. **Verifier** `math`. **Difficulty** the number of terms, the range
of the numbers, the operators; by default sums of two numbers from 0 to 99.

The usual precedence holds: products before sums. A negative number stands in brackets. Problems
that differ in the order of summands or factors alone (`12 + 7`, `7 + 12`) are the same problem to
the split, so that none is trained on one way and tested the other.
"""

import math
from dataclasses import dataclass

import numpy as np

from ...verifiers import UsageError
from ..procedural import Problem, Procedural, Settings, check_range

OPERATORS = "+-*"


@dataclass(frozen=True, kw_only=True)
class ArithmeticSettings(Settings):
    """Difficulty of the sums.

    Example:
        `ArithmeticSettings(terms=3, digits=1, operators="+-")`
    """

    terms: int = 2
    """Numbers in the expression, from 1 to 20."""
    digits: int | None = None
    """Numbers from 0 to `10**digits - 1`, from 1 to 18 digits; instead of `low` and `high`."""
    low: int = 0
    """Smallest number."""
    high: int = 99
    """Largest number."""
    operators: str = "+"
    """Which of `+-*` may stand between two numbers, each equally likely."""
    prompt: str = "{expression} = ?"
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range, and turn `digits` into `low` and `high`."""
        super().__post_init__()
        check_range("terms", self.terms, 1, 20)
        if self.digits is not None:
            check_range("digits", self.digits, 1, 18)
            if (self.low, self.high) not in ((0, 99), (0, 10**self.digits - 1)):
                raise UsageError(
                    f"give digits={self.digits} or low={self.low} and high={self.high}, not both"
                )
            object.__setattr__(self, "low", 0)
            object.__setattr__(self, "high", 10**self.digits - 1)
        check_range("low", self.low, -(10**18), 10**18)
        check_range("high", self.high, self.low, 10**18)
        known = isinstance(self.operators, str) and set(self.operators) <= set(OPERATORS)
        if not known or not self.operators or len(set(self.operators)) < len(self.operators):
            raise UsageError(
                f"operators must be some of '{OPERATORS}', each once, got {self.operators!r}"
            )


class Arithmetic(Procedural[ArithmeticSettings]):
    """Sums, differences and products of whole numbers."""

    name = "arithmetic"
    Config = ArithmeticSettings
    fields = ("expression", "compact")

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draw the numbers and the operators between them."""
        config = self.config
        numbers = rng.integers(config.low, config.high, size=config.terms, endpoint=True).tolist()
        picks = rng.integers(len(config.operators), size=config.terms - 1).tolist()
        operators = [config.operators[pick] for pick in picks]
        products = _products(numbers, operators)
        shown = [str(number) if number >= 0 else f"({number})" for number in numbers]
        rest = list(zip(operators, shown[1:], strict=True))
        truth = sum(sign * math.prod(factors) for sign, factors in products)
        return Problem(
            fields={
                "expression": shown[0] + "".join(f" {op} {number}" for op, number in rest),
                "compact": shown[0] + "".join(f"{op}{number}" for op, number in rest),
            },
            canonical=str(sorted((sign, *sorted(factors)) for sign, factors in products)),
            truth=truth,
            solution=str(truth),
            metadata={
                "terms": config.terms,
                "difficulty": f"{max(len(str(abs(number))) for number in numbers)} digits",
            },
        )

    def space(self) -> int:
        """Count the expressions: numbers and operators are free choices."""
        config = self.config
        count = config.high - config.low + 1
        return count**config.terms * len(config.operators) ** (config.terms - 1)


def _products(numbers: list[int], operators: list[str]) -> list[tuple[int, list[int]]]:
    """Group an expression into signed products: `2 - 3 * 4` is `[(1, [2]), (-1, [3, 4])]`."""
    products = [(1, [numbers[0]])]
    for op, number in zip(operators, numbers[1:], strict=True):
        if op == "*":
            products[-1][1].append(number)
        else:
            products.append((1 if op == "+" else -1, [number]))
    return products
