"""The verifier of programs: what came of each test, rewards, judges, honest programs."""

import asyncio
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs_harness import DOUBLE, HUMANEVAL, MBPP, SQUARE

from rlvr.verifiers import Status, Task, verify
from rlvr.verifiers.check import check_verifier
from rlvr.verifiers.programs import End, ProgramTests, tag
from rlvr.verifiers.programs.session import Lost

JUDGE = ProgramTests(timeout=0.5, max_timeout=2.0)
HASTY = ProgramTests(timeout=0.2)


def fails(program: str, truth: dict[str, Any], judge: ProgramTests = JUDGE) -> dict[str, Any]:
    """Judge a program that fails and return the evidence of its first failing test."""
    verdict = verify(judge, program, truth)
    assert verdict.scored, verdict
    assert verdict.status is not Status.CORRECT
    return verdict.evidence["failed"]


@pytest.mark.parametrize(
    ("program", "end", "status"),
    [
        ("def square(x): return x", End.WRONG, Status.WRONG),
        ("def square(x) return", End.SYNTAX, Status.WRONG),
        ("def square(x): return 1 // 0", End.EXCEPTION, Status.WRONG),
        ("raise ValueError('at the top')", End.EXCEPTION, Status.WRONG),
        ("def square(x):\n    while True: pass", End.TIMEOUT, Status.TIMEOUT),
        ("def square(x): return bytearray(1 << 40)", End.MEMORY, Status.WRONG),
        ("def square(x): return 'x' * 10 ** 7", End.OUTPUT, Status.WRONG),
        ("import ctypes\ndef square(x): ctypes.string_at(0)", End.CRASH, Status.WRONG),
        ("import os\ndef square(x): os._exit(0)", End.INCOMPLETE, Status.WRONG),
        ("import os\ndef square(x): os.write(3, b'9\\n')", End.MALFORMED, Status.WRONG),
    ],
)
def test_ways_to_fail_are_kept_apart(program: str, end: End, status: Status) -> None:
    assertions = {"tests": ["assert square(3) == 9", "assert square(-2) == 4"]}
    for truth in (SQUARE, assertions):
        verdict = verify(HASTY, program, truth)
        assert (verdict.reward, verdict.status) == (0.0, status)
        assert verdict.evidence["failed"]["end"] == end, verdict
        assert verdict == verify(HASTY, program, truth)


def test_evidence_names_the_test_and_what_it_wanted() -> None:
    failed = fails("def square(x): return abs(x) * 3", SQUARE)
    assert failed == {"test": 1, "end": "wrong", "input": "-2", "expected": "4", "got": "6"}
    failed = fails("def square(x): return [][x]", SQUARE)
    assert failed["reason"] == "IndexError: list index out of range"
    assert failed["stderr"].splitlines()[1].strip().startswith('File "solution.py", line 1')
    failed = fails("print(input())", DOUBLE)
    assert (failed["input"], failed["expected"], failed["got"]) == ("3\n", "6\n", "3\n")
    failed = fails("def add(a, b): return a", MBPP)
    assert failed["input"] == "add(1, 2)"
    assert (failed["expected"], failed["got"]) == ("assert add(1, 2) == 3", "1")
    failed = fails("def twice_half(n): return n + (n < 5)", HUMANEVAL)
    assert failed["expected"] == "assert candidate(2) == 2"


def test_evidence_is_small_and_the_same_each_time() -> None:
    program = "class A: pass\ndef square(x): raise ValueError(str(A()) + 'y' * 10**6)"
    verdicts = [verify(JUDGE, program, SQUARE) for _ in range(2)]
    assert verdicts[0] == verdicts[1]
    assert len(json.dumps(verdicts[0].to_json())) < 3000


