"""Runs the attacks of `cases/program_attacks.txt` and prints, as JSON, what each was paid.

A program of its own, so that it can be run as another user.
"""

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

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
"""Kind of test → truth."""
HONEST = {
    "c": "def f(n): return (n * 7919 + 13) % 1000",
    "a": "def f(n): return (n * 7919 + 13) % 1000",
    "s": "print((int(input()) * 7919 + 13) % 1000)",
}
SQUARE: dict[str, Any] = {
    "function": "square",
    "tests": [{"args": [3], "output": 9}, {"args": [-2], "output": 4}],
}
DOUBLE: dict[str, Any] = {
    "tests": [{"input": "3\n", "output": "6\n"}, {"input": "5\n", "output": "10\n"}]
}
HUMANEVAL: dict[str, Any] = {
    "prompt": "import math\n\ndef half(n: int) -> float:\n    '''Return n / 2.'''\n    return 1\n\n"
    "def twice_half(n: int) -> float:\n    '''Return twice the half of n.'''\n",
    "test": "def check(candidate):\n    assert math.isclose(candidate(8), 8 * half(0))\n"
    "    assert candidate(2) == 2\n",
    "entry_point": "twice_half",
}
MBPP: dict[str, Any] = {
    "test_list": ["assert add(1, 2) == 3", "assert set(add([1], [2])) == {1, 2}"],
    "test_setup_code": "",
    "challenge_test_list": ["assert math.isclose(add(0.1, 0.2), 0.3)"],
}
EXPECTED = {Status.WRONG, Status.TIMEOUT, Status.UNPARSED}


class Attack(NamedTuple):
    """A program and a kind of test that it is run against."""

    name: str
    mode: str
    program: str
    slow: bool
    """Whether it sleeps until it is given up."""


def attacks() -> list[Attack]:
    """Every attack in each of its modes."""
    text = (Path(__file__).parent / "cases" / "program_attacks.txt").read_text()
    found = []
    for section in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        head, _, program = section.partition("\n")
        name, _, kinds = head.rpartition(" | ")
        modes, _, slow = kinds.partition(" ")
        found += [Attack(name, mode, program, slow == "slow") for mode in modes]
    return found


def judge(attack: Attack, tier: Any = None) -> str:
    """Judge one attack, and an honest program after it; returns what went wrong."""
    bounds: dict[str, Any] = {"memory": 256 << 20, "tier": tier}
    strict = ProgramTests(timeout=0.3, max_timeout=0.3, **bounds)
    truth, start = TRUTHS[attack.mode], time.monotonic()
    verdict = verify(strict, f"```python\n{attack.program}```", truth)
    if verdict.reward != 0.0 or verdict.status not in EXPECTED:
        return f"it was judged {verdict}"
    if time.monotonic() - start > 60:
        return "it took more than a minute"
    start = time.monotonic()
    after = verify(ProgramTests(timeout=3.0, **bounds), HONEST[attack.mode], truth)
    if after.reward != 1.0:
        return f"the next one was judged {after}"
    return "the next one was slow" if time.monotonic() - start > 20 else ""


def judge_all(chosen: list[Attack], tier: Any = None) -> dict[str, str]:
    """Judge attacks on all cores; name → what went wrong, for those where something did."""
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda attack: judge(attack, tier), chosen))
    return {f"{a.name} ({a.mode})": wrong for a, wrong in zip(chosen, found, strict=True) if wrong}


def main(tier: str, every: int) -> dict[str, Any]:
    """Judge every so-and-so-many-th attack in a tier; those that sleep only where all are."""
    chosen = [attack for attack in attacks() if every == 1 or not attack.slow][::every]
    return {"count": len(chosen), "wrong": judge_all(chosen, tier)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
