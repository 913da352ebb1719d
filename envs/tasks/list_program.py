"""`rlvr/ListProgram-v0`: write a function that does several things to a list, one after the other.

**Prompt** the steps in words; the template's hole is `{steps}`. **Truth** calls of `solve` with
their results. **Solution** a function made of the same steps. **Verifier** `program`: calls in a
sandbox, results compared by exact type. **Difficulty** how many steps, and how many tests.

Results are computed here by functions of ours, not by running the solution's text. A problem whose
tests cannot tell the steps apart (few different results, or some step changes nothing on any of
them) is drawn again. The last step may make a number of the list.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..procedural import Problem, Procedural, Settings, check_range
from ..programs import ANSWER_FORM, fenced
from ..selection import side


@dataclass(frozen=True)
class Step:
    """One step: in words, as a line of Python, as a function; `k` is drawn from `low` to `high`.

    Example:
        `Step("add {k} to every number", "xs = [x + {k} for x in xs]", …, 1, 9)`
    """

    words: str
    line: str
    apply: Callable[[list[int], int], Any]
    low: int = 0
    high: int = 0


STEPS = (
    Step("add {k} to every number", "xs = [x + {k} for x in xs]",
         lambda xs, k: [x + k for x in xs], 2, 30),
    Step("multiply every number by {k}", "xs = [x * {k} for x in xs]",
         lambda xs, k: [x * k for x in xs], 2, 12),
    Step("replace every number by its remainder when divided by {k} (from 0 to {k} - 1)",
         "xs = [x % {k} for x in xs]", lambda xs, k: [x % k for x in xs], 3, 30),
    Step("keep only the numbers greater than {k}", "xs = [x for x in xs if x > {k}]",
         lambda xs, k: [x for x in xs if x > k], -20, 20),
    Step("keep only the numbers that are divisible by {k}", "xs = [x for x in xs if x % {k} == 0]",
         lambda xs, k: [x for x in xs if x % k == 0], 2, 4),
    Step("drop the first {k} items (all of them if there are fewer)", "xs = xs[{k}:]",
         lambda xs, k: xs[k:], 1, 3),
    Step("keep every item at an even index, counting from 0", "xs = xs[::2]",
         lambda xs, k: xs[::2]),
    Step("reverse the list", "xs = xs[::-1]", lambda xs, k: xs[::-1]),
    Step("sort the list, smallest first", "xs = sorted(xs)", lambda xs, k: sorted(xs)),
    Step("replace every number by its absolute value", "xs = [abs(x) for x in xs]",
         lambda xs, k: [abs(x) for x in xs]),
    Step("remove repeated numbers, keeping the first of each", "xs = list(dict.fromkeys(xs))",
         lambda xs, k: list(dict.fromkeys(xs))),
    Step("replace the list by its running totals",
         "xs = [sum(xs[:i + 1]) for i in range(len(xs))]",
         lambda xs, k: [sum(xs[: i + 1]) for i in range(len(xs))]),
    Step("move the first {k} items to the end, one at a time (as often as there are items, if "
         "there are fewer)", "xs = xs[{k}:] + xs[:{k}]", lambda xs, k: xs[k:] + xs[:k], 1, 4),
)  # fmt: skip
ENDS = (
    Step("return the list", "return xs", lambda xs, k: xs),
    Step("return the sum of the list (0 if it is empty)", "return sum(xs)",
         lambda xs, k: sum(xs)),
    Step("return the largest number of the list ({k} if it is empty)",
         "return max(xs, default={k})", lambda xs, k: max(xs, default=k), -9, 9),
    Step("return how many numbers of the list are odd", "return sum(x % 2 for x in xs)",
         lambda xs, k: sum(x % 2 for x in xs)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ListProgramSettings(Settings):
    """Difficulty.

    Example:
        `ListProgramSettings(steps=4)`
    """

    steps: int = 3
    """How many steps before the last, from 1 to 8."""
    tests: int = 10
    """How many calls, from 4 to 100."""
    prompt: str = (
        "Write a Python function `solve(xs)` that takes a list of integers and does this:\n"
        "{steps}\nIt must not change the list that it is given.\n" + ANSWER_FORM
    )
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("steps", self.steps, 1, 8)
        check_range("tests", self.tests, 4, 100)


class ListProgram(Procedural[ListProgramSettings]):
    """Functions of lists."""

    name = "list-program"
    Config = ListProgramSettings
    fields = ("steps",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw the steps and the inputs; too few different results are drawn again."""
        config = self.config
        picks = rng.permutation(len(STEPS))[: config.steps].tolist()
        steps = [STEPS[pick] for pick in picks] + [ENDS[int(rng.integers(len(ENDS)))]]
        values = [int(rng.integers(step.low, step.high, endpoint=True)) for step in steps]
        words = [step.words.format(k=k) for step, k in zip(steps, values, strict=True)]
        lines = [step.line.format(k=k) for step, k in zip(steps, values, strict=True)]
        if side("; ".join(lines)) != config.split:
            return None  # before the inputs, which take most of the time
        inputs = [[], *(_numbers(rng) for _ in range(config.tests - 1))]
        traces = [_trace(steps, values, xs) for xs in inputs]
        results = [trace[-1] for trace in traces]
        moved = [any(t[i] != t[i + 1] for t in traces) for i in range(config.steps)]
        if len({str(result) for result in results}) < 4 or not all(moved):
            return None
        tests = [
            {"args": [xs], "output": result, "after": [xs]}
            for xs, result in zip(inputs, results, strict=True)
        ]
        return Problem(
            fields={"steps": "\n".join(f"{at}. {word}" for at, word in enumerate(words, 1))},
            canonical="; ".join(lines),
            truth={"function": "solve", "tests": tests},
            solution=fenced("def solve(xs):\n    " + "\n    ".join(lines)),
            metadata={"steps": config.steps},
        )


def _numbers(rng: np.random.Generator) -> list[int]:
    """Draw a list; numbers repeat now and then."""
    count = int(rng.integers(1, 12, endpoint=True))
    return rng.integers(-40, 60, size=count, endpoint=True).tolist()


def _trace(steps: list[Step], values: list[int], xs: list[int]) -> list[Any]:
    """Return the list before and after every step."""
    trace: list[Any] = [list(xs)]
    for step, k in zip(steps, values, strict=True):
        trace.append(step.apply(trace[-1], k))
    return trace
