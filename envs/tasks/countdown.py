"""`rlvr/Countdown-v0`: reach 24 from the numbers 3, 4, 5, 7.

**Prompt** the numbers and the target; the template's holes are `{numbers}` and `{target}`.
**Truth** `{"numbers": [3, 4, 5, 7], "target": 24}`. **Verifier** `reaches_target`. **Difficulty**
how many numbers, how large, which operators, and the range of the target.

The rules: an expression with `+ - * /` and brackets whose exact value is the target. Each given
number may be used at most once; not all of them need be used, and no other number may be. Values on
the way may be negative or fractions. The target is never one of the numbers.

The answer is what stands in `<answer>…</answer>`, else in `\\boxed{}`, after `####` or after "the
answer is", else the whole completion; `= 24` may follow the expression if 24 is the target. The
expression is read by the parser below, with caps, and never evaluated as Python: numbers are
digits, there is no power, no factorial, no sign before a number, and nothing is implied (`2(3)` is
not read).
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ...verifiers import TaskError, UsageError, Verdict
from ...verifiers.extract import extract
from ..procedural import Problem, Procedural, Settings, check_range

OPERATORS = "+-*/"
MAX_CHARS = 500
"""Characters of an expression: twenty numbers with every bracket need fewer."""
MAX_DIGITS = 12
"""Digits of a number; the settings allow nine."""
MAX_DEPTH = 40
"""Brackets in brackets: each level is two calls of the parser."""
WHERE = ("tag", "boxed", "hash", "answer_is", "whole")
"""Where the answer may stand, in this order."""


@dataclass(frozen=True, kw_only=True)
class CountdownSettings(Settings):
    """Difficulty.

    Example:
        `CountdownSettings(count=3, high=10, operators="+-")`
    """

    count: int = 4
    """How many numbers, from 2 to 20."""
    low: int = 1
    """Smallest number, at least 1."""
    high: int = 20
    """Largest number."""
    target_low: int = 10
    """Smallest target, at least 1."""
    target_high: int = 100
    """Largest target."""
    operators: str = OPERATORS
    """Which operators the hidden solution may use; the answer may use all four."""
    prompt: str = (
        "Using the numbers {numbers}, each at most once, and the operations + - * / with brackets, "
        "write an expression that equals {target}."
    )
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("count", self.count, 2, 20)
        check_range("low", self.low, 1)
        check_range("high", self.high, self.low, 10**9 - 1)
        check_range("target_low", self.target_low, 1)
        check_range("target_high", self.target_high, self.target_low, 10**12 - 1)
        known = isinstance(self.operators, str) and set(self.operators) <= set(OPERATORS)
        if not known or not self.operators or len(set(self.operators)) < len(self.operators):
            raise UsageError(
                f"operators must be some of '{OPERATORS}', each once, got {self.operators!r}"
            )


class Countdown(Procedural[CountdownSettings]):
    """Numbers and a target that is reached by construction."""

    name = "countdown"
    Config = CountdownSettings
    fields = ("numbers", "target")

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw numbers and join two at a time until a value is in the target's range."""
        config = self.config
        numbers = rng.integers(config.low, config.high, size=config.count, endpoint=True).tolist()
        parts = [(number, str(number)) for number in numbers]
        for first, second, third in rng.random((config.count - 1, 3)).tolist():
            left = parts.pop(int(first * len(parts)))
            right = parts.pop(int(second * len(parts)))
            joined = [(op, _joined(left[0], right[0], op)) for op in config.operators]
            possible = [(op, value) for op, value in joined if value is not None]
            if not possible:
                return None
            op, value = possible[int(third * len(possible))]
            parts.append((value, f"({left[1]} {op} {right[1]})"))
        target, solution = parts[0]
        if not config.target_low <= target <= config.target_high or target in numbers:
            return None
        return Problem(
            fields={"numbers": ", ".join(map(str, numbers)), "target": str(target)},
            canonical=f"{sorted(numbers)} {target}",
            truth={"numbers": numbers, "target": target},
            solution=solution[1:-1],
            metadata={"count": config.count},
        )


def _joined(left: int, right: int, op: str) -> int | None:
    """Return `left op right`, or `None` if it is no positive integer."""
    if op == "/":
        return left // right if left % right == 0 else None
    value = {"+": left + right, "-": left - right, "*": left * right}[op]
    return value if value > 0 else None


class Unreadable(Exception):
    """The text is no expression of the game."""


