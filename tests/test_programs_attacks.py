"""Programs that would be paid without solving anything, and honest ones that must be.

The attacks are rows of `cases/program_attacks.txt`.
"""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from rlvr.verifiers import Status, verify
from rlvr.verifiers.programs import ProgramTests

ANSWERS = {n: (n * 7919 + 13) % 1000 for n in (3, 10, 25)}
"""3 · 7919 + 13 = 23770, 10 · 7919 + 13 = 79203, 25 · 7919 + 13 = 197988."""
TRUTHS: dict[str, dict[str, Any]] = {
    "c": {
        "function": "f",
        "tests": [{"args": [n], "output": answer} for n, answer in ANSWERS.items()],
    },
    "a": {"tests": [f"assert f({n}) == {answer}" for n, answer in ANSWERS.items()]},
    "s": {"tests": [{"input": f"{n}\n", "output": f"{answer}\n"} for n, answer in ANSWERS.items()]},
}
HONEST = {
    "c": "def f(n): return (n * 7919 + 13) % 1000",
    "a": "def f(n): return (n * 7919 + 13) % 1000",
    "s": "print((int(input()) * 7919 + 13) % 1000)",
}
JUDGE = ProgramTests(timeout=0.3, max_timeout=0.3, memory=256 << 20)
PATIENT = ProgramTests(timeout=3.0)


def attacks() -> list[tuple[str, str, str]]:
    """Name, mode and program of every attack."""
    text = (Path(__file__).parent / "cases" / "program_attacks.txt").read_text()
    found = []
    for section in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        head, _, program = section.partition("\n")
        name, _, modes = head.partition(" | ")
        found += [(name, mode, program) for mode in modes.strip()]
    return found


def test_there_are_attacks_of_many_kinds() -> None:
    assert len({name for name, _, _ in attacks()}) >= 100


@pytest.mark.parametrize(
    ("mode", "program"),
    [(m, p) for _, m, p in attacks()],
    ids=[f"{n}-{m}" for n, m, _ in attacks()],
)
def test_no_attack_is_paid_and_none_slows_the_next_run(mode: str, program: str) -> None:
    fenced = f"```python\n{program}```"
    start = time.monotonic()
    verdict = verify(JUDGE, fenced, TRUTHS[mode])
    assert verdict.reward == 0.0, verdict
    assert verdict.status in (Status.WRONG, Status.TIMEOUT, Status.UNPARSED)
    assert time.monotonic() - start < 20
    start = time.monotonic()
    assert verify(PATIENT, HONEST[mode], TRUTHS[mode]).reward == 1.0
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("mode", list(HONEST))
def test_attacks_earn_nothing_where_shares_are_paid(mode: str) -> None:
    shares = ProgramTests(reward="fraction", timeout=0.3, max_timeout=0.3)
    for program in ("import os; os._exit(0)", "def f(n): raise SystemExit(0)", "raise SystemExit"):
        assert verify(shares, program, TRUTHS[mode]).reward == 0.0
