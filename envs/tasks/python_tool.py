"""`rlvr/PythonTool-v0`: a question about a range of numbers, and a Python interpreter.

**Prompt** the question; the template's hole is `{question}`. **Truth** the number. **Verifier**
`number`. **Difficulty** the size of the ranges (`high`).

**Tool** `python(code)`: every call is a run of its own in the program sandbox: nothing is kept from
one to the next, and the policy sees what was printed, and the end of the errors. Limits of a run
stand in `LIMITS`. A failure of the sandbox makes the episode unscored.

Truths are computed here by functions of ours, not by running the solver's programs.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...verifiers import Task
from ...verifiers.sandbox import Ended, Limits, SandboxError, shared
from ..procedural import Problem, Procedural, Settings, check_range
from ..selection import side
from ..tools.shipped import ShippedToolEnv

LIMITS = Limits(cpu=5.0, wall=10.0, memory=512 << 20, output=64 << 10, disk=8 << 20)
"""What one run may use."""
SHOWN_ERROR = 1000
"""Characters of the end of the errors."""
LEAST = 100
"""The smallest answer, so that guessing small numbers earns nothing."""


@dataclass(frozen=True)
class Form:
    """One form of question: `a` to `b` is the range, `m` and `r` are small; in words and program
    `h` is a hundredth of `b`, `w` a twentieth.

    Example:
        `FORMS[0].words` is "What is the sum of all integers n from {a} to {b} …".
    """

    words: str
    """The question."""
    program: str
    """A program that prints the answer."""
    value: Callable[[int, int, int, int], int]
    """The answer, from a, b, m, r."""


def _digits(n: int) -> int:
    return sum(map(int, str(n)))


def _divisors(n: int) -> int:
    root = math.isqrt(n)
    return 2 * sum(n % d == 0 for d in range(1, root + 1)) - (root * root == n)


def _is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def _partitions(total: int, most: int) -> int:
    ways = [1] + [0] * total
    for part in range(1, most + 1):
        for n in range(part, total + 1):
            ways[n] += ways[n - part]
    return ways[total]


FORMS = (
    Form("What is the sum of all integers n from {a} to {b} whose digit sum leaves the remainder "
         "{r} when divided by {m}?",
         "print(sum(n for n in range({a}, {b} + 1) if sum(map(int, str(n))) % {m} == {r}))",
         lambda a, b, m, r: sum(n for n in range(a, b + 1) if _digits(n) % m == r)),
    Form("What is the sum of all integers n from {a} to {b} for which n² + n + {r} is divisible by "
         "{m}?",
         "print(sum(n for n in range({a}, {b} + 1) if (n * n + n + {r}) % {m} == 0))",
         lambda a, b, m, r: sum(n for n in range(a, b + 1) if (n * n + n + r) % m == 0)),
    Form("What is the sum of all primes p from {a} to {b} that leave the remainder {r} when "
         "divided by {m}?",
         "print(sum(p for p in range({a}, {b} + 1) if p % {m} == {r} and p > 1\n"
         "          and all(p % d for d in range(2, int(p ** 0.5) + 1))))",
         lambda a, b, m, r: sum(p for p in range(a, b + 1) if p % m == r and _is_prime(p))),
    Form("How many pairs of integers x < y from {m} to {h} are there with gcd(x, y) = 1?",
         "from math import gcd\n"
         "print(sum(gcd(x, y) == 1 for y in range({m}, {h} + 1) for x in range({m}, y)))",
         lambda a, b, m, r: sum(
             math.gcd(x, y) == 1 for y in range(m, b // 100 + 1) for x in range(m, y))),
    Form("In how many ways is {w} a sum of positive integers that are at most {m}, where the "
         "order does not matter?",
         "t = {w}\nways = [1] + [0] * t\nfor part in range(1, {m} + 1):\n"
         "    for n in range(part, t + 1):\n        ways[n] += ways[n - part]\nprint(ways[t])",
         lambda a, b, m, r: _partitions(b // 20, m)),
    Form("What is the sum of all integers n from {a} to {a} + 1000 whose number of positive "
         "divisors leaves the remainder {r} when divided by {m}?",
         "def divisors(n):\n    return sum(2 - (d * d == n) for d in range(1, int(n ** 0.5) + 1) "
         "if n % d == 0)\n"
         "print(sum(n for n in range({a}, {a} + 1001) if divisors(n) % {m} == {r}))",
         lambda a, b, m, r: sum(n for n in range(a, a + 1001) if _divisors(n) % m == r)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PythonToolSettings(Settings):
    """Difficulty.

    Example:
        `PythonToolSettings(high=20_000)`
    """

    high: int = 5000
    """The largest number of a range, from 2000 to 20000."""
    prompt: str = "{question}"
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("high", self.high, 2000, 20_000)


class PythonTool(Procedural[PythonToolSettings]):
    """Questions that take a computation."""

    name = "python-tool"
    Config = PythonToolSettings
    fields = ("question",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw a form and its numbers."""
        form = FORMS[int(rng.integers(len(FORMS)))]
        high = self.config.high
        a, b = int(rng.integers(10, high // 2)), int(rng.integers(high // 2, high, endpoint=True))
        m = int(rng.integers(3, 13))
        r = int(rng.integers(m))
        holes = {"a": a, "b": b, "m": m, "r": r, "h": b // 100, "w": b // 20}
        question = form.words.format(**holes)
        if side(question) != self.config.split:
            return None  # known before the answer is worked out, which takes a while
        truth = form.value(a, b, m, r)
        if truth < LEAST:
            return None
        return Problem(
            fields={"question": question},
            canonical=question,
            truth=truth,
            solution=str(truth),
            metadata={"program": form.program.format(**holes)},
        )


def python(code: str) -> str:
    """Run a Python program and return what it prints.

    Args:
        code: The whole program; nothing is kept from one call to the next, so import and define
            again what is needed, and print the result.
    """
    outcome = shared().run(code, limits=LIMITS)
    if outcome.ended is Ended.INFRA:
        raise SandboxError(outcome.reason)
    said = [outcome.text] if outcome.text else []
    if outcome.ended is not Ended.OK:
        said.append(f"[{outcome.ended}: {outcome.reason}]")
        said.append(outcome.errors[-SHOWN_ERROR:])
    return "\n".join(part.rstrip("\n") for part in said if part) or "(nothing was printed)"


class PythonToolEnv(ShippedToolEnv[None]):
    """A chat with a Python interpreter."""

    TOOLS = (python,)
    TURNS = 6
    EXAMPLE = ("python", {"code": "print(sum(n * n for n in range(1, 101)))"})

    def solve(self, task: Task) -> Iterator[str]:
        """Run the program, and answer with what it prints."""
        printed = yield self.call("python", code=task.metadata["program"])
        yield f"<answer>{printed.strip()}</answer>"