_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+)|(?P<op>[-+*/()]))")


def evaluate(text: str) -> tuple[Fraction, list[int]]:
    """Return the exact value of an expression, and the numbers that stand in it.

    Args:
        text: Digits, `+ - * /` and brackets.

    Raises:
        Unreadable: It is no such expression, is over a cap, or divides by zero.

    Example:
        >>> evaluate("(7 - 3) * (5 + 1)")
        (Fraction(24, 1), [7, 3, 5, 1])
    """
    if len(text) > MAX_CHARS:
        raise Unreadable(f"more than {MAX_CHARS} characters")
    tokens: list[str] = []
    end = 0
    text = text.strip()
    while end < len(text):
        match = _TOKEN.match(text, end)
        if match is None:
            raise Unreadable(f"{text[end:].strip()[:20]!r} is no number, operator or bracket")
        if len(match["number"] or "") > MAX_DIGITS:
            raise Unreadable(f"a number of more than {MAX_DIGITS} digits")
        tokens.append(match["number"] or match["op"])
        end = match.end()
    parser = _Parser(tokens)
    value = parser.sum(0)
    if parser.at < len(tokens):
        raise Unreadable(f"{tokens[parser.at]!r} where the expression should end")
    return value, [int(token) for token in tokens if token.isdigit()]


class _Parser:
    """Recursive descent: a sum of products of numbers and brackets."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def take(self, wanted: str) -> str:
        """Take the next token if it is one of the characters `wanted`."""
        token = self.tokens[self.at] if self.at < len(self.tokens) else ""
        if not token or token not in wanted:
            return ""
        self.at += 1
        return token

    def sum(self, depth: int) -> Fraction:
        """Read a sum."""
        value = self.product(depth)
        while op := self.take("+-"):
            term = self.product(depth)
            value = value + term if op == "+" else value - term
        return value

    def product(self, depth: int) -> Fraction:
        """Read a product."""
        value = self.atom(depth)
        while op := self.take("*/"):
            factor = self.atom(depth)
            if op == "/" and factor == 0:
                raise Unreadable("division by zero")
            value = value * factor if op == "*" else value / factor
        return value

    def atom(self, depth: int) -> Fraction:
        """Read a number or a bracket."""
        if self.take("("):
            if depth >= MAX_DEPTH:
                raise Unreadable(f"brackets more than {MAX_DEPTH} deep")
            value = self.sum(depth + 1)
            if not self.take(")"):
                raise Unreadable("a bracket that does not close")
            return value
        token = self.tokens[self.at] if self.at < len(self.tokens) else "the end"
        if not token.isdigit():
            raise Unreadable(f"{token!r} where a number should stand")
        self.at += 1
        return Fraction(int(token))


class ReachesTarget:
    """Judges an expression: right value, each given number at most once, no other number."""

    def check_truth(self, truth: Any) -> None:
        """Refuse a truth without numbers and target.

        Raises:
            TaskError: It has none.
        """
        numbers = truth.get("numbers") if isinstance(truth, Mapping) else None
        target = truth.get("target") if isinstance(truth, Mapping) else None
        if not isinstance(numbers, list | tuple) or not all(map(_is_int, [*numbers, target])):
            raise TaskError(
                f"the truth is {{'numbers': [integers], 'target': integer}}, got {truth!r:.100}"
            )

    def __call__(self, completion: str, truth: Any, **context: Any) -> Verdict:
        """Read the expression and count its numbers."""
        self.check_truth(truth)
        answer = extract(completion, WHERE)
        if answer is None:
            return Verdict.unparsed("no answer")
        expression, equals, right = answer[: MAX_CHARS + 1].partition("=")
        shown = answer[:100]
        try:
            value, used = evaluate(expression)
        except Unreadable as error:
            return Verdict.unparsed(str(error), answer=shown)
        if equals and right.strip() != str(truth["target"]):
            return Verdict.wrong(answer=shown, reason=f"the right side is not {truth['target']}")
        if value != truth["target"]:
            return Verdict.wrong(answer=shown, reason=f"the value is {str(value)[:50]}")
        extra = Counter(used) - Counter(truth["numbers"])
        if extra:
            many = ", ".join(map(str, sorted(extra)))
            return Verdict.wrong(answer=shown, reason=f"not given, or used too often: {many}")
        return Verdict.correct(answer=shown)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


reaches_target = ReachesTarget()
