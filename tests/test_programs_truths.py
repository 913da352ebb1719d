"""The forms of truths of programs, what is broken about them, and where a program stands."""

import base64
import builtins
import json
import os
import pickle
import time
import zlib
from typing import Any

import pytest
from programs_harness import DOUBLE, HUMANEVAL, MBPP, SQUARE

from rlvr.verifiers import Status, UsageError, Verdict, make, verify
from rlvr.verifiers.programs import ProgramTests, find_program
from rlvr.verifiers.programs.prelude import NAMES, prelude
from rlvr.verifiers.programs.truths import pickled_text

JUDGE = ProgramTests(timeout=0.5, max_timeout=2.0)


@pytest.mark.parametrize(
    ("program", "truth"),
    [
        ("def square(x): return x * x", SQUARE),
        ("square = lambda x: x ** 2", SQUARE),
        ("class square:\n    def __new__(cls, x): return x * x", SQUARE),
        ("print(2 * int(input()))", DOUBLE),
        ("import sys\nfor line in sys.stdin: print(int(line) * 2, end='')", DOUBLE),
        ("def twice_half(n):\n    return n", HUMANEVAL),
        ("    return 2 * (n / 2)\n", HUMANEVAL),
        (HUMANEVAL["prompt"] + "    return n", HUMANEVAL),
        ("def add(a, b): return a + b", MBPP),
        (
            "class Solution:\n    def add(self, a, b): return [a + b]",
            {"input_output": {"fn_name": "add", "inputs": [[1, 2]], "outputs": [[[3]]]}},
        ),
        (
            "def add(a, b): return a + b",
            {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2]], "outputs": [3]})},
        ),
        ("print(input())", {"input_output": {"inputs": ["a", ["b"]], "outputs": ["a\n", "b"]}}),
        (
            "def pair(a: int) -> List[int]: return [a, gcd(a, 4)][:a]",
            {"input_output": {"fn_name": "pair", "inputs": [[1], [2]], "outputs": [[1], [2, 2]]}},
        ),
        (
            "n: Optional[int] = int(input())\nprint(sum(accumulate(range(n))), math.inf)",
            {"input_output": {"inputs": ["4"], "outputs": ["10 inf"]}},
        ),
        (
            "def one(a): return [a]",
            {"input_output": {"fn_name": "one", "inputs": [[1], [2]], "outputs": [[1], [2]]}},
        ),
        (
            "class Solution:\n    def first(self, xs, k): return (xs[0], float(k))",
            {
                "public_test_cases": json.dumps(
                    [{"input": "[1, 2]\n5", "output": "[1, 5]", "testtype": "functional"}]
                ),
                "metadata": json.dumps({"func_name": "first"}),
            },
        ),
    ],
)
def test_right_programs_pass_in_every_form(program: str, truth: dict[str, Any]) -> None:
    for completion in (f"So:\n```python\n{program}\n```\nDone.", program):
        verdict = verify(JUDGE, completion, truth)
        assert verdict.status is Status.CORRECT, verdict
        assert verdict.evidence["passed"] == verdict.evidence["tests"]
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict
    assert verdict.cost["cpu"] > 0
    assert verdict.cost["memory"] > 1e6


@pytest.mark.parametrize(
    ("program", "imports"),
    [
        ("def f(xs: List[int]): return heappop(xs)",
         "from heapq import heappop; from typing import List"),
        ("import bisect\nbisect.insort(xs, 1)", "from bisect import insort; import bisect"),
        ("bisect(xs, 1)", "from bisect import bisect"),
        ("math = 5\nprint(math)", ""),
        ("re.sub(*x)", "import re"),
    ],
)  # fmt: skip
def test_contest_programs_get_the_imports_that_they_leave_out(program: str, imports: str) -> None:
    assert prelude(program) == imports


def test_every_name_of_the_usual_imports_is_there_and_hides_no_builtin() -> None:
    for module, names in NAMES.items():
        exec(f"from {module} import {', '.join(names)}", {})
        assert not set(names) & vars(builtins).keys()


def test_imports_that_were_left_out_are_missed_elsewhere() -> None:
    assert verify(JUDGE, "def square(x: List) -> int: return x * x", SQUARE).reward == 0.0


def test_no_text_takes_long_to_look_through() -> None:
    start = time.process_time()
    for text in ("```" + " " * 150_000 + "`", " " * 150_000 + "x", "`" * 150_000 + "x`"):
        assert find_program(text) in (text, None)
    assert verify(JUDGE, "\n" * 190_000 + "square = abs", SQUARE).reward == 0.0
    assert time.process_time() - start < 5