def test_a_share_of_the_tests_is_paid_as_such() -> None:
    share = ProgramTests(reward="fraction", timeout=0.5)
    truth = {**SQUARE, "tests": [{"args": [n], "output": n * n} for n in (2, 3, 4, 5)]}
    program = "def square(x):\n    if x == 3: import os; os._exit(0)\n    return x * x"
    verdict = verify(share, program, truth)
    assert (verdict.reward, verdict.status) == (0.75, Status.PARTIAL)
    lines = {"tests": [f"assert square({n}) == {n * n}" for n in (2, 3, 4, 5)]}
    assert verify(share, program, lines).reward == 0.75
    assert verify(share, "print(6)", DOUBLE).reward == 0.5
    assert verify(share, "def square(x) return", truth).reward == 0.0


def test_programs_that_are_late_again_and_again_are_given_up() -> None:
    share = ProgramTests(reward="fraction", timeout=0.1, max_timeout=0.1)
    truth = {**SQUARE, "tests": [{"args": [n], "output": n} for n in range(50)]}
    verdict = verify(share, "def square(x):\n    while x: pass\n    return 0", truth)
    assert verdict.reward == 1 / 50
    assert verdict.cost["cpu"] < 1.0


def test_gates_pay_for_what_is_reached() -> None:
    gates = ProgramTests(reward="gates", weights=(1, 2, 7), timeout=0.5)
    rewards = {
        "def square(x) return": 0.0,
        "raise ValueError": 0.0,
        "def square(x): raise ValueError": 0.1,  # 1 / 10
        "def square(x): return 0": 0.3,  # (1 + 2) / 10
        "def square(x): return x * x": 1.0,
    }
    for program, reward in rewards.items():
        assert verify(gates, program, SQUARE).reward == pytest.approx(reward)
    later = "def square(x): return 0 if x > 0 else [][x]"  # the second test raises
    assert verify(gates, later, SQUARE).reward == pytest.approx(0.1)
    assert verify(gates, "def square(x): return 0", SQUARE).parts == {
        "parses": 1.0, "runs": 1.0, "passes": 0.0,
    }  # fmt: skip


def test_values_that_json_lacks_can_be_asked_for() -> None:
    truth = {
        "function": "f",
        "values": "tagged",
        "tests": [
            {"args": [tag((1, {2}))], "output": tag({(1,): {2, 3}}), "after": [tag((1, {2}))]}
        ],
    }
    assert verify(JUDGE, "def f(x): return {x[:1]: x[1] | {3}}", truth).reward == 1.0
    assert verify(JUDGE, "def f(x): return {x[:1]: [2, 3]}", truth).reward == 0.0
    assert verify(JUDGE, "def f(x):\n    x[1].add(3); return {(1,): {2, 3}}", truth).reward == 0.0


def test_changed_arguments_can_be_what_is_tested() -> None:
    truth = {"function": "f", "tests": [{"args": [[3, 1, 2]], "after": [[1, 2, 3]]}]}
    assert verify(JUDGE, "def f(xs): xs.sort()", truth).reward == 1.0
    assert verify(JUDGE, "def f(xs): return sorted(xs)", truth).reward == 0.0
    lines = {"tests": ["xs = [3, 1]\nf(xs)\nassert xs == [1, 3]"], "mutation": True}
    assert verify(JUDGE, "def f(xs): xs.sort()", lines).reward == 1.0
    copies = {**lines, "mutation": False}
    assert verify(JUDGE, "def f(xs): xs.sort()", copies).reward == 0.0


def test_a_test_cannot_be_bent_through_its_arguments() -> None:
    """The tests compute what they expect from a list that the program would like to empty."""
    truth = {"tests": ["xs = [3, 1]\nassert f(xs) == sorted(xs)"]}
    assert verify(JUDGE, "def f(xs):\n    xs.clear()\n    return []", truth).reward == 0.0


