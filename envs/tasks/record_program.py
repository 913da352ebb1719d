"""`rlvr/RecordProgram-v0`: write a program that reads records and prints a report.

**Prompt** what the lines hold and what to print; the template's hole is `{report}`. **Truth**
inputs and outputs. **Solution** a program that reads standard input. **Verifier** `program`: one
run for each test, all of the output compared. **Difficulty** how many records, and how many tests.

A record is a name, an amount and a price. The report chooses records, groups them by name, works
out one figure for each name, and orders the lines.
"""

from dataclasses import dataclass

import numpy as np

from ..procedural import Problem, Procedural, Settings, check_range
from ..programs import ANSWER_FORM, fenced
from ..selection import side

NAMES = ("apple", "bolt", "cable", "disk", "eraser", "fan", "glue", "hook")
CHOICES = (
    ("all lines", "True"),
    ("only the lines whose amount is at least {k}", "amount >= {k}"),
    ("only the lines whose price is below {k}", "price < {k}"),
    ("only the lines whose amount times price is more than {k}", "amount * price > {k}"),
    ("only the lines whose price is not divisible by {d}", "price % {d} != 0"),
)
"""Which records count: in words, as a condition."""
FIGURES = (
    ("the sum of the amounts", "sum(a for a, p in group)"),
    ("the sum of amount times price", "sum(a * p for a, p in group)"),
    ("the highest price", "max(p for a, p in group)"),
    ("the number of lines", "len(group)"),
    ("the difference between the largest and the smallest amount",
     "max(a for a, p in group) - min(a for a, p in group)"),
)  # fmt: skip
"""The figure of a name: in words, as an expression."""
ORDERS = (
    ("by name", "name"),
    ("by name, from z to a", "name, reversed"),
    ("by the figure, smallest first; equal ones by name", "figure"),
    ("by the figure, largest first; equal ones by name", "figure, reversed"),
)
SORTS = (
    "sorted(report)",
    "sorted(report, reverse=True)",
    "sorted(report, key=lambda line: (line[1], line[0]))",
    "sorted(report, key=lambda line: (-line[1], line[0]))",
)
"""The same as expressions, in the same order."""
PROGRAM = """\
groups = {{}}
for _ in range(int(input())):
    name, amount, price = input().split()
    amount, price = int(amount), int(price)
    if {condition}:
        groups.setdefault(name, []).append((amount, price))
report = [(name, {figure}) for name, group in groups.items()]
for name, figure in {sort}:
    print(name, figure)
print("total", sum(figure for name, figure in report))
"""

Record = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class RecordProgramSettings(Settings):
    """Difficulty.

    Example:
        `RecordProgramSettings(records=30)`
    """

    records: int = 12
    """Records of a test at most, from 4 to 1000."""
    tests: int = 6
    """How many runs, from 3 to 50."""
    prompt: str = (
        "Write a Python program that reads from standard input. The first line holds a number n, "
        "each of the n lines after it a name, an amount and a price (whole numbers), separated by "
        "spaces.\n{report}\n" + ANSWER_FORM
    )
    """The prompt's template."""

    def __post_init__(self) -> None:
        """Check every range."""
        super().__post_init__()
        check_range("records", self.records, 4, 1000)
        check_range("tests", self.tests, 3, 50)


class RecordProgram(Procedural[RecordProgramSettings]):
    """Reports on records."""

    name = "record-program"
    Config = RecordProgramSettings
    fields = ("report",)

    def draw(self, rng: np.random.Generator) -> Problem | None:
        """Draw the report and the inputs; too few different outputs are drawn again."""
        config = self.config
        choice, figure, order = (
            int(rng.integers(len(table))) for table in (CHOICES, FIGURES, ORDERS)
        )
        k, d = int(rng.integers(5, 400, endpoint=True)), int(rng.integers(2, 9, endpoint=True))
        if choice in (1, 2):
            k = k % 40 + 5
        words, condition = (part.format(k=k, d=d) for part in CHOICES[choice])
        canonical = f"{condition}; {FIGURES[figure][1]}; {ORDERS[order][1]}"
        if side(canonical) != config.split:
            return None  # before the inputs, which take most of the time
        sizes = [0, *rng.integers(2, config.records, size=config.tests - 1, endpoint=True).tolist()]
        inputs = [_records(rng, size) for size in sizes]
        outputs = [report(records, choice, figure, order, k, d) for records in inputs]
        if len(set(outputs)) < 3 or max(map(len, outputs)) < 20:
            return None
        program = PROGRAM.format(condition=condition, figure=FIGURES[figure][1], sort=SORTS[order])
        asked = (
            f"Take {words}. For each name among them print one line with the name and "
            f"{FIGURES[figure][0]}, ordered {ORDERS[order][0]}. In the end print the word total "
            "and the sum of these figures."
        )
        tests = [
            {"input": _shown(records), "output": output}
            for records, output in zip(inputs, outputs, strict=True)
        ]
        return Problem(
            fields={"report": asked},
            canonical=canonical,
            truth={"tests": tests},
            solution=fenced(program),
            metadata={"records": max(sizes)},
        )


def report(records: list[Record], choice: int, figure: int, order: int, k: int, d: int) -> str:
    """Work a report out, without running the solution.

    Example:
        >>> report([("fan", 2, 5), ("fan", 1, 3)], 0, 1, 0, 0, 2)
        'fan 13\\ntotal 13\\n'
    """
    figures: dict[str, int] = {}
    for name in dict.fromkeys(record[0] for record in records):
        group = [(a, p) for own, a, p in records if own == name and _counts(a, p, choice, k, d)]
        if group:
            amounts, prices = [a for a, _ in group], [p for _, p in group]
            figures[name] = (
                sum(amounts),
                sum(a * p for a, p in group),
                max(prices),
                len(group),
                max(amounts) - min(amounts),
            )[figure]
    sign = -1 if order == 3 else 1
    if order < 2:
        names = sorted(figures, reverse=order == 1)
    else:
        names = sorted(figures, key=lambda name: (sign * figures[name], name))
    lines = [f"{name} {figures[name]}\n" for name in names]
    return "".join(lines) + f"total {sum(figures.values())}\n"


def _counts(amount: int, price: int, choice: int, k: int, d: int) -> bool:
    return (True, amount >= k, price < k, amount * price > k, price % d != 0)[choice]


def _records(rng: np.random.Generator, count: int) -> list[Record]:
    names = rng.integers(len(NAMES), size=count).tolist()
    figures = rng.integers(1, 50, size=(count, 2), endpoint=True).tolist()
    return [(NAMES[pick], *pair) for pick, pair in zip(names, figures, strict=True)]


def _shown(records: list[Record]) -> str:
    return f"{len(records)}\n" + "".join(f"{n} {a} {p}\n" for n, a, p in records)