def test_packed_tests_are_read_without_unpickling() -> None:
    cases = json.dumps([{"input": "3", "output": "9", "testtype": "functional"}])
    packed = base64.b64encode(zlib.compress(pickle.dumps(cases))).decode()
    truth = {"private_test_cases": packed, "metadata": {"func_name": "square"}}
    assert verify(JUDGE, "def square(x): return x * x", truth).reward == 1.0
    assert verify(JUDGE, "def square(x): return x", truth).reward == 0.0
    with pytest.raises(ValueError, match="expected a text alone"):
        pickled_text(pickle.dumps(os.system))
    assert verify(JUDGE, "x", {**truth, "private_test_cases": "###"}).status is Status.BAD_TRUTH


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (None, "a truth of programs is an object"),
        ({}, "expected 'tests'"),
        ({"tests": []}, "at least one test"),
        ({"tests": [5]}, "an object or a text of code"),
        ({"tests": [{"input": 5, "output": ""}]}, "the 'input' of a test is a text"),
        ({"tests": [{"input": "5"}]}, "the 'output' of a test is a text"),
        ({"tests": [{"input": "", "output": "", "outptu": 1}]}, "nothing reads the keys outptu"),
        ({**SQUARE, "toleranc": 1}, "nothing reads the keys toleranc"),
        ({**SQUARE, "tolerance": -1}, "tolerance=-1"),
        ({**SQUARE, "types": "loose"}, "types='loose'"),
        ({**SQUARE, "timeout": 0}, "'timeout' is seconds"),
        ({**SQUARE, "memory": 5}, "'memory' is bytes"),
        ({**SQUARE, "function": "a b"}, "'function' is a name"),
        ({"function": "f", "tests": [{"args": 5, "output": 1}]}, "'args' is a list"),
        ({"function": "f", "tests": [{"args": []}]}, "needs 'output' or 'after'"),
        ({**DOUBLE, "unordered": True, "tolerance": 0.1}, "unordered=True goes with"),
        ({"tests": ["assert f(1) =="]}, "a test is no Python"),
        ({"tests": ["assert 1 == 1"]}, "call nothing of the program"),
        ({"tests": ["assert f(1) == 1"], "setup": "1 / 0"}, "what comes before the tests fails"),
        ({"entry_point": "f", "prompt": "def f():\n"}, "the 'test' of a test is a text"),
        ({"input_output": {"inputs": ["1"], "outputs": []}}, "1 inputs and 0 outputs"),
        ({"input_output": "{"}, "the truth with 'input_output' is broken"),
        ({"public_test_cases": "[]"}, "tests of one type"),
    ],
)  # fmt: skip
def test_broken_truths_are_unscored_and_named(truth: Any, message: str) -> None:
    verdict = verify(JUDGE, "def f(x): return x", truth)
    assert verdict.status is Status.BAD_TRUTH
    assert message in verdict.evidence["reason"]


@pytest.mark.parametrize(
    "options",
    [
        {"reward": "some"}, {"weights": (1, 2)}, {"weights": (0, 0, 0)}, {"weights": (-1, 1, 1)},
        {"timeout": 0}, {"scale": -1}, {"memory": 1}, {"tolerance": 2}, {"whitespace": "some"},
        {"types": "any"}, {"unordered": 1}, {"max_timeout": 1e9}, {"tolerance": True},
        {"tier": "docker"}, {"require": "some"},
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make("program", **options)


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("```python\na\n```", "a\n"),
        ("```\na\n```\n```text\nout\n```", "a\n"),
        ("```py\nold\n```\nno:\n```python3\nnew\n```", "new\n"),
        ("~~~python\na\n~~~", "a\n"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''\n"),
        ("```python\ncut off", "cut off"),
        ("<think>```python\nno\n```</think>```python\nyes\n```", "yes\n"),
        ("1. so:\n   ```python\n   import a\n   b\n   ```", "import a\nb\n"),
        ("```json\n{}\n```", None),
        ("```python\n\n```", None),
        ("```python\r\na = 1\r\n```\r\n", "a = 1\r\n"),
        ("", None),
        ("    return 1", "    return 1"),
        ("```python\na\n```<|im_end|>```python\nb\n```", "a\n"),
    ],
)
def test_the_last_block_of_python_is_the_program(completion: str, program: str | None) -> None:
    assert find_program(completion) == program


def test_texts_without_a_program_are_unparsed() -> None:
    fences = ProgramTests(whole=False)
    assert verify(fences, "def square(x): return x * x", SQUARE).status is Status.UNPARSED
    assert verify(JUDGE, "```python\n```", SQUARE).status is Status.UNPARSED
    assert verify(JUDGE, "x\0 = 1", SQUARE).status is Status.UNPARSED
    assert verify(JUDGE, "x = '\ud800'", SQUARE).status is Status.UNPARSED
    assert verify(JUDGE, "#" * 300_000, SQUARE).status is Status.LIMIT