def test_tests_may_use_objects_exceptions_callbacks_and_iterators_of_a_program() -> None:
    program = """
class Stack:
    def __init__(self, *xs): self.xs = list(xs)
    def push(self, x): self.xs.append(x); return self
    def pop(self):
        if not self.xs: raise IndexError("empty")
        return self.xs.pop()
class Pair:
    def __init__(self, a, b): self.a, self.b = a, b
def total(pairs): return sum(p.a + p.b for p in pairs)
def apply(f, xs): return [f(x) for x in xs]
def count():
    n = 0
    while True:
        yield n
        n += 1
def adder(a): return lambda b: a + b
"""
    tests = [
        "s = Stack(1)\ns.push(2)\nassert s.pop() == 2 and s.xs == [1]",
        "try: Stack().pop()\nexcept IndexError as error: assert str(error) == 'empty'\n"
        "else: assert False",
        "assert total([Pair(1, 2), Pair(b=3, a=4)]) == 10",
        "assert apply(lambda x: x * 2, [1, 2]) == [2, 4]",
        "assert apply(lambda x: total([Pair(x, x)]), [1, 2]) == [2, 4]",
        "from itertools import islice\nassert list(islice(count(), 3)) == [0, 1, 2]",
        "assert adder(1)(2) == 3",
        "assert apply(len, ['ab']) == [2]",
    ]
    truth = {"tests": tests, "classes": ["Stack"]}
    verdict = verify(JUDGE, program, truth)
    assert verdict.reward == 1.0, verdict
    closed = verify(JUDGE, program, {"tests": tests[:1]})
    assert "no plain data" in closed.evidence["failed"]["reason"]


def test_an_object_is_never_asked_about_what_is_expected() -> None:
    program = """
class Yes:
    def __init__(self, *a): self.ok = True
    def startswith(self, x): return True
    def __eq__(self, x): return True
    def issubset(self, x): return True
def f(x): return Yes()
"""
    for test in ("f(1).startswith('a')", "f(1) == 2", "f(1).issubset({1})", "2 == f(1)",
                 "f(1) in [2]", "f(1).ok", "len(f(1)) == 1", "abs(f(1) - 2) < 1"):  # fmt: skip
        assert verify(JUDGE, program, {"tests": [f"assert {test}"]}).reward == 0.0, test


def test_a_program_that_dies_is_no_exception_that_a_test_could_catch() -> None:
    truth = {"tests": ["try:\n    f(1)\n    ok = False\nexcept Exception: ok = True\nassert ok"]}
    assert verify(JUDGE, "def f(x): raise ValueError", truth).reward == 1.0
    for death in ("import os; os._exit(0)", "import os; os.write(3, b'?\\n')", "while True: pass"):
        assert verify(JUDGE, f"def f(x):\n    {death}", truth).reward == 0.0


def test_a_special_judge_decides_where_many_answers_are_right() -> None:
    source = "def judge(given, output, expected):\n    n = int(given)\n"
    source += "    return sum(map(int, output.split())) == n and len(output.split()) > 1\n"
    truth = {"tests": [{"input": "7", "output": ""}], "judge": source}
    assert verify(JUDGE, "print(3, int(input()) - 3)", truth).reward == 1.0
    assert verify(JUDGE, "print(7)", truth).reward == 0.0
    assert "refuses it: ValueError" in fails("print('x y')", truth)["reason"]
    calls = {
        "function": "f",
        "tests": [{"args": [4], "output": 1}],
        "judge": "def judge(args, output, expected): return (output - expected) / args[0]",
    }
    assert verify(ProgramTests(reward="fraction"), "def f(n): return 3", calls).reward == 0.5
    assert verify(JUDGE, "def f(n): return 5", calls).reward == 1.0
    assert verify(JUDGE, "def f(n): return float('nan')", calls).reward == 0.0
    for broken in ("def judge(", "x = 1", "def judge(a, b, c): return 7"):
        verdict = verify(JUDGE, "def f(n): return 3", {**calls, "judge": broken})
        assert verdict.status is Status.BAD_TRUTH, verdict


