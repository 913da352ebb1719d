"""`rlvr/Calculator-v0`: a chain of formulas with large numbers, and a calculator.

**Prompt** formulas `a = 4821 * 37 + 991`, `b = (a - 12) * 806`, …, and the question what the last
one is; the template's holes are `{formulas}` and `{last}`. **Truth** the value, an integer.
**Verifier** `number`. **Difficulty** how many formulas, and how many digits their numbers have.

**Tool** `calculate(expression)`: three numbers at most in one expression, so that each formula
needs a call of its own, with what the one before it brought. Expressions are read by the reader of
the math verifier, with caps, and never evaluated as Python: digits, `+ - * / ^` and brackets.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...verifiers import Task, UsageError
from ...verifiers.mathematics import TooLarge, Unreadable
from ..procedural import Problem, Procedural, Settings, check_range
from ..tools.shipped import ShippedToolEnv

MAX_NUMBERS = 3
"""Numbers in an expression: one formula of the prompt."""
MAX_CHARS = 400
"""Characters of an expression: two of its numbers are short."""
MAX_DIGITS = 280
"""Digits of a value, a little under what the reader reads back."""
_PLAIN = re.compile(r"[0-9.,+\-*/^() ×÷·−]*")
_NUMBER = re.compile(r"[0-9][0-9.,]*|\.[0-9]+")


@dataclass(frozen=True, kw_only=True)
class CalculatorSettings(Settings):
    """Difficulty.

    Example:
        `CalculatorSettings(steps=6, digits=5)`
    """

    steps: int = 4
    """How many formulas, from 2 to 12."""
    digits: int = 4
    """Digits of their numbers, from 1 to 12."""
    prompt: str = "{formulas}\n\nWhat is {last}?"
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("steps", self.steps, 2, 12)
        check_range("digits", self.digits, 1, 12)


class Calculator(Procedural[CalculatorSettings]):
    """Formulas of two operations, each on the value of the one before it."""

    name = "calculator"
    Config = CalculatorSettings
    fields = ("formulas", "last")

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw the formulas; one operation of each is a product, so that values grow."""
        config = self.config
        low, high = 10 ** (config.digits - 1), 10**config.digits
        numbers = rng.integers(low, high, size=2 * config.steps + 1).tolist()
        value, name = numbers.pop(), ""
        formulas = []
        for step, shape in enumerate(rng.integers(4, size=config.steps).tolist()):
            x, y = numbers[2 * step], numbers[2 * step + 1]
            formulas.append(_SHAPES[shape].format(v=name or value, x=x, y=y))
            value = _value(shape, value, x, y)
            name = chr(ord("a") + step)
        if value == 0:
            return None  # the first guess of whoever guesses
        lines = [f"{chr(ord('a') + i)} = {formula}" for i, formula in enumerate(formulas)]
        return Problem(
            fields={"formulas": "\n".join(lines), "last": name},
            canonical="; ".join(lines),
            truth=value,
            solution=str(value),
            metadata={"formulas": formulas},
        )


_SHAPES = ("{v} * {x} + {y}", "{v} * {x} - {y}", "({v} + {x}) * {y}", "({v} - {x}) * {y}")


def _value(shape: int, value: int, x: int, y: int) -> int:
    if shape < 2:
        return value * x + (y if shape == 0 else -y)
    return (value + (x if shape == 2 else -x)) * y


def calculate(expression: str) -> str:
    """Work out an arithmetic expression exactly.

    Args:
        expression: Numbers, + - * / ^ and brackets; at most three numbers: "(48213 - 77) * 9120".
    """
    if len(expression) > MAX_CHARS:
        raise UsageError(
            f"the expression has {len(expression)} characters; at most {MAX_CHARS} are read"
        )
    if not _PLAIN.fullmatch(expression):
        raise UsageError("an expression has digits, + - * / ^ and brackets, and nothing else")
    if len(_NUMBER.findall(expression)) > MAX_NUMBERS:
        raise UsageError(f"at most {MAX_NUMBERS} numbers in one expression; use several calls")
    return _shown(_read(expression))


def _read(expression: str) -> Fraction:
    """Return the exact value of an expression.

    Raises:
        UsageError: It has none, or is not read.
    """
    from ...verifiers.mathematics.nodes import Number
    from ...verifiers.mathematics.rational import fold
    from ...verifiers.mathematics.reader import read

    try:
        node = fold(read(expression))
    except (TooLarge, Unreadable) as error:
        raise UsageError(f"the expression is not read: {error}") from None
    if not isinstance(node, Number):
        raise UsageError("the expression is not one number that can be written out")
    return node.value


def _shown(value: Fraction) -> str:
    top, bottom = value.numerator, value.denominator
    if max(top.bit_length(), bottom.bit_length()) > MAX_DIGITS * 3.3:
        raise UsageError(f"the value has more than about {MAX_DIGITS} digits")
    return str(top) if bottom == 1 else f"{top}/{bottom}"


class CalculatorEnv(ShippedToolEnv[None]):
    """A chat with a calculator."""

    TOOLS = (calculate,)
    TURNS = 16
    EXAMPLE = ("calculate", {"expression": "(48213 - 77) * 9120"})

    def solve(self, task: Task) -> Iterator[str]:
        """Work out one formula after the other."""
        value = ""
        for step, formula in enumerate(task.metadata["formulas"]):
            before = chr(ord("a") + step - 1)
            expression = formula.replace(before, f"{value}") if step else formula
            value = yield self.call("calculate", expression=expression)
        yield f"<answer>{value}</answer>"