def test_the_truths_own_solution_stretches_the_time_and_must_pass() -> None:
    slow = "def f(n):\n    s = 0\n    for i in range(n): s += i\n    return s"
    truth = {"function": "f", "tests": [{"args": [8_000_000], "output": 31999996000000}]}
    tight = ProgramTests(timeout=0.05, scale=20.0, max_timeout=20.0)
    assert verify(tight, slow, truth).status is Status.TIMEOUT
    assert verify(tight, slow, {**truth, "solution": slow}).reward == 1.0
    verdict = verify(tight, slow, {**truth, "solution": "def f(n): return 0"})
    assert verdict.status is Status.BAD_TRUTH
    assert "own solution fails" in verdict.evidence["reason"]


@pytest.mark.parametrize("truth", [SQUARE, {"tests": ["assert square(3) == 9"]}, DOUBLE])
def test_our_own_examination_finds_nothing(truth: dict[str, Any]) -> None:
    program = "print(2 * int(input()))" if truth is DOUBLE else "def square(x): return x * x"
    task = Task(id="a", prompt="?", truth=truth, solution=program)
    report = check_verifier(JUDGE, [task], budget=20.0)
    assert report.ok, str(report)


HONEST = {
    "threads": "from concurrent.futures import ThreadPoolExecutor\n"
    "def f(n):\n    with ThreadPoolExecutor(4) as pool: return sum(pool.map(int, range(n)))",
    "asyncio": "import asyncio\nasync def g(n): return sum(range(n))\n"
    "def f(n): return asyncio.run(g(n))",
    "recursion": "import sys\nsys.setrecursionlimit(5000)\n"
    "def f(n): return 0 if n == 0 else n - 1 + f(n - 1)",
    "files": "import tempfile\ndef f(n):\n    with tempfile.TemporaryFile('w+') as file:\n"
    "        file.write(str(n)); file.seek(0); return sum(range(int(file.read())))",
    "memory": "def f(n):\n    x = bytearray(200 << 20); return sum(range(n)) + x[5]",
    "prints": "def f(n):\n    for _ in range(20000): print('so far so good')\n"
    "    return sum(range(n))",
    "dataclass": "from dataclasses import dataclass\n@dataclass\nclass A:\n    n: int\n"
    "def f(n): return sum(range(A(n).n))",
    "future": "from __future__ import annotations\ndef f(n: Later) -> Never: return sum(range(n))",
    "shadows": "def str(x): return 0\nid = type = len = None\ndef f(n): return sum(range(n))",
    "main": "def f(n): return sum(range(n))\nif __name__ == '__main__': raise ValueError",
    "numbers": "import decimal, fractions, math, re, json, itertools, random, statistics\n"
    "def f(n): return int(decimal.Decimal(n) * (n - 1) / 2)",
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_pass(name: str) -> None:
    truth = {
        "function": "f",
        "tests": [{"args": [n], "output": n * (n - 1) // 2} for n in (5, 900)],
    }
    verdict = verify(ProgramTests(), HONEST[name], truth)
    assert verdict.reward == 1.0, verdict


def test_verdicts_come_out_in_threads_and_event_loops() -> None:
    programs = [f"def square(x): return x * x + {n % 2}" for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        rewards = list(pool.map(lambda p: verify(JUDGE, p, SQUARE).reward, programs))
    assert rewards == [1.0, 0.0] * 6

    async def inside() -> float | None:
        return (await asyncio.to_thread(verify, JUDGE, programs[0], SQUARE)).reward

    assert asyncio.run(inside()) == 1.0


def _servers() -> list[int]:
    """Process ids of the sandboxes' servers that this process has started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"inside.server" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def test_a_server_that_dies_in_the_middle_costs_nobody_their_reward() -> None:
    program = "import time\ndef square(x):\n    time.sleep(0.2)\n    return x * x"
    assert verify(JUDGE, program, SQUARE).reward == 1.0
    for truth in (SQUARE, {"tests": ["assert square(3) == 9"]}):
        timer = threading.Timer(0.1, lambda: [os.kill(p, signal.SIGKILL) for p in _servers()])
        timer.start()
        verdict = verify(JUDGE, program, truth)
        timer.join()
        assert verdict.reward == 1.0, verdict


def test_a_sandbox_that_cannot_be_had_is_an_error_and_no_zero() -> None:
    class Broken(ProgramTests):
        def _run(self, *given: Any, **named: Any) -> Any:
            raise Lost("no servers today")

    verdict = verify(Broken(), "def square(x): return x", SQUARE)
    assert (verdict.reward, verdict.status) == (None, Status.ERROR)
    assert "no servers today" in verdict.evidence["reason"]


@pytest.mark.parametrize("tier", ["ns", "flat"])
def test_the_sandbox_can_be_chosen_and_is_named_in_the_verdict(tier: Any) -> None:
    verdict = verify(ProgramTests(tier=tier), "def square(x): return x * x", SQUARE)
    assert (verdict.reward, verdict.evidence["tier"]) == (1.0, tier)


def test_answers_that_are_large_again_and_again_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rlvr.verifiers.programs.asserts.MAX_ANSWERS", 2_000_000)
    program = "def f(n): return 'x' * 300_000"
    truth = {"tests": ["for n in range(1000): f(n)"]}
    failed = fails(program, truth, ProgramTests())
    assert failed["end"] == End.OUTPUT
    many = {"function": "f", "tests": [{"args": [n], "output": "x"} for n in range(4)]}
    verdict = verify(ProgramTests(reward="fraction"), program, many)
    assert verdict.reward == 0.0
    assert "an answer of more than" in verdict.evidence["reason"]
    long = {"function": "f", "tests": [{"args": [1], "output": "x" * 300_000}]}
    assert verify(ProgramTests(), program, long).reward == 1.0


def test_the_environment_is_stated() -> None:
    assert JUDGE.environment().startswith("Python 3.")
    assert ProgramTests(packages=("numpy",)).environment().endswith(" and numpy")


@pytest.mark.parametrize(
    ("body", "caught"),
    [
        ("class Bad(ValueError): pass\ndef f(): raise Bad('no')", "ValueError"),
        ("import json\ndef f(): json.loads('{')", "ValueError"),
        ("import decimal\ndef f(): decimal.Decimal('x')", "ArithmeticError"),
        ("def f(): b'\\xff'.decode()", "UnicodeDecodeError"),
        ("def f(): return {}['x']", "LookupError"),
    ],
)
def test_an_exception_is_caught_by_the_name_of_what_it_is_derived_from(
    body: str, caught: str
) -> None:
    test = "try:\n    f()\nexcept {}:\n    pass\nelse:\n    raise TypeError"
    assert verify(JUDGE, body, {"tests": [test.format(caught)]}).reward == 1.0
    failed = verify(JUDGE, body, {"tests": [test.format("MemoryError")]})
    assert failed.evidence["failed"]["end"] == End.EXCEPTION


def test_a_program_may_begin_with_imports_from_the_future_where_a_prompt_comes_first() -> None:
    truth = {
        "prompt": 'from typing import List\n\ndef f(x: List[int]) -> int:\n    """Add."""\n',
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
    }
    program = (
        "from __future__ import annotations\n\n\ndef f(x: Later) -> Never:\n    return sum(x)\n"
    )
    assert verify(JUDGE, program, truth).reward == 1.0


def test_a_judge_that_an_output_leads_to_infinity_gives_nothing() -> None:
    truth = {
        "function": "f",
        "tests": [{"args": [1], "output": 2}],
        "judge": "def judge(given, output, expected): return expected * output",
    }
    assert verify(JUDGE, "def f(x): return float('inf')", truth).status is Status.WRONG


@pytest.mark.parametrize("when", ["", "def f(n):\n    "])
def test_a_limit_of_its_own_does_not_keep_a_program_from_being_scored(when: str) -> None:
    limit = "resource.setrlimit(resource.RLIMIT_CPU, (0, 0))"
    program = f"import resource\n{when}{limit}; sum(iter(int, 1))"
    assert verify(JUDGE, program, {"tests": ["assert f(1) == 1"]}).status is Status.WRONG
